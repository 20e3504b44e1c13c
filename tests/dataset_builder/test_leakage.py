from pathlib import Path

import pandas as pd
import pytest

from dataset_builder.leakage import Leak, check_split, find_leaks, read_rows
from product_vqa.errors import InputError
from product_vqa.hub import locate


def rows_of(split: str, numbers: tuple[int, ...]) -> pd.DataFrame:
    """Rows 2 and 3 are neighbours with the same label. The image of a row is named by its number."""
    return pd.DataFrame(
        {
            "index": [10 * number for number in numbers],
            "image_link": [f"l{number}" for number in numbers],
            "group_id": "g",
            "entity_name": "width",
            "entity_value": ["2.0 inch" if number in (2, 3) else f"{number}0.0 inch" for number in numbers],
            "split": split,
        }
    )


def test_shared_urls_and_neighbours_are_found_without_any_hashes() -> None:
    (leak,) = find_leaks(
        pd.concat([rows_of("train", (0, 1, 2, 5, 6, 8)), rows_of("validation", (0, 1, 3, 7))], ignore_index=True)
    )
    # Three components of two rows, 4 of 10 rows drawn: each crosses with 1 - 0.4**2 - 0.6**2 = 0.48.
    assert leak == Leak(("train", "validation"), 7, 3, 3, {"image_link": 2}, crossing_if_random=1)


def test_hashes_that_differ_in_their_last_bit_are_different_though_a_row_has_none(tmp_path: Path) -> None:
    columns = {"index": [0], "group_id": ["g"], "entity_name": ["width"], "width": [9], "height": [9]}
    (tmp_path / "rows").mkdir()
    splits = ("train", "validation", "test")
    for number, split in enumerate(splits):
        phash = None if split == "test" else 2**62 + number
        row = columns | {"image_link": [split], "entity_value": [split], "sha256": [split], "phash": [phash]}
        pd.DataFrame(row).astype({"phash": "Int64"}).to_parquet(tmp_path / "rows" / f"{split}.parquet")
    files = "".join(f"  - split: {split}\n    path: rows/{split}.parquet\n" for split in splits)
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: rows\n  data_files:\n{files}---\n")
    rows = read_rows(locate(str(tmp_path), repo_type="dataset"))
    assert list(rows["split"]) == list(splits)
    assert [leak.crossing for leak in find_leaks(rows)] == [0, 0, 0]


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"not Parquet")
    with pytest.raises(InputError, match=str(tmp_path)):
        read_rows(locate(str(tmp_path), repo_type="dataset"))


@pytest.mark.parametrize(
    ("splits", "text"),
    [
        (
            ("train", "validation"),
            "train and validation share 1 of 2,000 groups of related rows (3 rows; equal values: image_link 1,234); "
            "a random split of the rows would divide about 40 groups",
        ),
        (
            ("train", "test"),
            "train and test share 1 of 2,000 groups of related rows (3 rows; equal values: image_link 1,234)",
        ),
    ],
)
def test_a_leak_reads_as_a_sentence(splits: tuple[str, str], text: str) -> None:
    assert str(Leak(splits, 2000, 1, 3, {"image_link": 1234}, 40)) == text


def test_a_component_in_train_and_validation_is_an_error_of_this_code_and_one_in_test_is_not() -> None:
    check_split([Leak(("train", "validation"), 2, 0, 0, {}, 1), Leak(("train", "test"), 2, 1, 1, {}, 1)])
    with pytest.raises(AssertionError, match="share 1 of 2"):
        check_split([Leak(("train", "validation"), 2, 1, 1, {}, 1)])
