"""Generalizes labels such as model numbers to a bounded regular expression, as a schema has it."""

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping

from product_vqa.task.patterns import MAX_ANSWER_CHARS, Pattern, PatternError

MIN_SHARE = 0.98  # of the labels match the pattern
MAX_FORMS = 4  # `[A-Z]{2}[0-9]{4}|[0-9]{6}` has two
MAX_WORDS = 8  # that a part of a pattern lists: `[0-9]{1,3} (g|ml)`
_MIN_EQUAL = 5  # different labels for each of these words
_CLASSES = (("A-Z", "[A-Z]+"), ("a-z", "[a-z]+"), ("0-9", "[0-9]+"))
_RUNS = re.compile("|".join(f"({pattern})" for _, pattern in _CLASSES) + "|(.)", re.DOTALL)
_SPECIAL = set("\\^$.|?*+()[]{}")
_MAX_RUNS = 30


def find_pattern(labels: Mapping[str, int]) -> Pattern | None:
    """A pattern of nearly all labels, if they look like codes: with digits, in a few forms or without spaces."""
    total = sum(labels.values())
    with_digits = sum(count for label, count in labels.items() if any(char in "0123456789" for char in label))
    short = {label: count for label, count in labels.items() if len(label) <= MAX_ANSWER_CHARS and label.isascii()}
    if not short or with_digits < 0.9 * total or sum(short.values()) < MIN_SHARE * total:
        return None
    for text in (_join_forms(short, total), _one_class(short, total)):
        try:
            if text is not None:
                return Pattern(text)
        except PatternError:  # too long, or too many states
            continue
    return None


def _join_forms(labels: Mapping[str, int], total: int) -> str | None:
    """`SM-[A-Z][0-9]{3}|[0-9]{4}`: the most frequent sequences of letters, digits and other characters."""
    forms: defaultdict[tuple[str, ...], list[list[str]]] = defaultdict(list)  # form -> runs of each label
    counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
    for label, count in labels.items():
        runs = list(_RUNS.finditer(label))
        if len(runs) > _MAX_RUNS:
            continue
        # A run's form is its class ("A-Z"), or the character itself.
        form = tuple(_CLASSES[group - 1][0] if (group := run.lastindex or 4) < 4 else run[0] for run in runs)
        forms[form].append([run[0] for run in runs])
        counts[form] += count
    frequent = sorted(counts, key=lambda form: -counts[form])
    for number in range(1, min(MAX_FORMS, len(frequent)) + 1):
        if sum(counts[form] for form in frequent[:number]) >= MIN_SHARE * total:
            return "|".join(_generalize(form, forms[form]) for form in frequent[:number])
    return None


def _generalize(form: tuple[str, ...], labels: list[list[str]]) -> str:
    parts = []
    for kind, texts in zip(form, map(set, zip(*labels, strict=True)), strict=True):
        is_fixed = kind != "0-9" and len(texts) <= MAX_WORDS and len(labels) >= _MIN_EQUAL * len(texts)
        if len(kind) == 1 or (is_fixed and len(texts) == 1):
            parts.append(_escape(next(iter(texts))))
        elif is_fixed and any(len(text) > 1 for text in texts):  # of single letters, others are likely to occur
            parts.append(f"({'|'.join(sorted(texts))})")
        else:
            parts.append(f"[{kind}]{_times(list(map(len, texts)))}")
    return "".join(parts)


def _one_class(labels: Mapping[str, int], total: int) -> str | None:
    """`SM-[A-Z0-9]{4,8}`: what all labels begin with, and the characters of the rest."""
    codes = [label for label in labels if not re.search(r"\s", label)]
    if len(codes) < _MIN_EQUAL or sum(labels[label] for label in codes) < MIN_SHARE * total:
        return None
    start = _common_start(codes)
    rests = [label.removeprefix(start) for label in codes]
    characters = set(itertools.chain.from_iterable(rests))
    classes = [name for name, pattern in _CLASSES if any(re.fullmatch(pattern, char) for char in characters)]
    others = sorted(char for char in characters if not re.fullmatch("[A-Za-z0-9]", char))
    others = [f"\\{char}" if char in _SPECIAL or char == "-" else char for char in others]
    if any(char in ("&", "~") for char in others):  # an operator in other dialects
        return None
    return f"{_escape(start)}[{''.join([*classes, *others])}]{_times(list(map(len, rests)))}"


def _common_start(texts: list[str]) -> str:
    """What all of them begin with, up to the first digit."""
    first, last = min(texts), max(texts)
    length = next(
        (at for at, char in enumerate(first) if last[at : at + 1] != char or char in "0123456789"), len(first)
    )
    return first[:length]


def _escape(text: str) -> str:
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in text)


def _times(lengths: list[int]) -> str:
    least, most = min(lengths), max(lengths)
    if least == most:
        return "" if most == 1 else f"{{{most}}}"
    return f"{{{least},{most}}}"
