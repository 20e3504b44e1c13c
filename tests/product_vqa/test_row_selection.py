"""A part of the rows: the same for the same seed, with the attributes' shares, nested in larger parts."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_vqa.errors import InputError
from product_vqa.row_selection import RowKey, RowSelection, RowSelectionOptions, read_selection
from product_vqa.task.schema import CHALLENGE


def make_rows(**counts: int) -> list[RowKey]:
    """Two rows about each image, the attributes one after the other."""
    entities = [entity for entity, number in counts.items() for _ in range(number)]
    return [RowKey(100 + number, entity, f"https://x/{number // 2}.jpg") for number, entity in enumerate(entities)]


def test_without_options_all_rows_are_used() -> None:
    selection = read_selection(RowSelectionOptions(), schema=CHALLENGE)
    assert selection.is_all and selection.describe() == {}
    assert selection.positions(make_rows(width=3), name="t") == [0, 1, 2]
    assert selection.positions([], name="t") == RowSelection(max_rows=3).positions([], name="t") == []


def test_attributes_and_indexes_select_together(tmp_path: Path) -> None:
    file = tmp_path / "rows.txt"
    file.write_text("index\n102\n101\n\n104.0\n999\n")
    selection = read_selection(RowSelectionOptions(entities="depth, width", rows=str(file)), schema=CHALLENGE)
    rows = [row._replace(entity_name="depth" if row.index % 2 else "voltage") for row in make_rows(width=6)]
    rows[4] = rows[4]._replace(entity_name="width")
    assert [rows[position].index for position in selection.positions(rows, name="t")] == [101, 104]
    with pytest.raises(InputError, match=r"train\.csv: `entities` and `rows` select none of the 2 rows"):
        selection.positions(make_rows(voltage=2), name="train.csv")


def test_each_attribute_keeps_its_share() -> None:
    rows = make_rows(width=500, depth=300, voltage=200)
    drawn = RowSelection(max_rows=100).positions(rows, name="t")
    assert Counter(rows[position].entity_name for position in drawn) == {"width": 50, "depth": 30, "voltage": 20}
    assert drawn == sorted(drawn)
    assert drawn != RowSelection(max_rows=100, seed=1).positions(rows, name="t")


@given(
    st.dictionaries(st.sampled_from(["width", "depth", "voltage"]), st.integers(1, 30), min_size=1),
    st.integers(1, 40),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_a_smaller_part_is_in_a_larger_one_whatever_the_order(counts, first, second, rng) -> None:
    rows = make_rows(**counts)
    shuffled = rng.sample(rows, len(rows))
    small, large = sorted((first, second))
    parts = [
        {some[position] for position in RowSelection(max_rows=number).positions(some, name="t")}
        for some, number in ((rows, small), (shuffled, large))
    ]
    assert [len(part) for part in parts] == [min(small, len(rows)), min(large, len(rows))]
    assert parts[0] <= parts[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rows": 0}, "`max_rows` must be at least 1"),
        ({"entities": "width,colour"}, "`entities`: unknown 'colour'; choose from width, depth"),
        ({"entities": ""}, "`entities`: unknown ''"),
    ],
)
def test_a_wrong_option_is_named(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_selection(RowSelectionOptions(**options), schema=CHALLENGE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\ntwo\n", r"line 2: 'two' is not an index"),
        (b"\n", "lists no index"),
        (b"\xff", "rows.txt: "),
        (b"1,2\n", "line 1: '1,2' is not an index"),
    ],
)
def test_a_broken_file_of_indexes_is_named_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "rows.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"`rows` .*{message}"):
        read_selection(RowSelectionOptions(rows=str(file)), schema=CHALLENGE)
    with pytest.raises(InputError, match=r"`rows` .*missing"):
        read_selection(RowSelectionOptions(rows=str(tmp_path / "missing")), schema=CHALLENGE)
