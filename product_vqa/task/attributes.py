"""A schema: the attributes of a catalogue, with what may be asked and answered about each."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

from product_vqa.errors import InputError
from product_vqa.quoting import one_line
from product_vqa.task.kinds import (
    ChoiceKind,
    IntegerKind,
    Kind,
    LabelError,
    MultiChoiceKind,
    PatternKind,
    QuantityKind,
)

SCHEMA_VERSION = 1
_SHOWN_NAMES = 20  # in an error
# Fields of kinds that do not change which answers there are; `values` are compared by `_answers`.
_NOT_ANSWERS = ("name", "dimension", "sizes", "unit_by_spelling", "space_required", "units", "values", "pattern")


@dataclass(frozen=True)
class Unit:
    """A unit of a dimension."""

    size: Decimal  # in the dimension's other units: 1000 for kilogram where gram has 1
    spellings: tuple[str, ...] = ()  # next to its name


@dataclass(frozen=True)
class Attribute:
    """One attribute ("entity"), its question, and what an answer is."""

    name: str
    question: str
    kind: Kind
    not_shown: bool = False  # an empty answer is possible: the image does not show it
    missing_is_not_shown: bool = False  # what a missing value in a wide table means; otherwise there is no row

    def normalize(self, label: str, *, ranges: str = "leave_out") -> str:
        """The canonical form of a label. Raises LabelError, with a reason, if it has none."""
        if not label.strip() and self.not_shown:
            return ""
        return self.kind.normalize(label, ranges=ranges)

    def is_valid(self, answer: str) -> bool:
        """Whether an answer is in canonical form."""
        try:
            return self.normalize(answer) == answer
        except LabelError:
            return False

    def excess(self, answer: str) -> str:
        """The limit of the schema that a canonical answer exceeds: `7 decimals, more than decimals 4`; "" for none.

        Labels may exceed limits, but such answers are never predicted.
        """
        if not answer or not isinstance(self.kind, QuantityKind | IntegerKind):
            return ""
        return self.kind.excess(answer)

    def is_same(self, answer: str, other: str) -> bool:
        """Whether two canonical answers mean the same: units are converted, case may not count."""
        if not answer or not other:
            return answer == other
        return self.kind.is_same(answer, other)


@dataclass(frozen=True, eq=False)
class Schema:
    """The attributes by name, in order, and the dimensions of their units.

    Two schemas are equal if they describe the same in the same order.
    """

    attributes: Mapping[str, Attribute]
    dimensions: Mapping[str, Mapping[str, Unit]]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Schema) and self.sha256 == other.sha256)

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __getitem__(self, entity_name: str) -> Attribute:
        """Raises InputError, with the known names, for an unknown one."""
        attribute = self.attributes.get(entity_name) if isinstance(entity_name, str) else None
        if attribute is None:
            shown = one_line(repr(entity_name), max_length=100)
            known = ", ".join(self.names[:_SHOWN_NAMES]) + (", ..." if len(self.names) > _SHOWN_NAMES else "")
            raise InputError(f"unknown entity_name {shown}; expected one of {known}")
        return attribute

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.attributes)

    @cached_property
    def unit_by_spelling(self) -> dict[str, str]:
        return spellings(self.dimensions)

    @cached_property
    def units(self) -> tuple[str, ...]:
        """The units of all attributes, in alphabetical order."""
        kinds = [attribute.kind for attribute in self.attributes.values()]
        return tuple(sorted({unit for kind in kinds if isinstance(kind, QuantityKind) for unit in kind.units}))

    @property
    def not_shown(self) -> tuple[str, ...]:
        """The attributes about which an answer may be that the image does not show them."""
        return tuple(name for name, attribute in self.attributes.items() if attribute.not_shown)

    def with_not_shown(self, names: Collection[str]) -> "Schema":
        """The schema in which these attributes, and no others, are `not_shown`."""
        attributes = {
            name: replace(
                attribute, not_shown=name in names,
                missing_is_not_shown=attribute.missing_is_not_shown and name in names,
            )
            for name, attribute in self.attributes.items()
        }  # fmt: skip
        return Schema(attributes, self.dimensions)

    def describe(self) -> dict[str, Any]:
        """The schema as it is in a file; `schema_file.parse_schema` reads it."""
        described: dict[str, Any] = {"version": SCHEMA_VERSION}
        if self.dimensions:
            described["units"] = {
                dimension: {name: _describe_unit(unit) for name, unit in units.items()}
                for dimension, units in self.dimensions.items()
            }
        described["attributes"] = {name: self._describe(attribute) for name, attribute in self.attributes.items()}
        return described

    def _describe(self, attribute: Attribute) -> dict[str, Any]:
        kind = attribute.kind
        described: dict[str, Any] = {"kind": kind.name}
        if attribute.question != default_question(attribute.name):
            described["question"] = attribute.question
        described |= kind.describe()
        if isinstance(kind, QuantityKind) and kind.units == tuple(self.dimensions[kind.dimension]):
            described["units"] = kind.dimension
        if attribute.not_shown:
            described["not_shown"] = True
        if attribute.missing_is_not_shown:
            described["missing_is_not_shown"] = True
        return described

    @cached_property
    def sha256(self) -> str:
        """Of its content. The order counts too: that of values decides how an answer lists them."""
        content = json.dumps(self.describe(), ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()

    def differences(self, other: "Schema", *, names: Iterable[str] | None = None) -> list[str]:
        """How the questions or possible answers of two schemas differ, for these attributes or all of this one.

        One line each. Synonyms, spellings and sizes of units do not count: answers have the canonical forms.
        """
        found = []
        for name in self.names if names is None else names:
            mine, others = self.attributes.get(name), other.attributes.get(name)
            if mine is None or others is None:
                found.append(f"{name} is only in one of them")
                continue
            answers, other_answers = _answers(mine), _answers(others)
            is_same_kind = answers["kind"] == other_answers["kind"]
            for field in answers if is_same_kind else ("kind", "question", "not_shown"):
                value, other_value = answers[field], other_answers[field]
                if value != other_value:
                    found.append(f"{field} of {name}: {_describe_difference(value, other_value)}")
        return found


def default_question(name: str) -> str:
    """`item_weight` -> `What is the item weight?`."""
    return f"What is the {name.replace('_', ' ')}?"


def spellings(dimensions: Mapping[str, Mapping[str, Unit]]) -> dict[str, str]:
    """Spelling -> unit, of all dimensions."""
    return {
        text: name for units in dimensions.values() for name, unit in units.items() for text in (name, *unit.spellings)
    }


def _describe_unit(unit: Unit) -> dict[str, Any]:
    return {"size": format_size(unit.size)} | ({"spellings": list(unit.spellings)} if unit.spellings else {})


def format_size(size: Decimal) -> str:
    """`1000`, `0.001`: without exponent and without zeros to spare, so that equal sizes are equal texts."""
    text = f"{size:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _answers(attribute: Attribute) -> dict[str, Any]:
    """What decides about the questions and answers of an attribute, as texts and numbers."""
    kind = attribute.kind
    found: dict[str, Any] = {"kind": kind.name, "question": attribute.question, "not_shown": attribute.not_shown}
    found |= {field.name: getattr(kind, field.name) for field in fields(kind) if field.name not in _NOT_ANSWERS}
    if isinstance(kind, QuantityKind):
        found["units"] = tuple(sorted(kind.units))
    elif isinstance(kind, MultiChoiceKind):
        found["values"] = tuple(kind.values)  # their order is that of an answer
    elif isinstance(kind, ChoiceKind):
        found["values"] = tuple(sorted(kind.values))
    elif isinstance(kind, PatternKind):
        found["pattern"] = kind.pattern.text
    return found


def _describe_difference(value: Any, other: Any) -> str:
    if isinstance(value, tuple) and isinstance(other, tuple):
        only, other_only = ([text for text in one if text not in two] for one, two in ((value, other), (other, value)))
        if not only and not other_only:
            return "another order"
        value, other = (f"only {', '.join(texts)}" if texts else "no other" for texts in (only, other_only))
    return " and ".join(one_line(str(text), max_length=100) for text in (value, other))
