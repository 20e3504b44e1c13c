"""Which labels the benchmark of the audit corrupts, and how it counts."""

import json
from pathlib import Path

import pytest

from benchmarks.audit import KINDS, corrupt, main, summarize
from product_vqa.task.schema import CHALLENGE
from tests.commands import call


def make_rows() -> list[dict[str, str]]:
    """A hundred weights in two units, and a range, which is never corrupted."""
    labels = [f"{number + 1}.0 {('gram', 'ounce')[number % 2]}" for number in range(100)]
    return [
        {"image_link": f"{number}.jpg", "group_id": "1", "entity_name": "item_weight", "entity_value": label}
        for number, label in enumerate([*labels, "[1.0, 2.0] gram"])
    ]


def test_a_share_of_the_labels_is_wrong_and_each_kind_has_its_part() -> None:
    rows, before = make_rows(), make_rows()
    corrupted = corrupt(rows, share=0.06, seed=3)
    assert [one.kind for one in corrupted] == [*KINDS, *KINDS]
    changed = [number for number, row in enumerate(rows) if row != before[number]]
    assert changed == sorted(one.index for one in corrupted) and 100 not in changed
    attribute = CHALLENGE["item_weight"]
    for one in corrupted:
        label = rows[one.index]["entity_value"]
        assert one.label == before[one.index]["entity_value"]
        assert attribute.is_valid(label) and not attribute.is_same(label, one.label)
        if one.kind == "number":
            assert label.split()[1] == one.label.split()[1]
        elif one.kind == "unit":
            assert label.split()[0] == one.label.split()[0]
        else:
            assert label in {row["entity_value"] for row in before}
    assert corrupt(make_rows(), share=0.06, seed=3) == corrupted


def test_what_is_found_is_counted_in_the_first_rows() -> None:
    found = summarize([0, 2, 9, 25], range(100), first=0.1)
    assert found == {
        "rows": 100, "wrong": 4, "first": 10, "found": 3, "found_share": 0.75, "found_in_twice_as_many": 3,
        "by_chance": 0.4,
    }  # fmt: skip
    assert summarize([0, 30], range(100), first=30)["found"] == 1


def test_rows_that_are_not_there_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    call(main, monkeypatch, "--train_csv", missing, "--image_dir", missing, "--wrong_csv", missing, "--json")
    assert json.loads(capsys.readouterr().out) == {"skipped": f"{missing} or {missing} is not there"}
