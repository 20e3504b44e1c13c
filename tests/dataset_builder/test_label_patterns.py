import random
import string

import pytest

from dataset_builder.label_patterns import find_pattern
from product_vqa.task.patterns import Pattern


def pattern_of(*labels: str) -> str | None:
    found = find_pattern(dict.fromkeys(labels, 1))
    return found.text if found else None


@pytest.mark.parametrize(
    ("labels", "pattern"),
    [
        (["AB-123", "CD-4567", "EF-89"], "[A-Z]{2}-[0-9]{2,4}"),
        (["SM-100A", "SM-200B", "SM-300C", "SM-400D", "SM-500E"], "SM-[0-9]{3}[A-Z]"),
        (["4.5", "3.75", "5"], r"[0-9]\.[0-9]{1,2}|[0-9]"),
        (["$1.50", "$12.99"], r"\$[0-9]{1,2}\.[0-9]{2}"),
        (["10 x 20", "100 x 5", "10 x 5", "20 x 20", "11 x 12"], "[0-9]{2,3} x [0-9]{1,2}"),
        ([f"{n} g" for n in range(5)] + [f"{n} ml" for n in range(5)], "[0-9] (g|ml)"),
        (["wx1a", "wx1b2", "wx12c3d", "wx9", "wxabc1", "wx1-x", "wx2.5"], r"wx[a-z0-9\-\.]{1,5}"),
        (["4006381333931", "0012345678905"], "[0-9]{13}"),
    ],
)  # fmt: skip
def test_labels_with_digits_have_a_pattern(labels: list[str], pattern: str) -> None:
    assert pattern_of(*labels) == pattern
    assert all(Pattern(pattern).matches(label) for label in labels)


@pytest.mark.parametrize(
    "labels",
    [
        ["Acme", "Other", "Third"],  # no digits
        ["Mix 1", "a 2 b", "3 c d e", "f g h 4 i", "jk 5 l m n", "6 O P"],  # words, in many forms
        ["é1", "é2"],  # not ASCII
        ["1" * 65, "2" * 65],  # longer than an answer
        ["a1&b", "c~22", "d333e", "4f4f4", "gg5g5&6"],  # many forms, with a character that is an operator elsewhere
        [],
    ],
)
def test_others_have_none(labels: list[str]) -> None:
    assert pattern_of(*labels) is None


def test_a_few_other_labels_do_not_count() -> None:
    labels = {f"AB-{number}": 1 for number in range(1000, 1098)}
    assert (found := find_pattern(labels | {"none 1 of 2": 2})) and found.text == "AB-[0-9]{4}"
    assert find_pattern(labels | {"none 1 of 2": 3}) != found


def test_a_pattern_matches_model_numbers_that_were_not_seen() -> None:
    draw = random.Random(0)
    labels = [
        f"{''.join(draw.choices(string.ascii_uppercase, k=2))}-{draw.randint(100, 9999)}{draw.choice('ABCDE')}"
        for _ in range(400)
    ]
    found = find_pattern(dict.fromkeys(labels[:200], 1))
    assert found and found.text == "[A-Z]{2}-[0-9]{3,4}[A-Z]"
    assert all(map(found.matches, labels[200:]))
