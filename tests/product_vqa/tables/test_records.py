import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_vqa.errors import InputError
from product_vqa.tables.records import CsvRecords, JsonRecords


def test_the_cells_of_a_csv_come_in_the_order_that_was_asked_for() -> None:
    records = CsvRecords(io.StringIO('a,b,c\n1,"2\n2",3\n\n4,5,6\n', newline=""), file="f")
    found = [(cells, records.number, records.length) for cells in records.read(["c", "a", "b"])]
    assert found == [(("3", "1", "2\n2"), 3, 10), (("6", "4", "5"), 5, 6)]


def test_a_key_that_an_object_lacks_is_an_empty_cell_and_numbers_stay_as_they_are_written() -> None:
    lines = ['{"a": 1.50, "b": null}\n', "\n", '{"b": ["x", "y"], "a": true}\n', '{"a": 1e2, "c": NaN}\n']
    records = JsonRecords(lines, ["a", "b", "c"], file="f")
    assert [(cells, records.number) for cells in records.read(["b", "a", "c"])] == [
        (("", "1.50", ""), 1), (("x, y", "yes", ""), 3), (("", "1e2", ""), 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]\n", r"^f, line 2: not JSON Lines \(not an object\); write one object per line$"),
        ('{"a": \n', r"^f, line 2: not JSON Lines \(Expecting value"),
        ("[" * 100_000, r"^f, line 2: not JSON Lines \("),
        ('{"a": {"b": 1}}\n', "^f, line 2: a is an object; write a text"),
    ],
)
def test_a_line_that_is_not_a_row_is_named(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(JsonRecords(['{"a": 1}\n', line], ["a"], file="f").read(["a", "a"]))


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.lists(st.fixed_dictionaries({}, optional={"a": texts, "b": texts}), max_size=6))
def test_any_texts_survive_json_lines(rows: list[dict[str, str]]) -> None:
    lines = [f"{json.dumps(row)}\n" for row in rows]
    found = list(JsonRecords(lines, ["a", "b"], file="f").read(["a", "b"]))
    assert found == [(row.get("a", ""), row.get("b", "")) for row in rows]
