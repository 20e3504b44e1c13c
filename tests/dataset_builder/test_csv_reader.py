import contextlib
import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.csv_reader import read_tables
from dataset_builder.options import TableOptions
from product_vqa.errors import InputError
from product_vqa.tables.rows import Table
from product_vqa.task.schema import ENTITIES
from tests.dataset_builder.challenge import Tables, read_test_csv, read_train_csv
from tests.dataset_builder.files import TEST_COLUMNS, TRAIN_COLUMNS, write_csv

TRAIN = "image_link,group_id,entity_name,entity_value\n"
TEST = "index,image_link,group_id,entity_name\n"


def test_train_rows_are_numbered_where_the_file_has_no_index(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text(TRAIN + "l1,1,width,1 inch\n\nl2,2,height,2 inch\n")
    table = read_train_csv(file)
    assert [(row.position, row.index, row.image_link) for row in table.rows] == [(0, 0, "l1"), (1, 1, "l2")]


def test_an_index_column_in_train_is_kept_and_other_columns_are_ignored(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("colour,entity_value,index,image_link,group_id,entity_name\nred,1 inch,70,l1,1,width\n")
    (row,) = read_train_csv(file).rows
    assert (row.position, row.index, row.entity_value, row.group_id) == (0, 70, "1 inch", "1")


def test_what_looks_like_missing_stays_text(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text(TRAIN + "l1,NA,width,nan\n")
    (row,) = read_train_csv(file).rows
    assert (row.group_id, row.entity_value) == ("NA", "nan")


@pytest.mark.parametrize("name", ["train.csv.gz", "train.csv"])  # a gzip is known by its content
def test_a_gzip_is_read_like_the_file_in_it(tmp_path: Path, name: str) -> None:
    text = "\ufeff" + TRAIN + '"l,1",1,width,1 inch\r\n'
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    (row,) = read_train_csv(tmp_path / name).rows
    assert row.image_link == "l,1"


def test_urls_come_once_in_the_order_of_the_rows(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "a.csv", TRAIN_COLUMNS, [[url, 1, "width", "1 inch"] for url in "bab"])
    test = write_csv(tmp_path / "b.csv", TEST_COLUMNS, [[n, url, 1, "width"] for n, url in enumerate("ac")])
    tables = read_tables(TableOptions(str(train), str(test)))
    assert tables.urls() == ["b", "a", "c"]
    assert [row.image_link for row in tables.rows()] == ["b", "a", "b", "a", "c"]
    assert Tables(None, tables.test).urls() == ["a", "c"]


REFUSED = [
    (read_train_csv, b"", "is empty"),
    (read_train_csv, TRAIN.encode(), "a header but no rows"),
    (read_train_csv, b"url,group_id,entity_name\n1,2,3\n", "no column image_link, entity_value; expected image_link"),
    (read_test_csv, b"image_link,group_id,entity_name\nl,1,width\n", "no column index"),
    (read_train_csv, (TRAIN + "l,1,width,1 inch\nl,1,colour,red\n").encode(), "line 3: unknown entity_name 'colour'"),
    (read_train_csv, (TRAIN + "l,1,width\n").encode(), "line 2: has 3 fields, but the header has 4"),
    (read_train_csv, (TRAIN + 'l,1,width,"1" inch\n').encode(), "line 2: not a valid CSV"),
    (read_train_csv, b"\xff\xd8\xff\xe0" + bytes(range(256)), "is a JPEG image"),
    (read_train_csv, (TRAIN + "l,1,width,1 inch\n").encode() + b"\xe9,1,width,1 inch\n", "not UTF-8"),
    (read_train_csv, gzip.compress((TRAIN + "l,1,width,1 inch\n" * 9000).encode(), mtime=0)[:-20], "broken gzip"),
    (
        read_test_csv,
        (TEST + "1,l,1,width\n2,l,1,width\n1,l,1,width\n").encode(),
        "line 4: duplicate index 1 (first seen on line 2)",
    ),
    (read_test_csv, (TEST + "1.5,l,1,width\n").encode(), "line 2: index must be a whole number, got '1.5'"),
    (read_test_csv, (TEST + ",l,1,width\n").encode(), "line 2: index must be a whole number, got ''"),
    (read_test_csv, (TEST + f"{2**63},l,1,width\n").encode(), "line 2: index must be a whole number"),
]


@pytest.mark.parametrize(("read", "content", "complaint"), REFUSED, ids=[case[-1] for case in REFUSED])
def test_a_wrong_file_is_refused_with_its_name_and_line(
    tmp_path: Path, read: Callable[[Path], Table], content: bytes, complaint: str
) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        read(file)
    assert str(file) in str(refusal.value)
    assert complaint in str(refusal.value)


def test_a_missing_file_is_named_with_its_argument(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`test_csv` .*nowhere\.csv: no such file"):
        read_test_csv(tmp_path / "nowhere.csv")


def test_plain_text_under_the_name_of_a_gzip_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.csv.gz"
    file.write_text(TRAIN + "l,1,width,1 inch\n")
    with pytest.raises(InputError, match="is not gzip"):
        read_train_csv(file)


Labelled = tuple[str, str, str, str]  # a row of train.csv
# A NUL is refused: no text has it.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@pytest.mark.slow
@given(rows=st.lists(st.tuples(texts, texts, st.sampled_from(ENTITIES), texts), min_size=1, max_size=8))
def test_any_text_comes_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list[Labelled]) -> None:
    file = tmp_path_factory.getbasetemp() / "any.csv"
    write_csv(file, TRAIN_COLUMNS, [list(row) for row in rows])
    assert [row[2:] for row in read_train_csv(file).rows] == [(url.strip(), *others) for url, *others in rows]


# pandas does not quote a single carriage return, which no reader can distinguish from a line's end.
written = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)


@pytest.mark.slow
@given(
    rows=st.lists(st.tuples(written, written, st.sampled_from(ENTITIES), written), min_size=1, max_size=8),
    header=st.permutations([*TRAIN_COLUMNS, "index", "colour"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    lineterminator=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    compression=st.sampled_from([None, "gzip", "bz2", "xz", "zip"]),
    float_index=st.booleans(),  # as pandas writes a column that once had a gap
)
def test_what_pandas_writes_is_read_whatever_its_header_order_and_dialect(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Labelled],
    header: list[str],
    quoting: Any,
    lineterminator: str,
    encoding: str,
    compression: Any,
    float_index: bool,
) -> None:
    file = tmp_path_factory.getbasetemp() / "pandas.csv"
    frame = pd.DataFrame(rows, columns=TRAIN_COLUMNS, dtype=object).assign(index=range(7, 7 + len(rows)), colour="red")
    frame = frame.astype({"index": float}) if float_index else frame
    frame[header].to_csv(
        file, index=False, quoting=quoting, lineterminator=lineterminator, encoding=encoding, compression=compression
    )
    read = read_train_csv(file).rows
    assert [row[1:] for row in read] == [
        (7 + number, url.strip(), *others) for number, (url, *others) in enumerate(rows)
    ]


def test_the_row_labels_that_pandas_writes_unasked_do_not_matter(tmp_path: Path) -> None:
    frame = pd.DataFrame([["l", "1", "width", "1 inch"]], columns=TRAIN_COLUMNS, index=[5])
    frame.to_csv(tmp_path / "train.csv")  # with a first column without a name
    (row,) = read_train_csv(tmp_path / "train.csv").rows
    assert (row.index, row.image_link) == (0, "l")


@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: (TEST + text).encode())))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(content)
    with contextlib.suppress(InputError):
        rows = read_test_csv(file).rows
        expected = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
        assert [row.image_link for row in rows] == [row["image_link"].strip() for row in expected]
