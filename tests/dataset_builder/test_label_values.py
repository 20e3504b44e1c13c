from typing import Any

import pytest

from dataset_builder.label_values import find_kind


@pytest.mark.parametrize(
    ("labels", "fields"),
    [
        ({"Yes": 3, "no": 2}, {"kind": "yes_no"}),
        ({"TRUE": 3, "false": 2, "Y": 1}, {"kind": "yes_no", "yes": ["y", "true"], "no": ["false"]}),
        ({"1": 3, "0": 2}, {"kind": "yes_no", "yes": ["1"], "no": ["0"]}),
        ({"ja": 3, "nein": 2}, {"kind": "yes_no", "yes": ["ja"], "no": ["nein"]}),
        ({"yes": 19, "perhaps": 1}, {"kind": "yes_no"}),
        ({"1": 5}, {"kind": "integer"}),
        ({"12": 1, "7": 1, "24.0": 1}, {"kind": "integer"}),
        ({"-12": 1, "12345678": 1}, {"kind": "integer", "digits": 8, "signed": True}),
        ({"12345678": 1, "87654321": 1}, {"kind": "pattern", "pattern": "[0-9]{8}"}),  # a code
        ({"007": 1, "12": 1}, {"kind": "pattern", "pattern": "[0-9]{2,3}"}),
        ({"1" * 16: 1, "2": 1}, {"kind": "pattern", "pattern": "[0-9]{1,16}"}),
        ({"red": 3, "Red": 1, "blue": 2}, {"kind": "choice", "values": ["red", "blue"]}),
        (
            {"navy blue": 3, "Navy-Blue": 2, "navyblue": 1, "red": 4},
            {"kind": "choice", "values": {"navy blue": ["Navy-Blue", "navyblue"], "red": []}},
        ),
        ({"S/M": 5, "L/XL": 5}, {"kind": "choice", "values": ["S/M", "L/XL"]}),
        ({"5.5": 4, "6": 3, "no. 7": 2}, {"kind": "choice", "values": ["5.5", "6", "no. 7"]}),
        ({"A-": 2, "A": 3, "1-2": 2, "12": 3}, {"kind": "choice", "values": ["A", "12", "A-", "1-2"]}),
        (
            {"cotton": 5, "wool, Cotton": 2, "linen and wool": 1},
            {"kind": "multi_choice", "values": ["cotton", "wool", "linen"]},
        ),
        ({"red": 5}, {"kind": "text"}),  # a choice has two values
        ({"Acme": 1, "Other": 1, "Third": 1}, {"kind": "text"}),
        ({"Acme " * 9: 1, "Other": 1}, {"kind": "text", "max_length": 50}),
        ({"x" * 1001: 1}, {"kind": "text", "max_length": 200}),
        ({"red": 5, "blue\u202e": 5, "green": 5}, {"kind": "choice", "values": ["red", "green"]}),
        ({"red": 5, "<eos>": 5}, {"kind": "text"}),
    ],
)
def test_labels_have_a_kind(labels: dict[str, int], fields: dict[str, Any]) -> None:
    assert find_kind(labels) == fields


def test_values_repeat() -> None:
    assert find_kind({f"value {chr(97 + n)}": 2 for n in range(20)})["kind"] == "choice"
    assert find_kind({f"value {chr(97 + n)}": 2 for n in range(21)})["kind"] == "text"
    assert find_kind({f"value {chr(97 + n)}": 5 for n in range(21)})["kind"] == "choice"
    words = [f"{one}{two}{three}" for one in "abcdefghij" for two in "abcdefghij" for three in "abcdefghij"]
    assert find_kind(dict.fromkeys(words, 5))["kind"] == "choice"
    assert find_kind(dict.fromkeys([*words, "other"], 5))["kind"] == "text"


def test_many_parts_are_not_a_multi_choice() -> None:
    words = [f"{one}{two}" for one in "abcdefghij" for two in "abcdefghij"]
    pairs = [f"{word}, {other}" for word, other in zip(words[:64], [*words[1:64], words[0]], strict=True)]
    assert find_kind(dict.fromkeys(pairs, 3))["kind"] == "multi_choice"
    pairs = [f"{word}, {other}" for word, other in zip(words[:65], [*words[1:65], words[0]], strict=True)]
    assert find_kind(dict.fromkeys(pairs, 3))["kind"] == "text"
