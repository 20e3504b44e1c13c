"""Which labels teach: the canonical form of one, or why it is left out."""

from functools import cache

from product_vqa.task.quantity import LabelForm, format_quantity, label_form, parse_quantity, parse_range
from product_vqa.task.schema import is_suitable

UNIT_UNSUITABLE = "unit_unsuitable"  # an allowed unit, but none of its entity's: a weight in litres
RANGE_POLICIES = ("leave_out", "first", "last")  # what becomes of a range: its row goes, or one end is its answer
_RANGES = (LabelForm.RANGE_BRACKETS, LabelForm.RANGE_TO)


@cache  # the 263,859 rows of the challenge's train.csv hold 21,679 different pairs
def judge_label(entity_name: str, entity_value: str, *, ranges: str = "leave_out") -> tuple[str, str]:
    """(`500.0 gram`, "") for a label to keep, or ("", reason): `unit_unsuitable`, or the `LabelForm` if not plain.

    With `ranges` first or last, a range is read as the end that stands there.
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
