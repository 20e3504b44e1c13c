"""The rows of an audit in their order, and the CSV of them."""

import csv
from pathlib import Path

import pytest

from dataset_builder.audit_rows import find_labels, rank_rows, write_ranking
from product_vqa.dataset import load_split
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.ocr.candidate import Candidate, Evidence
from product_vqa.task.schema import CHALLENGE
from tests.dataset_builder.audits import EVIL, LINK, save_audited


def test_labels_are_ranked_by_their_score_and_equal_ones_stay_in_order(tmp_path: Path) -> None:
    location = Location(str(save_audited(tmp_path / "dataset")))
    rows = find_labels(load_split(location, "train"), location=location, split="train")
    assert [row.key.index for row in rows] == [10, 11, 12, 13]  # an empty label is not audited
    candidate = Candidate("50.0 gram", Evidence.VALUE, (0.1, 0.1, 0.2, 0.2), 1.0, 5.0)
    ranked = rank_rows(
        rows,
        schema=CHALLENGE,
        predictions={11: [{"5.0 gram": 0.9}], 13: [{"110.0 volt": 0.9}, {"110.0 volt": 0.7, "230.0 volt": 0.3}]},
        candidates=[(0, [candidate] * 7), (1, [candidate])],
    )
    # 10: OCR alone, ln(0.95/0.05) = 2.94; 13: the predictions alone, ln(0.81/0.165) = 1.59; 12: nothing; 11: the
    # predictions say ln(0.06/0.91) = -2.72, and OCR 2.94.
    assert [one.row.key.index for one in ranked] == [10, 13, 11, 12]
    assert [one.suspicion.suggestion for one in ranked] == ["50.0 gram", "110.0 volt", "50.0 gram", ""]
    assert ranked[1].predictions == {"110.0 volt": pytest.approx(0.8), "230.0 volt": pytest.approx(0.15)}
    assert ranked[0].candidates == (candidate,) * 5 and ranked[1].candidates is None

    write_ranking(ranked, tmp_path / "ranking.csv")
    with (tmp_path / "ranking.csv").open(newline="") as lines:
        written = list(csv.DictReader(lines))
    assert [(one["rank"], one["index"], one["score"]) for one in written] == [
        ("1", "10", "2.944"), ("2", "13", "1.591"), ("3", "11", "0.225"), ("4", "12", "0.000"),
    ]  # fmt: skip
    assert written[2] == {
        "rank": "3", "index": "11", "image_link": LINK, "entity_name": "item_weight",
        "entity_value": f"'=5 gram {EVIL}", "score": "0.225", "score_predictions": "-2.719", "score_ocr": "2.944",
        "suggestion": "50.0 gram",
    }  # fmt: skip


def test_a_split_without_labels_is_refused(tiny_dataset: Path) -> None:
    location = Location(str(tiny_dataset))
    with pytest.raises(
        InputError, match=r"split test has no labels; give a labelled split, such as train, as `split`"
    ):
        find_labels(load_split(location, "test"), location=location, split="test")
