"""What two splits of a dataset share that they must not: the report, and the rows that it is made from."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.placeholders import COLUMNS as IMAGE_COLUMNS
from dataset_builder.split import LIKENESS, components
from product_vqa.command import InputError, first_line
from product_vqa.hub import Location, explained
from product_vqa.schema import SPLITS

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


def read_rows(location: Location, *, flag: str) -> pd.DataFrame:
    """All rows of a dataset folder or repo, without the images; with their sizes and hashes where it has them."""
    with explained(location.name, flag=flag, repo_type="dataset", revision=location.revision):
        try:
            configs = datasets.get_dataset_config_names(location.name, revision=location.revision)
            config = ROWS_CONFIG if ROWS_CONFIG in configs else None
            wanted = [*COLUMNS, *(IMAGE_COLUMNS if config else ())]
            splits = datasets.load_dataset(
                location.name, config, revision=location.revision, streaming=True, columns=wanted
            )
            frames = []
            for split, stream in splits.items():
                tables = list(stream.with_format("arrow").iter(batch_size=10_000))
                frames.append(pd.concat(map(_frame, tables)).assign(split=str(split)))
        except (datasets.exceptions.DatasetNotFoundError, FileNotFoundError, ValueError, TypeError) as error:
            raise InputError(
                f"{flag} {location} is no dataset that dataset_builder.build made: {first_line(error)}"
            ) from error
    return pd.concat(frames, ignore_index=True)
