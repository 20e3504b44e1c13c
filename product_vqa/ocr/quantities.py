"""Finds numbers with units in a line of text, as packs print them and as OCR engines read them.

`16.9 FL OZ (500 mL)`, `1 1/2 lb`, `1,5 kg`, `100-240V`, `L30 x W20 x H10 cm`. Only the units of an attribute count.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import Any

from product_vqa.task.kinds import QuantityKind
from product_vqa.task.known_units import find_units, loose_unit

_INTEGER_PART = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+"
_NUMBER = rf"(?:(?:[0-9]+[ -])?[0-9]+/[0-9]+|(?:{_INTEGER_PART})(?:[.,][0-9]+)?|[.,][0-9]+)"
_AXIS = r"[LWHDlwhd]"
# A number, with the letter of an axis before it and what may be its unit after it.
_ITEM = re.compile(
    rf"(?<![0-9.,/])(?:(?P<before>[^\W\d_]+)[ .:=]{{0,2}})?(?P<number>{_NUMBER})(?![0-9])"
    r"(?=(?P<gap>[ -]{0,2})(?P<words>[^\W\d_]+(?:[. ]{1,2}[^\W\d_]+){0,2}\.?|[\"'″′”’]{1,2}|[℃%])?)",
)
_AXIS_AFTER = re.compile(rf"[ -]?\(?({_AXIS})(?:\)|\b)")
_RANGE = re.compile(r"\s*(?:-|–|—|~|\bto\b)\s*", re.IGNORECASE)
_TIMES = re.compile(r"\s*[x×*]\s*", re.IGNORECASE)
# What engines read for the letters of `oz` and `lb` behind a number. Without a space, `550Z` may be 5.5 oz.
_MISREAD_O = re.compile(r"([0-9] |[.,][0-9]+|[0-9] ?FL\.? ?)0(?=Z(?![^\W_]))", re.IGNORECASE)
_MISREAD_L = re.compile(r"([0-9] ?[I|]|[0-9] 1)(?=bs?(?![^\W_]))", re.IGNORECASE)
_VULGAR = re.compile(r"(?<=[0-9])(?=[¼½¾⅐-⅞])")
_GLUED = re.compile(r"(?:NET|WT|EACH|PER|APPROX|MAX|AC|DC|e)+$", re.IGNORECASE)  # behind a unit without a space
_TWO_MEANINGS = {"oz": "fluid ounce", "ounce": "fluid ounce"}  # of an attribute with volumes
_QUOTES = {"''": '"', "″": '"', "”": '"', "’’": '"', "′′": '"', "′": "'", "’": "'"}
MAX_QUANTITIES = 60  # of a text
MAX_UNIT_WORDS = 5  # of a spelling
MAX_NORMALIZED_CHARS = 200  # of a text: one character may stand for 18


@dataclass(frozen=True)
class TextQuantity:
    """A number in a text, with its unit if one follows; `start` and `end` are its place in the normalized text."""

    number: Decimal
    unit: str | None  # one of the attribute's
    start: int
    end: int
    axis: str = ""  # l, w, h or d, where a letter says so
    in_range: bool = False
    position: int | None = None  # among numbers that `x` joins
    count: int = 1  # of such numbers
    has_own_unit: bool = True  # False if the unit is behind another number of the range or product
    has_other_unit: bool = False  # one that the attribute does not have: `50 Hz` for a voltage


def normalize_text(text: str) -> str:
    """The characters that the patterns expect: `１½″` -> `1 1/2"`, `2 0Z` -> `2 oZ`, `5 Ibs` -> `5 lbs`."""
    text = unicodedata.normalize("NFKC", _VULGAR.sub(" ", text)).replace("\u2044", "/")
    text = text.replace("，", ",").replace("：", ":")[:MAX_NORMALIZED_CHARS]
    return _MISREAD_L.sub(lambda match: match[1][:-1] + "l", _MISREAD_O.sub(r"\1o", text))


class UnitFinder:
    """Finds the units of a kind in words, each words once."""

    def __init__(self, kind: QuantityKind) -> None:
        self._kind = kind
        self._by_loose_spelling: defaultdict[str, set[str]] = defaultdict(set)
        for spelling, unit in kind.unit_by_spelling.items():
            self._by_loose_spelling[loose_unit(spelling)].add(unit)
        self._found: dict[str, tuple[str | None, int]] = {}

    def find_complete(self, text: str) -> str | None:
        """The unit that a text consists of, if it is one."""
        words = text.strip(" .()[]")
        unit, length = self.find(words)
        return unit if length == len(words) else None

    def find(self, words: str) -> tuple[str | None, int]:
        """The unit at the beginning of some words, the longest that is one, and how many characters it has."""
        if words not in self._found:
            self._found[words] = self._find(words)
        return self._found[words]

    def _find(self, words: str) -> tuple[str | None, int]:
        ends = [match.end() for match in re.finditer(r"[^\s.]+\.?", words)]
        for end in reversed(ends[:MAX_UNIT_WORDS]):
            text = words[:end]
            glued = _GLUED.sub("", text) if text.isalpha() else ""
            for spelling in (text, text.rstrip("."), text.replace(".", ""), glued):
                unit = self._find_spelling(spelling) if spelling else None
                if unit is not None:
                    return unit, end
        return None, 0

    def _find_spelling(self, spelling: str) -> str | None:
        own = self._kind.unit_by_spelling.get(spelling) or self._find_own(spelling)
        return own if own in self._kind.units else _find_unit_of(spelling, self._kind.units)

    def _find_own(self, spelling: str) -> str | None:
        """The unit of a schema's spelling but for case and a plural, if only one has it."""
        units = self._by_loose_spelling.get(loose_unit(spelling), set())
        return next(iter(units)) if len(units) == 1 else None


def find_quantities(text: str, units: UnitFinder) -> list[TextQuantity]:
    """The numbers of a normalized text, in order; those without a unit have the `unit` None."""
    found: list[TextQuantity] = []
    if not re.search("[0-9]", text):
        return found
    for match in _ITEM.finditer(text):
        number = read_number(match["number"])
        if number is None or len(found) == MAX_QUANTITIES:
            continue
        before = match["before"] or ""
        is_axis = re.fullmatch(_AXIS, before) is not None
        unit, length = units.find(match["words"] or "")
        is_glued = len(before) in (1, 2) and match.start("number") == match.end("before")
        if is_glued and not is_axis and (unit is None or match["gap"]):
            continue  # the 12 of `B12 mg`, but not that of `DC12V`
        end = match.start("words") + length if unit else match.end("number")
        axis = before.lower() if is_axis else ""
        if not axis and (after := _AXIS_AFTER.match(text, end)):
            axis, end = after[1].lower(), after.end()
        start = match.start("before") if is_axis else match.start("number")
        has_other_unit = unit is None and _is_other_unit(match["words"] or "")
        found.append(TextQuantity(number, unit, start, end, axis=axis, has_other_unit=has_other_unit))
    return _join(text, found)


def read_number(text: str) -> Decimal | None:
    """`1 1/2` -> 1.5, `1,5` -> 1.5, `1,500` -> 1500; None for a fraction that is not exact in four decimals."""
    if "/" in text:
        whole, _, fraction = text.replace("-", " ").rpartition(" ")
        numerator, _, denominator = fraction.partition("/")
        # Decimal could not round a longer one, and packs do not print it.
        if not int(denominator) or len(denominator) > 3 or max(len(whole), len(numerator)) > 6:
            return None
        value = Fraction(int(numerator), int(denominator)) + int(whole or 0)
        exact = Decimal(value.numerator) / Decimal(value.denominator)
        return exact if exact == round(exact, 4) else None
    if re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?", text) and not text.startswith("0"):
        text = text.replace(",", "")
    text = text.replace(",", ".")
    try:
        return Decimal(f"0{text}" if text.startswith(".") else text)
    except InvalidOperation:
        return None


@lru_cache(maxsize=10_000)
def _find_unit_of(text: str, units: tuple[str, ...]) -> str | None:
    text = _QUOTES.get(text, text)
    loose = loose_unit(text)
    if loose in _TWO_MEANINGS and _TWO_MEANINGS[loose] in units:
        return _TWO_MEANINGS[loose]
    meanings = [unit for unit in find_units(text) if unit in units]
    if not meanings:  # printed in capitals, `MM`, where the exact spelling is another dimension's unit, `MV`
        meanings = [unit for unit in find_units(text.lower()) if unit in units]
    return meanings[0] if len(meanings) == 1 else None


@lru_cache(maxsize=10_000)
def _is_other_unit(words: str) -> bool:
    """Whether a known unit of any kind of attribute is at the beginning."""
    ends = [match.end() for match in re.finditer(r"[^\s.]+", words)]
    return any(find_units(words[:end]) or find_units(words[:end].lower()) for end in ends)


def _join(text: str, found: list[TextQuantity]) -> list[TextQuantity]:
    """Numbers that a range or a product joins have the last one's unit."""
    joined: list[TextQuantity] = []
    for group, is_product in _groups(text, found):
        unit = next((one.unit for one in reversed(group) if one.unit), None)
        for position, one in enumerate(group):
            changes: dict[str, Any] = {
                "unit": one.unit or unit,
                "has_own_unit": one.unit is not None or len(group) == 1,
            }
            if len(group) > 1 and is_product:
                changes |= {"position": position, "count": len(group)}
            joined.append(replace(one, in_range=len(group) > 1 and not is_product, **changes))
    return joined


def _groups(text: str, found: list[TextQuantity]) -> Iterator[tuple[list[TextQuantity], bool]]:
    group: list[TextQuantity] = []
    is_product = False
    for one in found:
        between = text[group[-1].end : one.start] if group else ""
        is_times, is_range = _TIMES.fullmatch(between), _RANGE.fullmatch(between)
        if group and (is_times or (is_range and len(group) == 1 and not group[0].axis)):
            is_product = is_times is not None
            group.append(one)
            continue
        if group:
            yield group, is_product
        group, is_product = [one], False
    if group:
        yield group, is_product
