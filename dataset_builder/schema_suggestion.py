"""Proposes a schema from the labels of a table: a file to read and correct, with what was counted as comments."""

import json
import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from dataset_builder.label_quantities import (
    Quantities,
    describe_numbers,
    digit_fields,
    find_quantities,
    used_units,
)
from dataset_builder.label_table import LabelTable
from dataset_builder.label_values import find_kind, is_accepted
from product_vqa.atomic_io import atomic_write
from product_vqa.errors import InputError
from product_vqa.quoting import one_line
from product_vqa.task.attributes import SCHEMA_VERSION, Attribute, Schema
from product_vqa.task.kinds import SEPARATOR, LabelError, key_of
from product_vqa.task.known_units import known_units, loose_unit
from product_vqa.task.schema_file import MAX_ATTRIBUTES, MAX_NAME_CHARS, parse_schema

NUM_EXAMPLES = 3  # of the labels that do not fit, by reason
MAX_SHOWN = 20  # values or units in a comment
MAX_NOTE_CHARS = 500
MAX_CHARS = 300_000  # of all descriptions; a schema file has up to a million, with comments
MIN_FIT = 0.5  # of the labels; or else the column is not an attribute
# Labels that say that there is none. They are not values, unless an attribute has no others.
NONE_WORDS = {
    "n/a",
    "na",
    "nan",
    "null",
    "-",
    "--",
    "---",
    "–",
    "—",
    "?",
    "not available",
    "not applicable",
    "unknown",
}
_Fields = dict[str, Any]


@dataclass
class Proposal:
    """One attribute, as it is proposed."""

    name: str
    kind: str
    num_labels: int
    num_fit: int
    found: dict[str, int] = field(default_factory=dict)  # the most frequent units or values -> labels
    num_found: int = 0  # all different units or values
    misfits: dict[str, list[str]] = field(default_factory=dict)  # reason -> examples
    num_misfits: dict[str, int] = field(default_factory=dict)  # reason -> labels
    numbers: str = ""  # how large they are
    rare: list[str] = field(default_factory=list)  # values of a single label
    num_missing: int = 0
    to_fill_in: list[str] = field(default_factory=list)  # units whose size is not known


@dataclass
class Suggestion:
    """A proposed schema: the text of its file, and what was found."""

    text: str
    proposals: list[Proposal]
    skipped: dict[str, str]  # column or entity_name -> why it is not an attribute

    def as_json(self) -> str:
        proposals = {proposal.name: asdict(proposal) for proposal in self.proposals}
        return json.dumps({"attributes": proposals, "skipped": self.skipped}, indent=2)

    def as_text(self) -> str:
        lines = []
        for proposal in self.proposals:
            lines.append(f"{proposal.name}: {proposal.kind}, {_fit(proposal)}")
            lines += [f"  {line}" for line in _notes(proposal)]
        lines += [f"skipped: {one_line(name, max_length=100)}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def check_absent(file: Path) -> None:
    """Raise InputError if there is a file already: it may hold corrections."""
    if os.path.lexists(file):
        raise InputError(
            f"`suggest_schema` {file}: exists, and may hold corrections; choose another name or remove it"
        )


def write_suggestion(suggestion: Suggestion, file: Path) -> None:
    check_absent(file)
    try:
        with atomic_write(file) as temporary:
            temporary.write_text(suggestion.text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"`suggest_schema` {file}: could not be written ({error.strerror})") from error


def suggest_schema(table: LabelTable) -> Suggestion:
    """Propose an attribute for each column (or entity_name) of the table.

    Raises InputError if none of them can be one.
    """
    labels, skipped = _select_attributes(table)
    quantities = {name: find_quantities(_values(counts)) for name, counts in labels.items()}
    dimensions, dimension_by_name = _find_dimensions(quantities)
    described: dict[str, _Fields] = {}
    for name, counts in labels.items():
        if name in dimension_by_name:
            numbers = quantities[name].numbers
            described[name] = {"kind": "quantity", "units": dimension_by_name[name], **digit_fields(numbers)}
        else:
            described[name] = find_kind(_values(counts))
    _shorten(described)
    attributes = _read(dimensions, described).attributes if described else {}
    proposals = []
    for name, counts in labels.items():
        proposal = _judge(attributes[name], counts)
        proposal.num_missing = table.num_missing.get(name, 0)
        if dimension_by_name.get(name) not in (None, *known_units().dimensions):
            units = list(dimensions[dimension_by_name[name]])
            proposal.to_fill_in = units if len(units) > 1 else []
        if proposal.num_fit < MIN_FIT * proposal.num_labels:
            skipped[name] = f"{_fit(proposal)} the kind {proposal.kind}; is it an attribute?"
            del described[name]
        else:
            proposals.append(proposal)
    if not proposals:
        reasons = "; ".join(f"{one_line(name, max_length=50)}: {reason}" for name, reason in list(skipped.items())[:3])
        raise InputError(f"{table.name}: has no attribute with labels ({reasons}); see `columns` and `wide`")
    used = {fields["units"] for fields in described.values() if "units" in fields}
    dimensions = {dimension: units for dimension, units in dimensions.items() if dimension in used}
    return Suggestion(_format(table, dimensions, described, proposals, skipped), proposals, skipped)


def _values(counts: Mapping[str, int]) -> Mapping[str, int]:
    """The labels without those that say that there is none."""
    values = {label: count for label, count in counts.items() if key_of(label) not in NONE_WORDS}
    return values or counts


def _select_attributes(table: LabelTable) -> tuple[dict[str, Counter[str]], dict[str, str]]:
    """The labels of what can be an attribute, and why others cannot."""
    selected: dict[str, Counter[str]] = {}
    skipped: dict[str, str] = {}
    keys: dict[str, str] = {}
    for name, counts in table.labels.items():
        key = key_of(name.replace("_", " "))
        if not counts:
            skipped[name] = "it has no labels"
        elif key in keys:
            skipped[name] = f"its name is that of {keys[key]} but for case or spaces; rename one"
        elif reason := _refusal(name):
            skipped[name] = reason
        elif len(selected) == MAX_ATTRIBUTES:
            skipped[name] = f"a schema has at most {MAX_ATTRIBUTES} attributes"
        else:
            keys[key], selected[name] = name, counts
    return selected, skipped


def _refusal(name: str) -> str:
    """Why a schema cannot have an attribute of this name, or ""."""
    try:
        parse_schema(_dump({"version": SCHEMA_VERSION, "attributes": {name: {"kind": "text"}}}), name="")
    except InputError as error:
        return one_line(str(error).partition(": ")[2], max_length=200)
    return ""


def _find_dimensions(quantities: Mapping[str, Quantities]) -> tuple[dict[str, _Fields], dict[str, str]]:
    """The units that the labels have, by dimension, and the dimension of each attribute that is a quantity."""
    spellings: defaultdict[str, defaultdict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    dimension_by_name: dict[str, str] = {}
    owners: dict[str, tuple[str, str]] = {}  # a unit that is not known -> its dimension and name there
    for name, found in quantities.items():
        dimension = found.dimension
        if dimension is not None:
            for unit, others in used_units(found, dimension).items():
                spellings[dimension][unit] |= dict.fromkeys(others)
        else:
            units = {unit: others for unit, others in found.unknown_units.items() if _is_unit(unit, others)}
            if not units:
                continue
            own = f"{name[:50].strip()} units" if name in known_units().dimensions else name
            dimension = next((owners[loose_unit(unit)][0] for unit in units if loose_unit(unit) in owners), own)
            for unit, others in units.items():
                owner, owned = owners.setdefault(loose_unit(unit), (dimension, unit))
                if owner == dimension:
                    spellings[dimension][owned] |= {text: None for text in (unit, *others) if text != owned}
        dimension_by_name[name] = dimension
    return {dimension: _describe_units(dimension, units) for dimension, units in spellings.items()}, dimension_by_name


def _describe_units(dimension: str, units: Mapping[str, Mapping[str, None]]) -> _Fields:
    known = known_units().dimensions.get(dimension, {})
    return {
        unit: _OnOneLine(
            {"size": known[unit].size if known else Decimal(1)}
            | ({"spellings": list(units[unit])} if units[unit] else {})
        )
        for unit in (sorted(units, key=list(known).index) if known else units)
    }


def _is_unit(unit: str, others: tuple[str, ...]) -> bool:
    described = {"size": "1"} | ({"spellings": list(others)} if others else {})
    attributes = {"a": {"kind": "quantity", "units": "d"}}
    return is_accepted({"version": SCHEMA_VERSION, "units": {"d": {unit: described}}, "attributes": attributes})


def _judge(attribute: Attribute, counts: Mapping[str, int]) -> Proposal:
    """Normalize all labels as a build does."""
    found: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    misfits: dict[str, Counter[str]] = {}
    kind = attribute.kind
    for label, count in counts.items():
        try:
            answer = attribute.normalize(label)
        except LabelError as error:
            misfits.setdefault(error.reason, Counter())[label] += count
            continue
        value, unit = kind.split(answer)
        if kind.name in ("quantity", "integer"):
            numbers[value] += count
        for part in value.split(SEPARATOR) if kind.name == "multi_choice" else [unit or value]:
            found[part] += count
    misfits = dict(sorted(misfits.items(), key=lambda item: -item[1].total()))
    num_labels = sum(counts.values())
    return Proposal(
        name=attribute.name,
        kind=kind.name,
        num_labels=num_labels,
        num_fit=num_labels - sum(labels.total() for labels in misfits.values()),
        found=dict(found.most_common(MAX_SHOWN)),
        num_found=len(found),
        numbers=describe_numbers(numbers),
        rare=[value for value, count in found.items() if count == 1][:MAX_SHOWN] if "choice" in kind.name else [],
        misfits={
            reason: [one_line(label, max_length=60) for label, _ in labels.most_common(NUM_EXAMPLES)]
            for reason, labels in misfits.items()
        },
        num_misfits={reason: labels.total() for reason, labels in misfits.items()},
    )


def _shorten(described: dict[str, _Fields]) -> None:
    """Turn the largest choices into texts until the file is of a size that is read."""
    sizes = {name: len(str(fields)) for name, fields in described.items()}
    while sum(sizes.values()) > MAX_CHARS:
        largest = max(sizes, key=lambda name: sizes[name])
        described[largest] = {"kind": "text", "max_length": MAX_NAME_CHARS}
        sizes[largest] = 0


def _read(dimensions: Mapping[str, _Fields], described: Mapping[str, _Fields]) -> Schema:
    content = {"version": SCHEMA_VERSION, "units": dimensions, "attributes": described}
    if not dimensions:
        del content["units"]
    return parse_schema(_dump(content), name="the proposed schema")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_size(dumper: yaml.SafeDumper, size: Decimal) -> yaml.Node:
    text = f"{size:f}"
    return dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)


class _OnOneLine(dict[str, Any]):
    """A mapping that is written as `{size: 1, spellings: [g]}`."""


def _represent_on_one_line(dumper: yaml.SafeDumper, content: _OnOneLine) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", content, flow_style=True)


_Dumper.add_representer(Decimal, _represent_size)
_Dumper.add_representer(_OnOneLine, _represent_on_one_line)


def _dump(content: Mapping[str, Any]) -> str:
    """YAML in which a list or a simple mapping is on one line if it fits there."""
    return str(
        yaml.dump(
            dict(content), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=100, default_flow_style=None
        )
    )


def _format(
    table: LabelTable,
    dimensions: Mapping[str, _Fields],
    described: Mapping[str, _Fields],
    proposals: list[Proposal],
    skipped: Mapping[str, str],
) -> str:
    """The file: everything that comes from labels is quoted as YAML, or on one line as a comment."""
    head = [
        f"Proposed from the labels of {table.name} ({table.num_rows:,} rows). Correct it, and pass it as --schema.",
        "Comments count labels. Labels that do not fit are dropped by a build, with their reasons.",
        "Units that are not in the labels: product_vqa/task/known_units.yaml has lines to copy.",
        *(f"skipped: {one_line(repr(name), max_length=100)}: {reason}"
          for name, reason in list(skipped.items())[:MAX_SHOWN]),
        *([f"skipped: {len(skipped) - MAX_SHOWN} more"] if len(skipped) > MAX_SHOWN else []),
    ]  # fmt: skip
    lines = [*_comments(head, indent=0), f"version: {SCHEMA_VERSION}"]
    if dimensions:
        lines.append("units:")
        for dimension, units in dimensions.items():
            lines += [*_comments(_unit_notes(dimension, units), indent=2), *_block({dimension: units})]
    lines.append("attributes:")
    for proposal in proposals:
        notes = [_fit(proposal), *_notes(proposal)]
        lines += [*_comments(notes, indent=2), *_block({proposal.name: described[proposal.name]})]
    return "\n".join(lines) + "\n"


def _comments(notes: Iterable[str], *, indent: int) -> list[str]:
    start = f"{' ' * indent}# "
    return [
        line
        for note in notes
        for line in textwrap.wrap(
            one_line(note, max_length=MAX_NOTE_CHARS),
            width=116,
            initial_indent=start,
            subsequent_indent=f"{start}  ",
            break_on_hyphens=False,
        )
    ]


def _block(content: Mapping[str, Any]) -> list[str]:
    return [f"  {line}" if line else "" for line in _dump(content).splitlines()]


def _unit_notes(dimension: str, units: _Fields) -> Iterator[str]:
    known = known_units().dimensions.get(dimension)
    if known is None:
        yield (
            f"fill in: how many {next(iter(units))} each of the others is, as its size; remove what is not a unit"
            if len(units) > 1
            else "not a known unit, and the only one here"
        )
    elif others := [unit for unit in known if unit not in units]:
        more = f" and {len(others) - MAX_SHOWN} more" if len(others) > MAX_SHOWN else ""
        yield f"not in the labels: {', '.join(others[:MAX_SHOWN])}{more}"


def _fit(proposal: Proposal) -> str:
    return f"{proposal.num_fit:,} of {proposal.num_labels:,} labels fit"


def _notes(proposal: Proposal) -> Iterator[str]:
    """What a person needs to see of an attribute, as lines; labels in it are not quoted yet."""
    if proposal.kind in ("text", "pattern", "integer"):
        yield f"{proposal.num_found:,} different ones, such as {', '.join(list(proposal.found)[:NUM_EXAMPLES])}"
    elif proposal.found:
        more = proposal.num_found - len(proposal.found)
        shown = ", ".join(f"{text} {count:,}" for text, count in proposal.found.items())
        yield shown + (f" and {more:,} more" if more else "")
    if proposal.numbers:
        yield proposal.numbers
    if proposal.rare:
        yield f"once each, a mistake or rare: {', '.join(proposal.rare)}"
    for reason, count in proposal.num_misfits.items():
        yield f"does not fit: {reason} {count:,} ({', '.join(proposal.misfits[reason])})"
    if proposal.num_missing:
        yield f"{proposal.num_missing:,} without a label; with `not_shown: true`, that may be an answer"
    if proposal.to_fill_in:
        yield f"fill in the sizes of the units {', '.join(proposal.to_fill_in)}"
