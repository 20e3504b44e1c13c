"""The rows of several files: which there are, in which order, and what is known about them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from product_vqa.errors import InputError
from product_vqa.task.schema import ENTITIES
from tests.inference.challenge import join_rows


def table(*indexes: int, **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"index": np.array(indexes, int), **columns})


def names(entities: np.ndarray) -> list[str]:
    return [(*ENTITIES, "?")[entity] for entity in entities]


def test_the_rows_of_all_files_are_sorted_by_index() -> None:
    rows = join_rows({"a.csv": table(7, 3), "b.csv": table(3, 5)})
    assert list(rows.indexes) == [3, 5, 7]
    assert list(rows.positions(pd.Series([7, 4, 3]))) == [2, -1, 0]
    assert list(rows.take(np.array([2, 0])).indexes) == [7, 3]
    assert list(join_rows({"a.csv": table(), "b.csv": table(3)}).indexes) == [3]
    assert list(join_rows({"a.csv": table(4), "b.csv": table(3)}).indexes) == [3, 4], "parts of one split"


def test_test_csv_has_the_rows_and_their_order(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text(
        "index,image_link,entity_name\n9,http://x/9,width\n2,http://x/2, height\n5,,depth\n"
    )
    rows = join_rows({"a.csv": table(2), "b.csv": table(5)}, test_csv=tmp_path / "test.csv")
    assert list(rows.indexes) == [9, 2, 5]
    assert names(rows.entities) == ["width", "height", "depth"]
    assert list(rows.image_links) == ["http://x/9", "http://x/2", ""]
    with pytest.raises(InputError, match=r"`predictions` a.csv: 1 of 2 indexes, for example 4, are not in `test_csv`"):
        join_rows({"a.csv": table(2, 4)}, test_csv=tmp_path / "test.csv")


def test_each_file_adds_what_it_knows() -> None:
    tables = {
        "a.parquet": table(1, 2, 3, entity_name=["width", "", ""], image_link=["u", "", ""]),
        "b.parquet": table(1, 2, 3, entity_name=["width", "depth", ""], image_link=["other", "v", ""]),
    }
    rows = join_rows(tables, labels=table(3, 9, entity_name=["voltage", "width"], image_link=["3", "9"]))
    assert names(rows.entities) == ["width", "depth", "voltage"]
    assert list(rows.image_links) == ["u", "v", ""], "the labels' own may be numbers"
    assert list(join_rows({"a.csv": table(1)}).entities) == [len(ENTITIES)]


def test_files_about_different_rows_are_refused() -> None:
    tables = {"a.csv": table(1, 2, entity_name=["width", "width"])}
    tables = {"b.csv": table(1, 2), "c.csv": table(2, entity_name=[" "]), **tables}
    with pytest.raises(InputError, match=r"^`references`: index 2 is about depth, but about width in a.csv; are"):
        join_rows(tables, labels=table(2, entity_name=["depth"]))
    with pytest.raises(InputError, match=r"a.csv: unknown entity_name 'colour'; expected one of width,"):
        join_rows({"a.csv": table(1, entity_name=["colour"])})
    with pytest.raises(InputError, match="`predictions`: no rows"):
        join_rows({"a.csv": table()})
