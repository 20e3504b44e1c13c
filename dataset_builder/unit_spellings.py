"""Reads labels as catalogues write them: `341 g`, `12 fl oz`, `5lbs`, `1,5 kg`, `100-240V`.

A label becomes what the challenge's schema reads, `341 gram`, and is judged like any other. What can be read without
this means the same with it. A spelling or a number with two meanings is refused, and the reason names both.
"""

import hashlib
import re
from functools import cache

from product_vqa.errors import InputError
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import MAX_LABEL_LENGTH, Kind, LabelError, QuantityKind
from product_vqa.task.known_units import KNOWN_UNITS, find_units, loose_unit
from product_vqa.task.schema import is_challenge

UNIT_AMBIGUOUS = "unit_ambiguous"  # 5 mv: millivolt or megavolt
NUMBER_AMBIGUOUS = "number_ambiguous"  # 1,500 g: 1500 or 1.5
# What known_units.yaml cannot say: that a spelling has two meanings, here without case and plural.
_TWO_MEANINGS = {"gr": ("gram", "grain")}
_TWO_MEANINGS_IN = {"volume": {"oz": ("fluid ounce", "ounce"), "ounce": ("fluid ounce", "ounce")}}  # in a dimension

_NUMBER = r"(?:[0-9]+(?:[.,][0-9]+)*|[.,][0-9]+)"
_UNIT = r"[^\d\s.,+-].*"
_PLAIN = re.compile(rf"({_NUMBER})\s*({_UNIT})")
_RANGE = re.compile(rf"({_NUMBER})\s*([^\d\s.,+-][^\d]*?)?\s*([-–—]|\bto\b)\s*({_NUMBER})\s*({_UNIT})")
_BRACKETS = re.compile(rf"\[\s*([0-9.]+)\s*,\s*([0-9.]+)\s*\]\s*({_UNIT})")


def check_unit_spellings(schema: Schema, *, unit_spellings: bool) -> None:
    """Raise InputError for a schema that says itself how its units are spelled."""
    if unit_spellings and not is_challenge(schema):
        raise InputError(
            "`unit_spellings` is for the challenge's attributes: a schema.yaml has the `spellings` of its units; add "
            "those of your labels there (`dataset_builder.inspect` proposes them), and drop `unit_spellings`"
        )


@cache
def spellings_sha256() -> str:
    """Of the table of units: with another table, labels may be read differently."""
    return hashlib.sha256(KNOWN_UNITS.read_bytes()).hexdigest()


def respell(label: str, kind: Kind) -> str:
    """The label with the schema's name of its unit; unchanged if no unit is found in it.

    Raises LabelError for a unit or a number with two meanings.
    """
    text = " ".join(label.split())
    if not isinstance(kind, QuantityKind) or len(text) > MAX_LABEL_LENGTH:
        return label
    if found := _PLAIN.fullmatch(text):
        unit = _find_unit(found[2], kind)
        if unit is not None:
            number = _read_number(found[1])
            return label if number is None else f"{number} {unit}"
    if found := _BRACKETS.fullmatch(text):
        unit = _find_unit(found[3], kind)
        return label if unit is None else f"[{found[1]}, {found[2]}] {unit}"
    if found := _RANGE.fullmatch(text):
        first, last, dash = found[2] or found[5], found[5], found[3]
        units = [_find_unit(spelling, kind) for spelling in (first, last)]
        numbers = [_read_number(number) for number in (found[1], found[4])]
        is_sum = dash != "to" and units[0] != units[1]  # 5 ft - 6 in
        if None not in (*units, *numbers) and not is_sum:
            return f"{numbers[0]} {units[0]} to {numbers[1]} {units[1]}"
    return label


def _find_unit(text: str, kind: QuantityKind) -> str | None:
    """The unit of a spelling; None if no unit is known by it. It need not be one of the schema."""
    if text in kind.unit_by_spelling:
        return text
    loose = loose_unit(text)
    meanings = _TWO_MEANINGS_IN.get(kind.dimension, {}).get(loose) or _TWO_MEANINGS.get(loose)
    found = meanings or sorted(find_units(text))
    if len(found) == 1:
        return found[0]
    if any(unit in kind.unit_by_spelling for unit in found):
        raise LabelError(UNIT_AMBIGUOUS, f"{text!r} may be {' or '.join(found)}: write its name")
    return None


def _read_number(text: str) -> str | None:
    """The number with a point, `1,5` -> `1.5`, `1,234.5` -> `1234.5`; None if it is none.

    A single comma before three digits separates thousands or decimals, unless nothing but 0 is before it.
    """
    point, comma = text.count("."), text.count(",")
    if not comma and point <= 1:
        return f"0{text}" if text.startswith(".") else text
    last = max(text.rfind("."), text.rfind(","))
    head, separator, tail = text[:last], text[last], text[last + 1 :]
    if point + comma == 1:
        if len(tail) == 3 and 1 <= len(head) <= 3 and not head.startswith("0"):
            meanings = f"{head}{tail} or {head}.{tail}"
            raise LabelError(NUMBER_AMBIGUOUS, f"{text!r} may be {meanings}: write it without a comma")
        return f"{head or '0'}.{tail}"
    decimals = ""
    if point and comma:  # the last one separates the decimals
        if separator in head:
            return None
        text, decimals = head, f".{tail}"
    groups = re.split(r"[.,]", text)
    is_grouped = 1 <= len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])
    return f"{''.join(groups)}{decimals}" if is_grouped else None
