"""Finds the kinds of labels other than quantities: yes or no, whole numbers, choices, patterns and texts."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import yaml

from dataset_builder.label_patterns import find_pattern
from product_vqa.errors import InputError
from product_vqa.task.kinds import MAX_TEXT_LENGTH, key_of, split_values
from product_vqa.task.schema_file import MAX_DIGITS, MAX_MULTI_VALUES, MAX_VALUES, parse_schema

MIN_SHARE = 0.95  # of the labels are of the kind
# How people write yes and no: English, and German, French, Spanish, Portuguese, Italian, Dutch.
YES = ("yes", "y", "true", "ja", "oui", "sí", "si", "sì", "sim", "✓", "✔", "1")
NO = ("no", "n", "false", "nein", "non", "não", "nao", "nee", "✗", "✘", "0")
_INTEGER = re.compile(r"-?[0-9]+(?:\.0+)?")
_MIN_CODE_DIGITS = 8  # numbers that all have so many digits, or a leading zero, are codes: an EAN
_MIN_REPETITION = 5  # labels for each value of a choice; of few values, 2
_FEW_VALUES = 20
_MIN_MULTI_SHARE = 0.05  # of the labels have several values


def find_kind(labels: Mapping[str, int]) -> dict[str, Any]:
    """The fields of an attribute in a schema file, without units, for its labels."""
    fields = _yes_no(labels) or _integer(labels) or _multi_choice(labels) or _choice(labels)
    if fields:
        return fields
    pattern = find_pattern(labels)
    if pattern is not None:
        return {"kind": "pattern", "pattern": pattern.text}
    longest = max((len(" ".join(label.split())) for label in labels), default=0)
    fields = {"kind": "text"}
    if longest > 40:
        fields["max_length"] = min(-(-longest // 10) * 10, MAX_TEXT_LENGTH)
    return fields


def _yes_no(labels: Mapping[str, int]) -> dict[str, Any]:
    keys: Counter[str] = Counter()
    for label, count in labels.items():
        keys[key_of(label)] += count
    if sum(keys[key] for key in (*YES, *NO)) < MIN_SHARE * keys.total():
        return {}
    if set(keys) <= {"0"} or set(keys) <= {"1"}:  # a number that happens to be the same everywhere
        return {}
    fields: dict[str, Any] = {"kind": "yes_no"}
    for value, words in (("yes", YES), ("no", NO)):
        if synonyms := [word for word in words if word != value and keys[word]]:
            fields[value] = synonyms
    return fields


def _integer(labels: Mapping[str, int]) -> dict[str, Any]:
    total = sum(labels.values())
    numbers = [label for label in labels if _INTEGER.fullmatch(label)]
    digits = [label.lstrip("-").partition(".")[0] for label in numbers]
    if not numbers or sum(labels[label] for label in numbers) < MIN_SHARE * total:
        return {}
    is_code = any(len(text) > 1 and text[0] == "0" for text in digits) or (
        len(set(digits)) > 1 and min(map(len, digits)) == max(map(len, digits)) >= _MIN_CODE_DIGITS
    )
    most = max(map(len, digits))
    if is_code or most > MAX_DIGITS:
        return {}
    fields: dict[str, Any] = {"kind": "integer"}
    if most > 6:
        fields["digits"] = most
    if any(label.startswith("-") for label in numbers):
        fields["signed"] = True
    return fields


def _multi_choice(labels: Mapping[str, int]) -> dict[str, Any]:
    """Labels whose parts occur again in others: `cotton, wool` and `cotton`, but not `S/M` and `L/XL`."""
    parts: Counter[str] = Counter()
    combinations: defaultdict[str, set[frozenset[str]]] = defaultdict(set)  # of the parts of several: all with them
    num_labels = num_multi = 0
    in_several: set[str] = set()
    for label, count in labels.items():
        found = [part for part in split_values(label) if part]
        if len(found) > MAX_MULTI_VALUES:
            return {}
        keys = frozenset(map(key_of, found))
        for part in found:
            parts[part] += count
        for key in keys:
            combinations[key].add(keys)
        num_labels += count
        if len(keys) > 1:
            num_multi += count
            in_several |= keys
    recombined = sum(len(combinations[key]) > 1 for key in in_several)
    if num_multi < _MIN_MULTI_SHARE * num_labels or recombined * 2 < len(in_several) or len(in_several) < 2:
        return {}
    if not _is_repeated(parts.total(), len({_loose(part) for part in parts})):
        return {}
    values = _group(parts, kind="multi_choice")
    return {"kind": "multi_choice", "values": values} if 2 <= len(values) <= MAX_MULTI_VALUES else {}


def _choice(labels: Mapping[str, int]) -> dict[str, Any]:
    if not _is_repeated(sum(labels.values()), len({_loose(label) for label in labels})):
        return {}
    values = _group(labels, kind="choice")
    return {"kind": "choice", "values": values} if 2 <= len(values) <= MAX_VALUES else {}


def _is_repeated(num_labels: int, num_values: int) -> bool:
    least = 2 if num_values <= _FEW_VALUES else _MIN_REPETITION
    return num_values <= MAX_VALUES and num_labels >= least * num_values


def _group(labels: Mapping[str, int], *, kind: str) -> Any:
    """The field `values`, the most frequent first: texts that differ by case, spaces or hyphens are one value.

    Case and multiple spaces never count in a schema, so that synonyms are those that differ by more. Values that a
    schema cannot have are dropped.
    """
    groups: defaultdict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for label, count in labels.items():
        text = unicodedata.normalize("NFC", " ".join(label.split()))
        groups[_loose(text)][key_of(text)][text] += count
    by_value = []  # (count, texts by key) of each value
    for group in groups.values():
        texts = [counts.most_common(1)[0] for counts in group.values()]
        total = sum(counts.total() for counts in group.values())
        by_value.append((total, [text for text, _ in sorted(texts, key=lambda text: -text[1])]))
    ordered = [texts for _, texts in sorted(by_value, key=lambda value: -value[0])]
    if not _is_accepted_choice(kind, ordered):
        ordered = [[text for text in texts if _is_accepted_choice(kind, [[text]])] for texts in ordered]
    values = {texts[0]: texts[1:] for texts in ordered if texts}
    return values if any(values.values()) else list(values)


def _loose(text: str) -> str:
    """`Navy-Blue`, `navy blue`, `navyblue` -> `navyblue`; but `1-2` and `12`, `A-` and `A` are two."""
    return re.sub(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])", "", key_of(text))


def _is_accepted_choice(kind: str, values: list[list[str]]) -> bool:
    """Whether a schema can have these values, each with its synonyms, next to another one."""
    described = {texts[0]: texts[1:] for texts in values}
    other = next(other for other in ("x", "y", "z") if key_of(other) not in {key_of(text) for text in described})
    attribute = {"kind": kind, "values": described | ({other: []} if len(described) < 2 else {})}
    return is_accepted({"version": 1, "attributes": {"a": attribute}})


def is_accepted(content: Mapping[str, Any]) -> bool:
    """Whether this is a schema."""
    try:
        parse_schema(yaml.safe_dump(dict(content), allow_unicode=True), name="a proposal")
    except InputError:
        return False
    return True
