from pathlib import Path
from typing import Any

import pytest

from dataset_builder.row_filter import DatasetRow, Dropped, FilteredRows, as_frame, filter_rows
from dataset_builder.stored_image import StoredImage
from product_vqa.errors import InputError
from product_vqa.tables.rows import Table
from tests.dataset_builder.challenge import Tables, read_test_csv, read_train_csv
from tests.dataset_builder.files import TEST_COLUMNS, TRAIN_COLUMNS, write_csv

IMAGE = StoredImage(num_bytes=900, width=48, height=32, sha256="ab" * 32, phash=-(2**63) + 1)


def read_train(folder: Path, rows: list[list[object]]) -> Table:
    return read_train_csv(write_csv(folder / "train.csv", TRAIN_COLUMNS, rows))


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """Rows 0 and 3 of train can be used. One label and one image cannot, nor can one image of test."""
    train = read_train(
        tmp_path,
        [
            ["a", "g", "width", "1 inch"],
            ["b", "g", "width", "2 inch"],
            ["a", "g", "width", "wide"],
            ["c", "g", "voltage", "[1.0, 2.0] volt"],
        ],
    )
    test = write_csv(tmp_path / "test.csv", TEST_COLUMNS, [[7, "a", "g", "depth"], [8, "d", "g", "depth"]])
    return Tables(train, read_test_csv(test))


def filtered(tables: Tables, *, ranges: str = "first") -> FilteredRows:
    failures = {"b": "http_404", "d": "image_unreadable: OSError: truncated"}
    return filter_rows(tables, {"a": IMAGE, "c": IMAGE}, failures, ranges=ranges)


def test_rows_with_a_usable_label_and_an_image_are_kept_and_the_others_have_a_reason(tables: Tables) -> None:
    assert tables.train and tables.test
    train, test = tables.train.rows, tables.test.rows
    rows = filtered(tables)
    assert rows.labelled == (DatasetRow(train[0], "1.0 inch", IMAGE), DatasetRow(train[3], "1.0 volt", IMAGE))
    assert rows.dropped == (
        Dropped("row", "train.csv", train[2], "broken"),
        Dropped("row", "train.csv", train[1], "http_404"),
        Dropped("image", "test.csv", test[1], "image_unreadable: OSError: truncated"),
    )


def test_every_row_of_test_is_kept(tables: Tables) -> None:
    assert [(row.row.index, row.label, row.image) for row in filtered(tables).test] == [(7, "", IMAGE), (8, "", None)]


@pytest.mark.parametrize(
    ("ranges", "labels"), [("first", ["1.0 inch", "1.0 volt"]), ("last", ["1.0 inch", "2.0 volt"])]
)
def test_a_range_is_read_as_the_end_that_was_asked_for(tables: Tables, ranges: str, labels: list[str]) -> None:
    assert [row.label for row in filtered(tables, ranges=ranges).labelled] == labels


def test_reasons_are_counted_without_their_details_and_logged(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    rows = filtered(tables, ranges="leave_out")
    assert rows.count_dropped("row") == {"broken": 1, "range_brackets": 1, "http_404": 1}
    assert rows.count_dropped("image") == {"image_unreadable": 1}
    assert "3 rows of train dropped: broken 1, range_brackets 1, http_404 1" in caplog.text
    assert "1 rows of test without an image: image_unreadable 1" in caplog.text


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("image_missing", "check `image_dir`"), ("not_fetched", "set `download` true"),
        ("private_address: 10.0.0.1", "set `allow_private_hosts`"), ("http_404", "check the URLs"),
    ],
)  # fmt: skip
def test_images_of_which_none_could_be_loaded_are_refused(tables: Tables, reason: str, remedy: str) -> None:
    with pytest.raises(InputError, match=rf"^none of the 4 images could be loaded \(a: {reason}\); {remedy}"):
        filter_rows(tables, {}, dict.fromkeys("abcd", reason), ranges="first")


def test_labels_of_which_none_can_be_used_are_refused(tmp_path: Path) -> None:
    table = read_train(tmp_path, [["a", "g", "width", "wide"]])
    with pytest.raises(InputError, match=r"`train_csv` train\.csv: none of the 1 rows has a usable label"):
        filter_rows(Tables(table, None), {"a": IMAGE}, {}, ranges="first")


def test_rows_become_a_table_that_keeps_every_bit_of_a_hash_though_an_image_is_missing(tables: Tables) -> None:
    rows = filtered(tables)
    values: list[dict[str, Any]] = as_frame([*rows.labelled[:1], *rows.test]).to_dict("records")
    assert values[0] == {
        "index": 0, "image_link": "a", "group_id": "g", "entity_name": "width", "entity_value": "1.0 inch",
        "width": 48, "height": 32, "sha256": IMAGE, "phash": -(2**63) + 1,
    }  # fmt: skip
    assert [row["sha256"] == IMAGE for row in values] == [True, True, False]
