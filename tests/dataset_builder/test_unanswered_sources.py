from pathlib import Path

import pytest

from dataset_builder.options import SelectionOptions
from dataset_builder.unanswered_sources import check_unanswered, describe, read_file
from product_vqa.errors import InputError
from product_vqa.tables.rows import Row, Table
from tests.dataset_builder.challenge import Tables

HEADER = "image_link,entity_name,shown\n"


def options(file: Path | str, *, below: float = 0.1) -> SelectionOptions:
    return SelectionOptions(unanswered=0.3, unanswered_from=str(file), unanswered_below=below)


def test_the_highest_probability_of_a_question_counts(tmp_path: Path) -> None:
    file = tmp_path / "shown.csv"
    file.write_text(f"{HEADER} a ,width,0.01\na,width,0.05\nb,width,0.01\nb,width,0.2\nc,width,\nd,width,0.1\n")
    assert read_file(options(file)) == {("a", "width")}  # that of d is not below 0.1, and c could not be read
    assert read_file(options(file, below=0.3)) == {("a", "width"), ("b", "width"), ("d", "width")}


@pytest.mark.parametrize("text", ["1.01", "-0.1", "likely", "nan"])
def test_what_is_not_a_probability_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "shown.csv"
    file.write_text(f"{HEADER}a,width,0.5\nb,width,{text}\n")
    with pytest.raises(InputError, match=r"shown.csv, line 3: shown must be a probability from 0 to 1"):
        read_file(options(file))


def test_a_file_that_is_separated_by_tabs_says_so(tmp_path: Path) -> None:
    file = tmp_path / "shown.csv"
    file.write_text(f"{HEADER}a,width,0.5\n".replace(",", "\t"))
    with pytest.raises(InputError, match=r"shown.csv: its columns are separated by tabs, .*; save it with commas"):
        describe(options(file))


def test_a_file_is_described_by_its_name_and_content(tmp_path: Path) -> None:
    file = tmp_path / "shown.csv"
    file.write_text(f"{HEADER}a,width,0.5\n")
    described = describe(options(file))
    assert (described["from"], described["share"], described["below"]) == ("shown.csv", 0.3, 0.1)
    file.write_text(f"{HEADER}a,width,0.6\n")
    assert describe(options(file))["sha256"] != described["sha256"]
    assert describe(SelectionOptions()) == {}
    assert describe(SelectionOptions(unanswered=0.3)) == {"share": 0.3, "from": "stated"}


def test_labels_that_state_nothing_are_refused_before_the_download() -> None:
    table = Table("train.csv", "0", (Row(0, 0, "a", "g", "width", "1 inch"),))
    with pytest.raises(InputError, match="no row of `train_csv` with an image has an empty entity_value"):
        check_unanswered(SelectionOptions(unanswered=0.3), Tables(table, None))
    check_unanswered(SelectionOptions(unanswered=0.3, unanswered_from="labels"), Tables(table, None))
    check_unanswered(SelectionOptions(), Tables(None, table))
