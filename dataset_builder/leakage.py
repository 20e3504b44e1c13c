"""What two splits of a dataset share that they must not: the report, and the rows that it is made from."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.placeholders import COLUMNS as IMAGE_COLUMNS
from dataset_builder.split import LIKENESS, components
from product_vqa.dataset import fetch_splits, find_splits, not_built_here
from product_vqa.hub import Location
from product_vqa.task.features import SPLITS

ROWS_CONFIG = "rows"  # the dataset without its pictures, but with their hashes
COLUMNS = ("index", "image_link", "group_id", "entity_name", "entity_value")


@dataclass(frozen=True)
class Leak:
    """What joins two splits. A component is what `split.components` says: one product, as far as can be told."""

    splits: tuple[str, str]
    components: int
    crossing: int  # components with rows in both splits
    rows_crossing: int  # rows of the smaller split in them
    shared: dict[str, int]  # column -> its values that stand in both splits
    crossing_if_random: int  # as many as are to be expected where rows of the same number are drawn one by one

    def __str__(self) -> str:
        shared = ", ".join(f"{column} {count:,}" for column, count in self.shared.items())
        text = (
            f"{self.splits[0]} and {self.splits[1]}: {self.crossing:,} of {self.components:,} components cross, with "
            f"{self.rows_crossing:,} rows (equal values: {shared})"
        )
        if "test" in self.splits:  # which nobody draws
            return text
        return f"{text}; of as many rows drawn one by one about {self.crossing_if_random:,} would"


def find_leaks(rows: pd.DataFrame) -> list[Leak]:
    """One for every two splits; `rows` has the columns `split`, COLUMNS and those of LIKENESS that are known."""
    return [_leak(rows, pair) for pair in combinations(rows["split"].unique(), 2)]


def _leak(rows: pd.DataFrame, pair: tuple[str, str]) -> Leak:
    rows = rows[rows["split"].isin(pair)].reset_index(drop=True)
    is_second = (rows["split"] == pair[1]).to_numpy()
    component = components(rows)
    size = np.bincount(component)
    num_second = np.bincount(component, weights=is_second).astype(int)
    crosses = (num_second > 0) & (num_second < size)
    in_smaller = num_second if is_second.mean() <= 0.5 else size - num_second
    share = is_second.mean()
    return Leak(
        splits=pair,
        components=len(size),
        crossing=int(crosses.sum()),
        rows_crossing=int(in_smaller[crosses].sum()),
        shared={
            column: len(set(rows[column][is_second].dropna()) & set(rows[column][~is_second].dropna()))
            for column in LIKENESS
            if column in rows
        },
        crossing_if_random=round(float((1 - share**size - (1 - share) ** size).sum())),
    )


def rows_of_folder(folder: Path) -> pd.DataFrame:
    """The rows that a build wrote, from its folder of Parquet files, one a split."""
    columns = [*COLUMNS, *IMAGE_COLUMNS]
    files = [file for split in SPLITS if (file := folder / f"{split}.parquet").is_file()]
    return pd.concat(
        [_frame(pq.read_table(file, columns=columns)).assign(split=file.stem) for file in files], ignore_index=True
    )


def _frame(table: pa.Table) -> pd.DataFrame:
    # Else pandas makes floats of a column with a gap, and two 64-bit hashes that differ in their last ten bits equal.
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}.get)


def read_rows(location: Location) -> pd.DataFrame:
    """All rows of a dataset folder or repo, without the images; with their sizes and hashes where it has them."""
    rows_files = find_splits(location, config=ROWS_CONFIG)
    wanted = [*COLUMNS, *(IMAGE_COLUMNS if rows_files else ())]
    files = fetch_splits(location, rows_files or find_splits(location))
    if not files:
        raise not_built_here(location, "it has no splits")
    try:
        frames = [
            _frame(pq.ParquetFile(file).read(columns=wanted).select(wanted)).assign(split=split)
            for split, paths in files.items()
            for file in paths
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:  # pyarrow's are ValueErrors
        raise not_built_here(location, error) from error
    return pd.concat(frames, ignore_index=True)
