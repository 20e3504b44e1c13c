"""The labels of train.csv: which form one has, what its canonical form is, and why it cannot be used."""

from collections.abc import Callable
from enum import StrEnum
from functools import cache

from dataset_builder.unit_spellings import respell
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import LabelError, QuantityKind
from product_vqa.task.quantity import RANGE_POLICIES
from product_vqa.task.schema import CHALLENGE


class LabelForm(StrEnum):
    """The forms of `entity_value` in the challenge's train.csv."""

    PLAIN = "plain"  # 500.0 gram
    RANGE_BRACKETS = "range_brackets"  # [100.0, 240.0] volt
    RANGE_TO = "range_to"  # 10 kilogram to 15 kilogram
    EXPONENT = "exponent"  # 2.2223333344444455e+20 gram
    UNIT_UNKNOWN = "unit_unknown"  # 5 horsepower
    BROKEN = "broken"  # 5.016481104150004 e+17 pound; more than 100 characters


UNIT_UNSUITABLE = "unit_unsuitable"  # an allowed unit, but of another entity: a weight in litres


def label_form(text: str) -> LabelForm:
    """Which of the six forms a label has. A range is a range whatever its units are."""
    kind = next(iter(CHALLENGE.attributes.values())).kind  # all have the same forms
    assert isinstance(kind, QuantityKind)
    return LabelForm(kind.form(text.strip()))


@cache  # the 263,859 rows of the challenge's train.csv hold 21,679 different pairs
def judge_label(entity_name: str, entity_value: str, *, ranges: str = "leave_out") -> tuple[str, str]:
    """Normalize a label of the challenge: (`500.0 gram`, "") if it can be used, or else ("", reason).

    The reason is `unit_unsuitable`, or the `LabelForm` of a label that is not plain. With `ranges` "first" or "last",
    a range is read as that end of it.
    """
    return _judge(CHALLENGE, entity_name, entity_value, ranges=ranges)


def label_judge(
    schema: Schema, *, ranges: str = "leave_out", unit_spellings: bool = False
) -> Callable[[str, str], tuple[str, str]]:
    """What `judge_label` does, for the labels of any schema. It judges each pair of attribute and label once.

    The reason is that of the LabelError. The label of an attribute that an image need not show may be "". With
    `unit_spellings`, units and numbers are read as catalogues write them.
    """

    @cache
    def judge(entity_name: str, entity_value: str) -> tuple[str, str]:
        return _judge(schema, entity_name, entity_value, ranges=ranges, unit_spellings=unit_spellings)

    return judge


def _judge(
    schema: Schema, entity_name: str, entity_value: str, *, ranges: str, unit_spellings: bool = False
) -> tuple[str, str]:
    try:
        return read_label(schema[entity_name], entity_value, ranges=ranges, unit_spellings=unit_spellings), ""
    except LabelError as error:
        return "", error.reason


def read_label(attribute: Attribute, label: str, *, ranges: str, unit_spellings: bool) -> str:
    """The canonical form of a label. Raises LabelError, with a reason, if it has none."""
    assert ranges in RANGE_POLICIES
    text = respell(label, attribute.kind) if unit_spellings else label
    return attribute.normalize(text, ranges=ranges)
