"""The kinds of attributes: how a label becomes the canonical form that is trained and predicted, and what equals it.

Each kind has `normalize` (a label in any form -> its canonical form), `split` (a canonical answer -> value and unit),
`is_same` (whether two canonical answers mean the same) and `describe` (its fields in a schema file).
"""

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from product_vqa.task.numbers import EXACT, NUMBER_PATTERN, UNIT_PATTERN, format_number
from product_vqa.task.patterns import Pattern
from product_vqa.task.texts import has_invisible, looks_like_token

MAX_LABEL_LENGTH = 100  # the longest of the challenge has 32; a longer one would be published, and never be predicted
SEPARATOR = ", "  # between the values of a multi_choice
MAX_TEXT_LENGTH = 200
_SHOWN_CHARS = 100  # of a label in an error
_LISTED = 15  # units or values in an error
_SEPARATORS = re.compile(r" ?(?:[,;/|&+]|,? and ) ?(?:and )?", re.IGNORECASE)  # of a label's values


class LabelError(ValueError):
    """Raised for a label that has no canonical form. `reason` is one word, as in the file of dropped rows."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class QuantityKind:
    """A number and a unit: `500.0 gram`, or `16 gigabyte` without decimals.

    `unit_by_spelling` has the units of the whole schema, so that the unit of another attribute is not taken for an
    unknown one. `sizes` are those of the dimension's units, relative to each other.
    """

    name = "quantity"
    dimension: str
    units: tuple[str, ...]
    sizes: Mapping[str, Decimal]
    unit_by_spelling: Mapping[str, str]
    decimals: int = 4  # of an answer, at most
    integer_digits: int = 6  # of an answer, at most
    signed: bool = False
    space_required: bool = False  # between number and unit of a label

    def normalize(self, label: str, *, ranges: str = "leave_out") -> str:
        """`1.5 kg` -> `1.5 kilogram`. With `ranges` "first" or "last", a range is read as that end of it."""
        text = _compose(label.strip())
        form = self.form(text)
        is_read = form == "plain" or (form in ("range_brackets", "range_to") and ranges != "leave_out")
        if not is_read:
            raise LabelError(form, f"{_shown(text)} is not a number and one of {self._shown_units}")
        value, unit = self.parse(text, ranges=ranges)
        if unit not in self.units:
            raise LabelError("unit_unsuitable", f"{unit} is not one of {self._shown_units}")
        if self.decimals == 0 and value != value.to_integral_value():
            raise LabelError("not_an_integer", f"{_shown(text)} has decimals")
        answer = f"{self.format_number(value)} {unit}"
        if len(answer) > MAX_LABEL_LENGTH:  # because a unit is longer than its spelling
            raise LabelError("broken", f"{_shown(text)} has more than {MAX_LABEL_LENGTH} characters")
        return answer

    def parse(self, text: str, *, ranges: str = "leave_out") -> tuple[Decimal, str]:
        """The number and the unit in a label, which may be a unit of another attribute. Raises LabelError."""
        if found := self._plain.fullmatch(text):
            ends = [(found[1], found[2])]
        elif ranges != "leave_out" and (found := self._brackets.fullmatch(text)):
            ends = [(found[1], found[3]), (found[2], found[3])]
        elif ranges != "leave_out" and (found := self._to.fullmatch(text)):
            ends = [(found[1], found[2]), (found[3], found[4])]
        else:
            raise LabelError("broken", f"{_shown(text)} is not a number and a unit")
        if any(unit not in self.unit_by_spelling for _, unit in ends):
            raise LabelError("unit_unknown", f"{_shown(text)} has a unit that the schema does not have")
        number, unit = ends[-1 if ranges == "last" else 0]
        return Decimal(number), self.unit_by_spelling[unit]

    def form(self, text: str) -> str:
        """The form of a label: plain, range_brackets, range_to, exponent, unit_unknown or broken."""
        if len(text) > MAX_LABEL_LENGTH:
            return "broken"
        if found := self._plain.fullmatch(text):
            return "plain" if found[2] in self.unit_by_spelling else "unit_unknown"
        if self._brackets.fullmatch(text):
            return "range_brackets"
        if self._to.fullmatch(text):
            return "range_to"
        return "exponent" if self._exponent.fullmatch(text) else "broken"

    @property
    def _shown_units(self) -> str:
        return f"the units {_listed(self.units)}"

    @cached_property
    def _number(self) -> str:
        return f"-?{NUMBER_PATTERN}" if self.signed else NUMBER_PATTERN

    @cached_property
    def _unit(self) -> str:
        """A word as units are, known or not, or any spelling of the schema."""
        known = sorted(map(re.escape, self.unit_by_spelling), key=len, reverse=True)
        return f"{UNIT_PATTERN}|{'|'.join(known)}"

    @cached_property
    def _plain(self) -> re.Pattern[str]:
        space = r"\s+" if self.space_required else r"\s*"
        return re.compile(f"({self._number}){space}({self._unit})")

    @cached_property
    def _brackets(self) -> re.Pattern[str]:
        return re.compile(rf"\[\s*({self._number})\s*,\s*({self._number})\s*\]\s*({self._unit})")

    @cached_property
    def _to(self) -> re.Pattern[str]:
        end = rf"({self._number})\s*({self._unit})"
        return re.compile(rf"{end}\s+to\s+{end}")

    @cached_property
    def _exponent(self) -> re.Pattern[str]:
        return re.compile(rf"{self._number}[eE][+-]?[0-9]+\s*(?:{self._unit})")

    def format_number(self, number: Decimal) -> str:
        """`500.0`, or `500` if answers have no decimals. There is no negative zero."""
        number = abs(number) if number == 0 else number
        return f"{number.to_integral_value():f}" if self.decimals == 0 else format_number(number)

    def excess(self, answer: str) -> str:
        number, _ = self.split(answer)
        return _excess(number, "integer_digits", self.integer_digits, decimals=self.decimals)

    def split(self, answer: str) -> tuple[str, str]:
        value, _, unit = answer.partition(" ")
        return value, unit

    def is_same(self, answer: str, other: str) -> bool:
        """Whether two quantities are equal in the same unit: `1.0 kilogram` equals `1000.0 gram`."""
        (number, unit), (other_number, other_unit) = self.split(answer), self.split(other)
        return EXACT.multiply(Decimal(number), self.sizes[unit]) == EXACT.multiply(
            Decimal(other_number), self.sizes[other_unit]
        )

    def describe(self) -> dict[str, Any]:
        described: dict[str, Any] = {"units": list(self.units)}
        for field, default in (("decimals", 4), ("integer_digits", 6), ("signed", False), ("space_required", False)):
            if getattr(self, field) != default:
                described[field] = getattr(self, field)
        return described


@dataclass(frozen=True)
class IntegerKind:
    """A whole number without a unit: `24`."""

    name = "integer"
    digits: int = 6  # of an answer, at most
    signed: bool = False

    def normalize(self, label: str, *, ranges: str = "leave_out") -> str:
        """`24.0` -> `24`."""
        text = label.strip()
        number = f"-?{NUMBER_PATTERN}" if self.signed else NUMBER_PATTERN
        if len(text) > MAX_LABEL_LENGTH or not re.fullmatch(number, text):
            raise LabelError("not_a_number", f"{_shown(text)} is not a number")
        value = Decimal(text)
        if value != value.to_integral_value():
            raise LabelError("not_an_integer", f"{_shown(text)} has decimals")
        return f"{abs(value) if value == 0 else value:f}".partition(".")[0]

    def excess(self, answer: str) -> str:
        return _excess(answer, "digits", self.digits)

    def split(self, answer: str) -> tuple[str, str]:
        return answer, ""

    def is_same(self, answer: str, other: str) -> bool:
        return answer == other

    def describe(self) -> dict[str, Any]:
        return ({"digits": self.digits} if self.digits != 6 else {}) | ({"signed": True} if self.signed else {})


@dataclass(frozen=True)
class ChoiceKind:
    """One of some values: `navy blue`. `yes_no` is a choice of these two."""

    values: Mapping[str, tuple[str, ...]]  # value -> synonyms
    name: str = "choice"  # or yes_no

    def normalize(self, label: str, *, ranges: str = "leave_out") -> str:
        """A value, or a synonym of it, in any case and with any spaces -> the value."""
        value = self._value_by_key.get(key_of(label))
        if value is None:
            raise LabelError(
                "not_a_choice", f"{_shown(label.strip())} is not one of the values {_listed(self.values)}"
            )
        return value

    @cached_property
    def _value_by_key(self) -> dict[str, str]:
        return {key_of(text): value for value, synonyms in self.values.items() for text in (value, *synonyms)}

    def split(self, answer: str) -> tuple[str, str]:
        return answer, ""

    def is_same(self, answer: str, other: str) -> bool:
        return answer == other

    def describe(self) -> dict[str, Any]:
        if self.name == "yes_no":
            return {value: list(synonyms) for value, synonyms in self.values.items() if synonyms}
        return {"values": _describe_values(self.values)}


@dataclass(frozen=True)
class MultiChoiceKind:
    """Some of the values, at least one, in the schema's order: `cotton, wool`."""

    name = "multi_choice"
    values: Mapping[str, tuple[str, ...]]  # value -> synonyms

    def normalize(self, label: str, *, ranges: str = "leave_out") -> str:
        """Values separated by `,`, `;`, `/`, `|`, `&`, `+` or `and`, in any order -> the canonical form."""
        return self.join({self._one.normalize(part) for part in split_values(label)})

    def join(self, found: Collection[str]) -> str:
        """The canonical form of some of the values."""
        return SEPARATOR.join(value for value in self.values if value in found)

    @cached_property
    def _one(self) -> ChoiceKind:
        return ChoiceKind(self.values)

    def split(self, answer: str) -> tuple[str, str]:
        return answer, ""

    def is_same(self, answer: str, other: str) -> bool:
        return answer == other

    def describe(self) -> dict[str, Any]:
        return {"values": _describe_values(self.values)}


@dataclass(frozen=True)
class PatternKind:
    """A text that matches a bounded regular expression: a model number."""

    name = "pattern"
    pattern: Pattern

    def normalize(self, label: str, *, ranges: str = "leave_out") -> str:
        text = label.strip()
        if not self.pattern.matches(text) and not self.pattern.matches(text := _compose(text)):
            raise LabelError("not_the_pattern", f"{_shown(text)} does not match {self.pattern.text}")
        return text

    def split(self, answer: str) -> tuple[str, str]:
        return answer, ""

    def is_same(self, answer: str, other: str) -> bool:
        return answer.casefold() == other.casefold()

    def describe(self) -> dict[str, Any]:
        return {"pattern": self.pattern.text}


@dataclass(frozen=True)
class TextKind:
    """Any text of one line, such as a brand."""

    name = "text"
    max_length: int = 40  # characters

    def normalize(self, label: str, *, ranges: str = "leave_out") -> str:
        """Spaces are collapsed, and characters composed (NFC)."""
        text = _compose(" ".join(label.split()))
        if len(text) > self.max_length:
            raise LabelError("too_long", f"{_shown(text)} has more than {self.max_length} characters")
        if not text or not text.isprintable() or has_invisible(text):
            raise LabelError("broken", f"{_shown(text)} is empty or has characters that cannot be seen")
        if looks_like_token(text):
            raise LabelError("broken", f"{_shown(text)} looks like a token of the model")
        return text

    def split(self, answer: str) -> tuple[str, str]:
        return answer, ""

    def is_same(self, answer: str, other: str) -> bool:
        return key_of(answer) == key_of(other)

    def describe(self) -> dict[str, Any]:
        return {"max_length": self.max_length} if self.max_length != 40 else {}


Kind = QuantityKind | IntegerKind | ChoiceKind | MultiChoiceKind | PatternKind | TextKind


def split_values(label: str) -> list[str]:
    """The values of a multi_choice's label, in time linear in its spaces."""
    return _SEPARATORS.split(" ".join(label.split()))


def key_of(text: str) -> str:
    """What two spellings of a value have in common: case, spaces and the composition of characters do not count."""
    return unicodedata.normalize("NFKC", " ".join(text.split())).casefold()


def _excess(number: str, field: str, most: int, *, decimals: int = 0) -> str:
    """`7 digits, more than integer_digits 6`; "" for a canonical number that has no more digits than it may."""
    integer, _, fraction = number.removeprefix("-").partition(".")
    if len(integer) > most:
        return f"{len(integer)} digits, more than {field} {most}"
    if decimals and len(fraction) > decimals:
        return f"{len(fraction)} decimals, more than decimals {decimals}"
    return ""


def _compose(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...")


def _listed(texts: Collection[str]) -> str:
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return f"{', '.join(list(texts)[:_LISTED])}{more}"


def _describe_values(values: Mapping[str, tuple[str, ...]]) -> Any:
    if any(values.values()):
        return {value: list(synonyms) for value, synonyms in values.items()}
    return list(values)
