"""The labels of train.csv: which form one has, what its canonical form is, and why it cannot be used."""

from collections.abc import Callable
from enum import StrEnum
from functools import cache

from product_vqa.task.attributes import Schema
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


def label_judge(schema: Schema, *, ranges: str = "leave_out") -> Callable[[str, str], tuple[str, str]]:
    """What `judge_label` does, for the labels of any schema. It judges each pair of attribute and label once.

    The reason is that of the LabelError. The label of an attribute that an image need not show may be "".
    """

    @cache
    def judge(entity_name: str, entity_value: str) -> tuple[str, str]:
        return _judge(schema, entity_name, entity_value, ranges=ranges)

    return judge


def _judge(schema: Schema, entity_name: str, entity_value: str, *, ranges: str) -> tuple[str, str]:
    assert ranges in RANGE_POLICIES
    try:
        return schema[entity_name].normalize(entity_value, ranges=ranges), ""
    except LabelError as error:
        return "", error.reason
