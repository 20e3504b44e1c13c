"""Values of a schema's attributes, as packs print them and as tables write them.

A quantity is printed with any spelling of its unit, mostly the shortest; a choice by its value or a synonym, in any
case; several choices in any order. A tenth of all numbers, model numbers and texts is on test images only
(`printed_numbers`), if the attribute has enough of them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from product_vqa.errors import InputError
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import ChoiceKind, IntegerKind, MultiChoiceKind, PatternKind, QuantityKind, TextKind
from product_vqa.task.numbers import format_number
from quickstart.rendering.drawing import is_drawable
from quickstart.rendering.label_text import draw_gap, draw_word
from quickstart.rendering.printed_numbers import draw_number, is_held_out, may_show, numbers_in

_ZERO_SHARE = 0.03  # of the numbers, as in nutrition tables
_NEGATIVE_SHARE = 0.2  # of those that may have a sign
_SHORTEST_SHARE = 0.6  # of the units
_PRINTED_SHARE = 0.4  # of the labels that are as on the pack; the others are canonical
_TRIES = 300  # until an image may show the value


@dataclass(frozen=True)
class PrintedValue:
    """One value in three forms."""

    text: str  # on the pack: `16GB`
    label: str  # in a table: `16 GB`, or the canonical form
    entity_value: str  # the canonical form: `16 gigabyte`


class ValuePrinter:
    """Prints values of one attribute. `fits` decides whether a label has space for a text.

    Raises InputError, with the attribute's name, if a unit or a value cannot be printed.
    """

    def __init__(self, attribute: Attribute, *, schema: Schema, fits: Callable[[str], bool]) -> None:
        self.attribute = attribute
        self.fits = fits
        kind = attribute.kind
        self.texts: dict[str, tuple[str, ...]] = {}  # of each unit or value, the shortest first
        if isinstance(kind, QuantityKind):
            units = schema.dimensions[kind.dimension]
            longest = "-9999 " if kind.signed else "99.99 "
            self.texts = {unit: self._printable(unit, units[unit].spellings, before=longest) for unit in kind.units}
        elif isinstance(kind, ChoiceKind | MultiChoiceKind):
            self.texts = {value: self._printable(value, synonyms) for value, synonyms in kind.values.items()}
        elif isinstance(kind, PatternKind):
            missing = sorted(char for char in kind.pattern.characters if not is_drawable(char))
            if missing:
                raise self._fail(f"the fonts of rendered labels do not have {''.join(missing)!r}; use printable ASCII")

    def draw(self, rng: random.Random, *, is_dual: bool = False, held_out: bool = False) -> PrintedValue:
        """A random value. With `is_dual`, a quantity may have a second unit in brackets, which is not the answer.

        With `held_out` it is one that only test images show; without it, one that they do not show.
        """
        fallback = None
        for _ in range(_TRIES):
            text, label = self._draw_texts(rng, held_out=held_out)
            if not self.fits(text):
                continue
            canonical = self.attribute.normalize(label)
            if is_dual and (second := self._draw_second(rng, canonical, held_out=held_out)):
                text = f"{text} ({second})" if self.fits(f"{text} ({second})") else text
            value = PrintedValue(text, label if rng.random() < _PRINTED_SHARE else canonical, canonical)
            if self._may_show(text, held_out=held_out):
                return value
            fallback = fallback or value
        if fallback is None:
            raise self._fail(f"none of {_TRIES} random values fits on a rendered label; make its answers shorter")
        return fallback

    def _printable(self, value: str, others: Sequence[str], *, before: str = "") -> tuple[str, ...]:
        drawable = sorted(filter(is_drawable, (value, *others)), key=len)
        if not drawable:
            raise self._fail(f"the fonts of rendered labels lack characters of {value!r}; add a spelling in ASCII")
        fitting = tuple(text for text in drawable if self.fits(f"{before}{text}"))
        if not fitting:
            raise self._fail(f"{value!r} is too long for a rendered label; add a shorter spelling or shorten the name")
        return fitting

    def _fail(self, message: str) -> InputError:
        return InputError(f"attribute {self.attribute.name}: {message}")

    def _may_show(self, text: str, *, held_out: bool) -> bool:
        if not isinstance(self.attribute.kind, PatternKind | TextKind):
            return True  # numbers are drawn so, and choices are too few
        if held_out:
            return is_held_out(text)
        return not any(map(is_held_out, (text, *numbers_in(text))))

    def _draw_texts(self, rng: random.Random, *, held_out: bool) -> tuple[str, str]:
        """The text on the pack, and a label that means it."""
        kind = self.attribute.kind
        match kind:
            case QuantityKind():
                number = _draw_number(
                    rng, kind.integer_digits, decimals=kind.decimals, signed=kind.signed, held_out=held_out
                )
                spellings = self.texts[rng.choice(kind.units)]
                spelling = spellings[0] if rng.random() < _SHORTEST_SHARE else rng.choice(spellings)
                return f"{number}{draw_gap(rng, spelling)}{spelling}", f"{number} {spelling}"
            case IntegerKind():
                number = _draw_number(rng, kind.digits, decimals=0, signed=kind.signed, held_out=held_out)
                return number, number
            case ChoiceKind():
                text = rng.choice(self.texts[rng.choice(list(self.texts))])
                return _draw_case(rng, text), text
            case MultiChoiceKind():
                values = rng.sample(list(self.texts), rng.choice((1, 1, 2, 2, min(3, len(self.texts)))))
                texts = [rng.choice(self.texts[value]) for value in values]
                return rng.choice((", ", ", ", "/")).join(texts), ", ".join(texts)
            case PatternKind():
                text = kind.pattern.draw(rng)
                return text, text
            case TextKind():
                words = (draw_word(rng) for _ in range(rng.choice((1, 1, 2))))
                text = " ".join(words)[: kind.max_length].strip()
                return text, text

    def _draw_second(self, rng: random.Random, canonical: str, *, held_out: bool) -> str | None:
        """The same quantity in another of the units, or None if packs print no such number."""
        kind = self.attribute.kind
        if not isinstance(kind, QuantityKind) or len(kind.units) == 1:
            return None
        number, unit = kind.split(canonical)
        other = rng.choice([one for one in kind.units if one != unit])
        step = Decimal("0.1") if kind.decimals else Decimal(1)
        amount = (Decimal(number) * kind.sizes[unit] / kind.sizes[other]).quantize(step)
        second = format_number(amount).removesuffix(".0")
        if not 1 <= abs(amount) < 10_000 or not may_show(second.lstrip("-"), held_out=held_out):
            return None
        return f"{second} {self.texts[other][0]}"


def _draw_number(rng: random.Random, digits: int, *, decimals: int, signed: bool, held_out: bool) -> str:
    if rng.random() < _ZERO_SHARE:
        return "0"
    sizes = ["9", "99", "99", "999", "999", "9999"] if digits > 3 else ["9", "99", "999"][:digits]
    sizes += ["9.9"] * 2 if decimals and digits > 1 else []
    sizes += ["9.99"] if decimals > 1 else []
    number = draw_number(rng, sizes, held_out=held_out)
    return f"-{number}" if signed and rng.random() < _NEGATIVE_SHARE else number


def _draw_case(rng: random.Random, text: str) -> str:
    """In any case: as in the schema, or capitalized, or in capitals."""
    return rng.choice((text, text, text[0].upper() + text[1:], text.upper()))
