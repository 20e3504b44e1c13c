"""Votes: which predictions are one, which of them are equal, and what the others are counted as."""

from pathlib import Path

import numpy as np
import pytest

from inference.votes import NO_VOTE, Count, count_votes, find_copies, parse_vote
from product_vqa.errors import InputError
from product_vqa.task.quantity import parse_quantity
from tests.inference.challenge import join_rows, read_files
from tests.inference.schemas import SCHEMAS
from tests.inference.vote_files import make_table, make_votes, write_csv, write_parquet


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("500 gram", "500 gram"),
        (" 1.50  feet", "1.5 foot"),
        ("", None),
        ("2 gms", None),
        ("-5 gram", None),
        ("2e3 gram", None),
        ("=1+1", None),
        ("[100.0, 240.0] volt", None),
        ("1" * 95 + " gram", "1" * 95 + " gram"),
        ("1" * 96 + " gram", None),
    ],
)
def test_a_vote_is_a_number_and_a_unit(text: str, quantity: str | None) -> None:
    assert parse_vote(text) == (None if quantity is None else parse_quantity(quantity))


def test_an_end_of_a_range_is_a_vote_if_asked() -> None:
    for text in ("[100.0, 240.0] volt", "100 volt to 240volt"):
        assert parse_vote(text, ranges="first") == parse_quantity("100 volt")
        assert parse_vote(text, ranges="last") == parse_quantity("240 volt")
    assert parse_vote("230 volt", ranges="last") == parse_quantity("230 volt")
    assert parse_vote("[1, 2] horsepower", ranges="last") is None


def test_equal_amounts_share_a_number() -> None:
    texts = ["1 kilogram", "1000.00 gram", "1000 gram", "0 gram", "0 volt", "1000.5 gram"]
    votes = make_votes(make_table(texts))
    assert list(map(str, votes.quantities)) == ["0.0 gram", "1000.0 gram", "1.0 kilogram", "1000.5 gram", "0.0 volt"]
    assert list(votes.amounts) == [0, 1, 1, 2, 3]
    assert votes.choices[:, 0].tolist() == [2, 1, 1, 0, 4, 3]
    assert votes.amounts_chosen()[:, 0].tolist() == [1, 1, 1, 0, 3, 2]
    assert make_votes(make_table(["", "x"])).amounts_chosen()[:, 0].tolist() == [NO_VOTE, NO_VOTE]


def test_what_does_not_vote_is_counted_with_an_example() -> None:
    texts = ["1 gram", "", "2 gms", "3 volt", None, "4 ounce"]
    table = make_table(texts, [0.5, 0.6, 0.7, 0.8, None, None]).assign(entity_name="item_weight")
    tables = {"a.csv": table, "b.csv": make_table([None, None, None, "1 volt", "2 gram", ""])}
    votes, counts = count_votes(tables, join_rows(tables))
    examples = ("index 2: '2 gms'", "index 3: '3 volt'"), ("index 3: '1 volt'",)
    assert counts == {
        "a.csv": Count(5, votes=2, has_confidences=True, invalid=1, unsuitable=1, examples=examples[0]),
        "b.csv": Count(3, votes=1, has_confidences=False, invalid=0, unsuitable=1, examples=examples[1]),
    }
    assert votes.choices.tolist() == [[0, -1], [-1, -1], [-1, -1], [-1, -1], [-1, 1], [2, -1]]
    known = np.isfinite(votes.confidences)
    assert known.tolist() == [[True, False]] + [[False, False]] * 5, "a confidence belongs to a vote"


def test_some_rows_have_the_votes_about_them() -> None:
    votes = make_votes(make_table(["1 gram", "2 gram", "3 gram"], [0.1, 0.2, 0.3]), make_table(["4 gram", None, ""]))
    some = votes.take(np.array([2, 0]))
    assert some.rows.indexes.tolist() == [2, 0]
    assert some.choices.tolist() == [[2, -1], [0, 3]]
    assert some.confidences[:, 0].tolist() == [0.3, 0.1]
    assert some.quantities == votes.quantities


@pytest.mark.parametrize(("unsuitable", "is_refused"), [(8, False), (9, True)])
def test_predictions_in_units_of_other_attributes_are_of_another_split(unsuitable: int, is_refused: bool) -> None:
    """Also if another file is about the right rows; those without a known attribute do not count."""
    right = make_table(["1 inch"] * 20 + ["1 volt"] * 30).assign(entity_name=["width"] * 20 + [""] * 30)
    texts = ["1 gms"] * 5 + ["1 volt"] * unsuitable + ["1 inch"] * (20 - unsuitable) + ["1 volt"] * 25
    other = make_table(texts).assign(index=[*range(25, 30), *range(20), *range(30, 55)])
    tables = {"a.csv": right, "b.csv": other}
    if not is_refused:
        count_votes(tables, join_rows(tables))
        return
    message = r"b.csv: 9 of 20 predictions are in a unit of another attribute, for example index 0: '1 volt'; are"
    with pytest.raises(InputError, match=message):
        count_votes(tables, join_rows(tables))


def test_few_predictions_are_not_judged() -> None:
    few = {"a.csv": make_table(["1 volt"] * 19).assign(entity_name="width")}
    _, counts = count_votes(few, join_rows(few))
    assert counts["a.csv"].unsuitable == 19


def test_files_are_read_by_name(tmp_path: Path) -> None:
    one = write_csv(tmp_path / "a.csv", {7: " 1 gram ", 3: ""})
    other = write_parquet(tmp_path / "b.parquet", {3: ("2 gram", 0.5), 7: ("", None)}, entity_name="item_weight")
    tables = read_files([one, other])
    assert list(tables) == [one, other]
    assert tables[one]["index"].tolist() == [7, 3]
    assert tables[one]["prediction"].tolist() == ["1 gram", ""]
    assert tables[one]["confidence"].isna().all()
    assert tables[other]["entity_name"].tolist() == ["item_weight"] * 2


def test_files_with_the_same_votes_are_found_if_there_are_enough() -> None:
    same, other = make_table(["1 gram"] * 20), make_table(["1.0 gram"] * 19 + ["2 gram"])
    assert find_copies(make_votes(same, other, same)) == [(0, 2)]
    assert find_copies(make_votes(same.iloc[:19], same.iloc[:19], make_table([""] * 20), make_table([""] * 20))) == []


def test_files_with_the_same_votes_about_the_rows_that_both_have_are_found() -> None:
    whole, first, last = make_table(["1 gram"] * 40), make_table(["1 gram"] * 25), make_table(["1 gram"] * 40)[20:]
    assert find_copies(make_votes(whole, first, last)) == [(0, 1), (0, 2)], "5 rows may be equal by chance"


def test_a_file_votes_once(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", {7: "1 gram"})
    (tmp_path / "link.csv").symlink_to(file)
    for again in (file, f"{tmp_path}/./a.csv", str(tmp_path / "link.csv")):
        with pytest.raises(InputError, match=r"\.csv is given twice, so its votes would count twice"):
            read_files([file, again])


def test_a_duplicate_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("index,prediction\n1,1 gram\n1.0,2 gram\n")
    with pytest.raises(InputError, match=r"a.csv, line 3: duplicate index 1 \(first seen on line 2\)"):
        read_files([str(tmp_path / "a.csv")])


def test_votes_about_other_attributes_are_what_the_schema_allows() -> None:
    names = ["memory", "memory", "bluetooth", "brand", "model_number", "memory", "memory"]
    one = make_table(["1 TB", "16", "with", "acme", "AB-1234", "5 hertz", ""]).assign(entity_name=names)
    other = make_table(["1000 gigabyte", "16 GB", "no", "ACME", "AB-12", None, "8 gigabyte"])
    tables = {"a.csv": one, "b.csv": other}
    votes, counts = count_votes(tables, join_rows(tables, schema=SCHEMAS["electronics"]))
    texts = [["" if choice < 0 else str(votes.quantities[choice]) for choice in row] for row in votes.choices.tolist()]
    assert texts == [
        ["1 terabyte", "1000 gigabyte"], ["", "16 gigabyte"], ["yes", "no"], ["acme", "ACME"], ["AB-1234", ""],
        ["", ""], ["", "8 gigabyte"],
    ]  # fmt: skip
    amounts = votes.amounts_chosen()
    assert (amounts[0, 0] == amounts[0, 1], amounts[2, 0] == amounts[2, 1], amounts[3, 0] == amounts[3, 1]) == (
        True, False, True,
    )  # fmt: skip
    assert counts == {
        "a.csv": Count(7, 4, False, invalid=1, unsuitable=1, examples=("index 1: '16'", "index 5: '5 hertz'")),
        "b.csv": Count(6, 5, False, invalid=1, unsuitable=0, examples=("index 4: 'AB-12'",)),
    }
    values = [str(value) for value in votes.quantities]
    assert values.index("8 gigabyte") < values.index("16 gigabyte") < values.index("1 terabyte")


def test_the_same_text_about_two_attributes_is_read_as_each_of_them_says() -> None:
    table = make_table(["120 mg", "120 mg"]).assign(entity_name=["fat", "energy"])
    tables = {"a.csv": table}
    votes, counts = count_votes(tables, join_rows(tables, schema=SCHEMAS["nutrition"]))
    assert votes.choices.tolist() == [[0], [-1]]
    assert (counts["a.csv"].votes, counts["a.csv"].unsuitable) == (1, 1)


def test_votes_about_other_attributes_need_to_know_which() -> None:
    tables = {"a.csv": make_table(["S", "M"])}
    with pytest.raises(InputError, match=r"the attribute of 2 rows, for example of index 0, is in none of the files"):
        count_votes(tables, join_rows(tables, schema=SCHEMAS["clothes"]))
