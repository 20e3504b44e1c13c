"""From the texts of an image to possible answers about an attribute.

    text = load_engine().read(image)
    find_candidates(text, schema["item_weight"])  # best first

Numbers with units, whole numbers, values of a choice, one or several, and texts that match a pattern are found; free
texts are not.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice

from product_vqa.ocr.candidate import Candidate, Evidence
from product_vqa.ocr.choices import find_values
from product_vqa.ocr.geometry import Line, group_neighbours, is_below, is_next_to, measure_lines, union
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.quantities import TextQuantity, UnitFinder, find_quantities, normalize_text
from product_vqa.ocr.ranking import Context, rank
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import ChoiceKind, IntegerKind, MultiChoiceKind, PatternKind, QuantityKind, TextKind
from product_vqa.task.known_units import is_length

MAX_CANDIDATES = 16  # of a question, the best ones
MAX_READINGS = 5000  # of a question, the first ones: an image of a real product has some hundred


@dataclass(frozen=True)
class Reading:
    """A candidate with where in the text of which line it is, for the rules that rank it."""

    candidate: Candidate
    line: Line
    quantity: TextQuantity | None = None


def has_rules(attribute: Attribute) -> bool:
    """Whether candidates are looked for: not for free texts, nor for yes or no, which an image does not print."""
    return not isinstance(attribute.kind, TextKind) and attribute.kind.name != "yes_no"


def find_candidates(
    text: ImageText, attribute: Attribute, *, unit_shares: Mapping[str, float] | None = None
) -> list[Candidate]:
    """The answers that the text supports, best first, each once, at most MAX_CANDIDATES.

    `unit_shares` are the shares of the units in the attribute's labels, if they are known.
    """
    lines = measure_lines(text)
    context = Context(attribute, lines, unit_shares=unit_shares or {})
    best: dict[str, Candidate] = {}
    for reading in islice(_find(lines, attribute), MAX_READINGS):
        score = rank(reading.candidate, reading.line, reading.quantity, context)
        candidate = replace(reading.candidate, rank_score=score)
        known = best.get(candidate.answer)
        if known is None or known.rank_score < score:
            best[candidate.answer] = candidate
    return sorted(best.values(), key=lambda candidate: -candidate.rank_score)[:MAX_CANDIDATES]


@dataclass(frozen=True)
class CandidateRules:
    """The rules for the attributes of a schema. `unit_shares`: attribute -> unit -> its share of the labels."""

    schema: Schema
    unit_shares: Mapping[str, Mapping[str, float]]

    def find(self, text: ImageText, entity_name: str) -> list[Candidate] | None:
        """The candidates for an attribute, best first; None where there are no rules for it."""
        attribute = self.schema[entity_name]
        if not has_rules(attribute):
            return None
        return find_candidates(text, attribute, unit_shares=self.unit_shares.get(entity_name))


def _find(lines: list[Line], attribute: Attribute) -> Iterator[Reading]:
    match attribute.kind:
        case QuantityKind():
            # `30 x 20 x 10 cm` are three lengths, but `6 x 500 g` are six pieces of one weight.
            yield from _find_quantities(lines, attribute, attribute.kind, has_pieces=not is_length(attribute.kind))
        case IntegerKind():
            for line in lines:
                for match in re.finditer(r"(?<![\w.,/-])[0-9]+(?![\w.,/%°])", normalize_text(line.text)):
                    yield from _reading(match[0], attribute, line, Evidence.NUMBER)
        case ChoiceKind(values=values) if attribute.kind.name != "yes_no":
            for line, found in find_values(lines, values).items():
                for value in found:
                    yield from _reading(value, attribute, line, Evidence.VALUE)
        case MultiChoiceKind() as kind:
            yield from _find_several(find_values(lines, kind.values), attribute, kind)
        case PatternKind(pattern=pattern):
            for line in lines:
                for word in (line.text, *line.text.split()):
                    if pattern.matches(word.strip(",.;:()[]")):
                        yield from _reading(word.strip(",.;:()[]"), attribute, line, Evidence.VALUE)


def _find_several(
    values: Mapping[Line, Sequence[str]], attribute: Attribute, kind: MultiChoiceKind
) -> Iterator[Reading]:
    """Each value, and those that a line, neighbouring lines and the complete image show together."""
    for line, found in values.items():
        for answer in dict.fromkeys((*found, kind.join(found))):
            yield from _reading(answer, attribute, line, Evidence.VALUE)
    groups = [(group, Evidence.JOINED) for group in group_neighbours(list(values))]
    for group, evidence in (*groups, (list(values), Evidence.ALL)):
        answer = kind.join({value for line in group for value in values[line]})
        if len(group) < 2:
            continue
        box, score = reduce(union, (line.box for line in group)), min(line.score for line in group)
        for line in group:
            for reading in _reading(answer, attribute, line, evidence):
                yield replace(reading, candidate=replace(reading.candidate, box=box, score=score))


def _reading(
    answer: str, attribute: Attribute, line: Line, evidence: Evidence, quantity: TextQuantity | None = None
) -> Iterator[Reading]:
    """The reading, if it is an answer."""
    if attribute.is_valid(answer) and not attribute.excess(answer):
        yield Reading(Candidate(answer, evidence, line.box, line.score, 0.0), line, quantity)


def _find_quantities(
    lines: list[Line], attribute: Attribute, kind: QuantityKind, *, has_pieces: bool
) -> Iterator[Reading]:
    bare: defaultdict[Line, list[TextQuantity]] = defaultdict(list)
    units_seen: dict[str, None] = {}
    unit_finder = UnitFinder(kind)
    texts = {line: normalize_text(line.text) for line in lines}
    for line, text in texts.items():
        for one in find_quantities(text, unit_finder):
            if one.unit is None:
                if not one.has_other_unit:
                    bare[line].append(one)
                continue
            units_seen[one.unit] = None
            if has_pieces and one.count > 1 and not one.has_own_unit:
                continue
            evidence = Evidence.AXIS if one.count > 1 or one.axis else Evidence.VALUE
            yield from _quantity_reading(one, one.unit, attribute, kind, line, evidence)
    unit_lines = {line: unit for line, text in texts.items() if (unit := unit_finder.find_complete(text))}
    units_seen |= dict.fromkeys(unit_lines.values())
    for line, found in bare.items():
        below = {unit: other for other, unit in reversed(unit_lines.items()) if is_below(line, other)}
        right = {unit: other for other, unit in reversed(unit_lines.items()) if is_next_to(line, other)}
        for one in found:
            joined = below | right if one.end == len(texts[line]) else below
            for unit, other in joined.items():
                both = replace(line, box=union(line.box, other.box), score=min(line.score, other.score))
                yield from _quantity_reading(one, unit, attribute, kind, both, Evidence.JOINED)
            for unit in () if joined else units_seen:
                yield from _quantity_reading(one, unit, attribute, kind, line, Evidence.NUMBER)


def _quantity_reading(
    one: TextQuantity, unit: str, attribute: Attribute, kind: QuantityKind, line: Line, evidence: Evidence
) -> Iterator[Reading]:
    is_rounded = kind.decimals == 0 and one.number != one.number.to_integral_value()
    if one.number and not is_rounded:
        yield from _reading(f"{kind.format_number(one.number)} {unit}", attribute, line, evidence, one)
