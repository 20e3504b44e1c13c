"""The labels of train.csv: which form one has, what its canonical form is, and why it cannot be used."""

import re
from enum import StrEnum
from functools import cache

from product_vqa.task.quantity import (
    NUMBER_PATTERN,
    RANGE_BRACKETS,
    RANGE_POLICIES,
    RANGE_TO,
    UNIT_PATTERN,
    format_quantity,
    parse_quantity,
    parse_range,
)
from product_vqa.task.schema import canonical_unit, is_suitable


class LabelForm(StrEnum):
    """The forms of `entity_value` in the challenge's train.csv."""

    PLAIN = "plain"  # 500.0 gram
    RANGE_BRACKETS = "range_brackets"  # [100.0, 240.0] volt
    RANGE_TO = "range_to"  # 10 kilogram to 15 kilogram
    EXPONENT = "exponent"  # 2.2223333344444455e+20 gram
    UNIT_UNKNOWN = "unit_unknown"  # 5 horsepower
    BROKEN = "broken"  # 5.016481104150004 e+17 pound; more than MAX_LABEL_LENGTH characters


MAX_LABEL_LENGTH = 100  # the longest of the challenge has 32; a longer one would be published, and never be predicted
UNIT_UNSUITABLE = "unit_unsuitable"  # an allowed unit, but of another entity: a weight in litres
_RANGES = (LabelForm.RANGE_BRACKETS, LabelForm.RANGE_TO)
_PLAIN = re.compile(rf"{NUMBER_PATTERN}\s+({UNIT_PATTERN})")
_EXPONENT = re.compile(rf"{NUMBER_PATTERN}[eE][+-]?[0-9]+\s*{UNIT_PATTERN}")


def label_form(text: str) -> LabelForm:
    """Which of the six forms a label has. A range is a range whatever its units are; see `parse_range`."""
    text = text.strip()
    if len(text) > MAX_LABEL_LENGTH:
        return LabelForm.BROKEN
    if match := _PLAIN.fullmatch(text):
        return LabelForm.PLAIN if canonical_unit(match[1]) else LabelForm.UNIT_UNKNOWN
    if RANGE_BRACKETS.fullmatch(text):
        return LabelForm.RANGE_BRACKETS
    if RANGE_TO.fullmatch(text):
        return LabelForm.RANGE_TO
    if _EXPONENT.fullmatch(text):
        return LabelForm.EXPONENT
    return LabelForm.BROKEN


@cache  # the 263,859 rows of the challenge's train.csv hold 21,679 different pairs
def judge_label(entity_name: str, entity_value: str, *, ranges: str = "leave_out") -> tuple[str, str]:
    """Normalize a label: (`500.0 gram`, "") if it can be used, or else ("", reason).

    The reason is `unit_unsuitable`, or the `LabelForm` of a label that is not plain. With `ranges` "first" or "last",
    a range is read as that end of it.
    """
    assert ranges in RANGE_POLICIES
    form = label_form(entity_value)
    if form is LabelForm.PLAIN:
        quantity = parse_quantity(entity_value)
    elif form in _RANGES and ranges != "leave_out":
        try:
            quantity = parse_range(entity_value)[0 if ranges == "first" else 1]
        except ValueError:
            return "", LabelForm.UNIT_UNKNOWN.value
    else:
        return "", form.value
    if not is_suitable(quantity.unit, entity_name):
        return "", UNIT_UNSUITABLE
    return format_quantity(quantity), ""
