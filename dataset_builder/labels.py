"""Which labels teach: the canonical form of one, or why it is left out."""

from functools import cache

from product_vqa.entities import is_suitable
from product_vqa.quantity import LabelForm, format_quantity, label_form, parse_quantity

UNIT_UNSUITABLE = "unit_unsuitable"  # an allowed unit, but none of its entity's: a weight in litres


@cache  # the 263,859 rows of the challenge's train.csv hold 21,679 different pairs
def judge_label(entity_name: str, entity_value: str) -> tuple[str, str]:
    """(`500.0 gram`, "") for a label to keep, or ("", reason): `unit_unsuitable`, or the `LabelForm` if not plain."""
    form = label_form(entity_value)
    if form is not LabelForm.PLAIN:
        return "", form.value
    quantity = parse_quantity(entity_value)
    if not is_suitable(quantity.unit, entity_name):
        return "", UNIT_UNSUITABLE
    return format_quantity(quantity), ""
