"""Writes the rows of a dataset: Parquet with and without the images, and the list of dropped rows."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.output_folder import DROPPED_FILE, ROWS_FOLDER
from dataset_builder.row_filter import DatasetRow, Dropped
from dataset_builder.shard_images import StoredImages
from dataset_builder.split import Splits
from dataset_builder.stored_image import StoredImage
from product_vqa.quoting import write_cells
from product_vqa.tables.rows import Row
from product_vqa.task.features import FEATURES

MAX_SHARD_BYTES = 500 * 1024**2
ROW_GROUP_ROWS = 100  # also the number of rows, with the bytes of their images, that are held in memory
# Parquet's metadata has the smallest and the largest value of each row group, unless they are longer than this. The
# writer holds it until the end of the file: with images of 1 kB, 0.4 kB for each row in row groups of 100.
MAX_STATISTICS_BYTES = 4096
SMALL_IMAGES_ROW_GROUP_ROWS = 1000
_IMAGE_COLUMNS = {
    "num_bytes": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "sha256": pa.string(),
    "phash": pa.int64(),
}
assert tuple(_IMAGE_COLUMNS) == StoredImage.FIELDS
WRITE_ERRORS = (datasets.exceptions.DatasetsError, pa.ArrowException)  # that the libraries raise, next to OSError


def write_dataset(splits: Splits, store: StoredImages, dropped: Collection[Dropped], folder: Path) -> dict[str, Any]:
    """Write `data/`, `rows/` and `left_out.csv` to `folder`, which must not exist yet.

    Returns the `dataset_info` for the card's metadata: the columns, and the rows and bytes of each split.
    """
    builder = _ShardBuilder(
        splits,
        store,
        cache_dir=str(folder.with_name(f"{folder.name}-cache")),
        dataset_name="product_vqa",
        writer_batch_size=_row_group_rows(splits),
    )
    builder.download_and_prepare(str(folder), file_format="parquet", max_shard_size=MAX_SHARD_BYTES)
    (folder / datasets.config.DATASET_INFO_FILENAME).unlink()  # the card contains the same
    data = folder / "data"
    data.mkdir()
    for file in folder.glob(f"{builder.dataset_name}-*.parquet"):
        name = file.stem.removeprefix(f"{builder.dataset_name}-")
        name = name if "-of-" in name else f"{name}-00000-of-00001"  # datasets does not number a single shard
        file.rename(data / f"{name}.parquet")
    write_rows(splits, folder / ROWS_FOLDER)
    write_dropped(dropped, folder / DROPPED_FILE)
    info = datasets.DatasetInfo(
        features=builder.info.features,
        splits=builder.info.splits,
        download_size=sum(file.stat().st_size for file in data.iterdir()),
        dataset_size=builder.info.dataset_size,
    )
    card_data: dict[str, Any] = {}
    datasets.info.DatasetInfosDict(default=info).to_dataset_card_data(card_data)
    dataset_info: dict[str, Any] = card_data["dataset_info"]
    return dataset_info


class _ShardBuilder(datasets.GeneratorBasedBuilder):
    """Writes splits with their images as `datasets` does, in shards of a bounded size."""

    def __init__(self, splits: Splits, store: StoredImages, **options: Any) -> None:
        super().__init__(**options)
        self._splits = splits
        self._store = store

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return split_generators(self._splits, self._store)

    def _generate_examples(
        self, rows: tuple[DatasetRow, ...], store: StoredImages
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        return generate_examples(rows, store)


def _row_group_rows(splits: Splits) -> int:
    """More rows in a row group where images are small."""
    sizes = [one.image.num_bytes for rows in splits.rows.values() for one in rows if one.image is not None]
    return SMALL_IMAGES_ROW_GROUP_ROWS if sum(sizes) < MAX_STATISTICS_BYTES * len(sizes) else ROW_GROUP_ROWS


def split_generators(splits: Splits, store: StoredImages) -> list[datasets.SplitGenerator]:
    """What `_split_generators` of a builder returns for these splits."""
    # Rows in a tuple: datasets would divide a list among processes, and an open store belongs to one process.
    return [
        datasets.SplitGenerator(split, gen_kwargs={"rows": rows, "store": store})
        for split, rows in splits.rows.items()
    ]


def generate_examples(rows: tuple[DatasetRow, ...], store: StoredImages) -> Iterator[tuple[int, dict[str, Any]]]:
    """What `_generate_examples` of a builder yields for the rows of a split."""
    # Bytes without a path: given a path, `Image` would read a file of that name in the working directory.
    for number, selected in enumerate(rows):
        image = None if selected.image is None else store.read_image(selected.image)
        yield number, _columns(selected) | {"image": image}


def write_rows(splits: Splits, folder: Path) -> None:
    """Write the rows without their images, but with the sizes and hashes of these: one Parquet file per split."""
    folder.mkdir(exist_ok=True)
    columns = {name: feature.pa_type for name, feature in FEATURES.items() if name != "image"}
    schema = pa.schema(columns | _IMAGE_COLUMNS)
    no_image = dict.fromkeys(_IMAGE_COLUMNS)
    for split, rows in splits.rows.items():
        with pq.ParquetWriter(folder / f"{split}.parquet", schema) as writer:
            for start in range(0, len(rows), 10_000):
                values = [
                    _columns(selected) | (selected.image.as_dict() if selected.image else no_image)
                    for selected in rows[start : start + 10_000]
                ]
                writer.write_table(pa.Table.from_pylist(values, schema=schema))


def write_dropped(dropped: Collection[Dropped], file: Path) -> None:
    """Write one line per dropped row or missing image, with the columns of its CSV. `row` counts rows from 0.

    A text that a spreadsheet could run as a formula begins with an apostrophe (`product_vqa.quoting`).
    """
    with file.open("w", newline="", encoding="utf-8") as stream:
        write_cells(stream, [("left_out", "reason", "file", "row", *Row._fields[1:])])
        write_cells(stream, ((what, reason, name, *row) for what, name, row, reason in dropped))


def _columns(selected: DatasetRow) -> dict[str, Any]:
    row = selected.row
    return {
        "index": row.index,
        "image_link": row.image_link,
        "group_id": row.group_id,
        "entity_name": row.entity_name,
        "entity_value": selected.label,
        "entity_value_raw": row.entity_value,
    }
