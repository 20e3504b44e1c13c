"""Reports what two splits of a dataset share, and reads the rows of any dataset for it."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.placeholders import COLUMNS as IMAGE_COLUMNS
from dataset_builder.split import JOINING_COLUMNS, components
from product_vqa.dataset import ROWS_CONFIG, dataset_error, download_splits, find_splits
from product_vqa.hub import Location

COLUMNS = ("index", "image_link", "group_id", "entity_name", "entity_value")


@dataclass(frozen=True)
class Leak:
    """What two splits share. `split.components` defines a component: one product, as far as can be determined."""

    splits: tuple[str, str]
    components: int
    crossing: int  # components with rows in both splits
    rows_crossing: int  # their rows in the smaller split
    shared: dict[str, int]  # column -> how many of its values are in both splits
    crossing_if_random: int  # expected number if as many rows were drawn at random, one by one

    def __str__(self) -> str:
        values = ", ".join(f"{column} {count:,}" for column, count in self.shared.items())
        text = (
            f"{self.splits[0]} and {self.splits[1]} share {self.crossing:,} of {self.components:,} groups of related "
            f"rows ({self.rows_crossing:,} rows; equal values: {values})"
        )
        if "test" in self.splits:  # which is given, not drawn
            return text
        return f"{text}; a random split of the rows would divide about {self.crossing_if_random:,} groups"


def find_leaks(rows: pd.DataFrame) -> list[Leak]:
    """Compare every two splits. `rows` has the columns `split`, COLUMNS, and any of JOINING_COLUMNS."""
    return [_leak(rows, pair) for pair in combinations(rows["split"].unique(), 2)]


def check_split(leaks: list[Leak]) -> None:
    """Assert that no component is both in train and in validation, which `split.hold_out` guarantees."""
    for leak in leaks:
        assert leak.splits != ("train", "validation") or leak.crossing == 0, leak


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
        shared={column: _count_shared(rows[column], is_second) for column in JOINING_COLUMNS if column in rows},
        crossing_if_random=round(float((1 - share**size - (1 - share) ** size).sum())),
    )


def _count_shared(values: pd.Series, is_second: np.ndarray) -> int:
    """How many values are on both sides. Numbers stand for them: sets of a million hashes would take 200 MB."""
    codes, unique = pd.factorize(values)
    first, second = (np.zeros(len(unique), dtype=bool) for _ in range(2))
    first[codes[(codes >= 0) & ~is_second]] = True  # -1 is null
    second[codes[(codes >= 0) & is_second]] = True
    return int((first & second).sum())


def read_rows(location: Location) -> pd.DataFrame:
    """Read all rows of a dataset folder or repo, without the images, but with their sizes and hashes if known."""
    rows_files = find_splits(location, config=ROWS_CONFIG)
    wanted = [*COLUMNS, *(IMAGE_COLUMNS if rows_files else ())]
    files = download_splits(location, rows_files or find_splits(location))
    if not files:
        raise dataset_error(location, "it has no splits")
    try:
        frames = [
            _frame(pq.ParquetFile(file).read(columns=wanted).select(wanted)).assign(split=split)
            for split, paths in files.items()
            for file in paths
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:  # pyarrow's are ValueErrors
        raise dataset_error(location, error) from error
    return pd.concat(frames, ignore_index=True)


def _frame(table: pa.Table) -> pd.DataFrame:
    # By default, pandas turns integers with a gap into floats, and a 64-bit hash would lose its last bits.
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype()}.get)
