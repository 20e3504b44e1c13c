"""A schema: the attributes of a catalogue, with what may be asked and answered about each."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from product_vqa.errors import InputError
from product_vqa.quoting import one_line
from product_vqa.task.kinds import Kind, LabelError, MultiChoiceKind, QuantityKind

SCHEMA_VERSION = 1


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
    missing_is_not_shown: bool = False  # what a missing value in a wide table means; otherwise it is no row

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

    def is_same(self, answer: str, other: str) -> bool:
        """Whether two canonical answers mean the same: units are converted, case may not count."""
        if not answer or not other:
            return answer == other
        return self.kind.is_same(answer, other)


@dataclass(frozen=True)
class Schema:
    """The attributes by name, in order, and the dimensions of their units."""

    attributes: Mapping[str, Attribute]
    dimensions: Mapping[str, Mapping[str, Unit]]

    def __getitem__(self, entity_name: str) -> Attribute:
        """Raises InputError, with the known names, for an unknown one."""
        attribute = self.attributes.get(entity_name) if isinstance(entity_name, str) else None
        if attribute is None:
            shown = one_line(repr(entity_name), max_length=100)
            raise InputError(f"unknown entity_name {shown}; expected one of {', '.join(self.attributes)}")
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
        content = json.dumps(self.describe(), sort_keys=True, ensure_ascii=False)
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
            fields, other_fields = _answers(mine), _answers(others)
            for field in fields | other_fields:
                value, other_value = fields.get(field), other_fields.get(field)
                if value != other_value:
                    shown = (one_line(str(text), max_length=100) for text in (value, other_value))
                    found.append(f"{field} of {name}: {' and '.join(shown)}")
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
    return {"size": f"{unit.size:f}"} | ({"spellings": list(unit.spellings)} if unit.spellings else {})


def _answers(attribute: Attribute) -> dict[str, Any]:
    """What decides about the questions and answers of an attribute."""
    kind = attribute.kind
    fields: dict[str, Any] = {"kind": kind.name, "question": attribute.question, "not_shown": attribute.not_shown}
    described = kind.describe()
    for field in ("values", "yes", "no", "space_required"):
        described.pop(field, None)
    fields |= described
    if isinstance(kind, MultiChoiceKind):
        fields["values"] = list(kind.values)  # their order is that of an answer
    elif kind.name == "choice":
        fields["values"] = sorted(kind.values)  # type: ignore[union-attr]
    elif isinstance(kind, QuantityKind):
        fields["units"] = sorted(kind.units)
    return fields
