"""The builder: CSVs and pictures -> splits, as `datasets` generates and caches them."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

import product_vqa
from dataset_builder.csv_reader import Table, links_of, read_tables
from dataset_builder.downloader import fill_from_folder
from dataset_builder.image_preparation import ImageFolder
from dataset_builder.image_store import ImageStore, count_reasons
from dataset_builder.labels import RANGE_POLICIES
from dataset_builder.options import PictureOptions, TableOptions
from dataset_builder.row_filter import LEFT_OUT_FILE, Selected, Selection, select_rows, write_left_out
from product_vqa.errors import InputError
from product_vqa.task.features import FEATURES, SPLITS

logger = logging.getLogger(__name__)
# Part of every build's fingerprint, so that an earlier build is not taken for this one. Raise it with every change of
# this code after which the same input gives other rows or other images: of the split, of what a label becomes, of the
# columns, of how an image is stored.
FORMAT_VERSION = 2
_IMAGE_LIBRARIES = ("pillow", "cykooz-resizer", "imagehash")  # another version may decode, resize or hash otherwise
ROWS_FOLDER = "rows"  # the rows without their pictures, one Parquet file a split
# What the store knows of a picture, beside the row's own columns.
_PICTURE_COLUMNS = {
    "num_bytes": pa.int64(), "width": pa.int32(), "height": pa.int32(), "sha256": pa.string(), "phash": pa.int64(),
}  # fmt: skip


@dataclass(eq=False)
class ProductVqaConfig(datasets.BuilderConfig):
    version: datasets.Version | str | None = product_vqa.__version__
    train_csv: str | None = None
    test_csv: str | None = None
    image_dir: str | None = None
    image_store: str | None = None
    image_size: int | None = None
    ranges: str = "leave_out"
    validation_size: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.validation_size < 1:
            raise InputError(
                f"--validation_size must be a share from 0 up to (not including) 1, got {self.validation_size}"
            )
        if self.ranges not in RANGE_POLICIES:
            raise InputError(f"--ranges must be one of {', '.join(RANGE_POLICIES)}, got {self.ranges}")
        if (self.image_dir is None) == (self.image_store is None):
            raise InputError("where are the pictures? give --image_dir FOLDER or --image_store FOLDER, one of the two")
        self.folder = ImageFolder(self.image_dir) if self.image_dir else None
        self.store = ImageStore(self.image_store, image_size=self.image_size) if self.image_store else None
        if self.image_size is None:
            self.image_size = (self.store or PictureOptions()).image_size
        self.tables: tuple[Table | None, Table | None] = read_tables(TableOptions(self.train_csv, self.test_csv))

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        # datasets would take the file names; a CSV or a picture can change beneath its name.
        return f"{self.name}-{self.fingerprint}"

    @cached_property
    def fingerprint(self) -> str:
        """Equal where the built rows would be: by the content of the CSVs, the images, the options, FORMAT_VERSION,
        and the libraries that read the images of a folder (a store's images were read before)."""
        train, test = self.tables
        parts = [
            repr((train and (train.name, train.sha256), test and (test.name, test.sha256))),
            repr((self.image_size, self.ranges, float(self.validation_size), self.seed, FORMAT_VERSION)),
            (self.folder or self.store).fingerprint(),
            repr([(name, _version(name)) for name in _IMAGE_LIBRARIES] if self.folder else []),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # the resizer, where there is no wheel
        return None


class ProductVqa(datasets.GeneratorBasedBuilder):
    """`ProductVqa(train_csv=..., test_csv=..., image_dir=...)`, then `download_and_prepare()` and `as_dataset()`.

    Either CSV may be left out; the pictures come from `image_dir` or from an `image_store` that
    `python -m dataset_builder.download` has filled: nothing is fetched here. Those of a folder are fitted to
    `image_size` (default 448) on the way, those of a store were when they entered it. What is left out, and why, is in
    `left_out.csv` in `cache_dir`, and the rows without their pictures in `rows/`.
    """

    BUILDER_CONFIG_CLASS = ProductVqaConfig
    DEFAULT_WRITER_BATCH_SIZE = 100  # rows held in memory, with the bytes of their pictures; and in a row group

    def __init__(
        self,
        *,
        train_csv: str | os.PathLike[str] | None = None,
        test_csv: str | os.PathLike[str] | None = None,
        image_dir: str | os.PathLike[str] | None = None,
        image_store: str | os.PathLike[str] | None = None,
        image_size: int | None = None,
        ranges: str = "leave_out",
        validation_size: float = 0.05,
        seed: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        paths = {"train_csv": train_csv, "test_csv": test_csv, "image_dir": image_dir, "image_store": image_store}
        super().__init__(
            cache_dir=None if cache_dir is None else os.fspath(cache_dir),
            dataset_name="product_vqa",
            **{name: None if path is None else os.fspath(path) for name, path in paths.items()},
            image_size=image_size,
            ranges=ranges,
            validation_size=validation_size,
            seed=seed,
        )

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        config = self.config
        self.store = config.store or self._store_from_folder()
        self.selection = select_rows(
            *config.tables,
            store=self.store,
            validation_size=config.validation_size,
            seed=config.seed,
            ranges=config.ranges,
        )
        # The folder becomes cache_dir once it is whole; where rows are streamed there is none.
        if os.path.isdir(self._output_dir):
            write_left_out(self.selection.left_out, f"{self._output_dir}/{LEFT_OUT_FILE}")
            self._write_rows(f"{self._output_dir}/{ROWS_FOLDER}")
        _log(self.selection)
        # Rows in a tuple: datasets would hand out a list to several processes, and an open store stays in its own.
        return [
            datasets.SplitGenerator(split, gen_kwargs={"rows": self.selection.rows_by_split[split]})
            for split in SPLITS
            if split in self.selection.rows_by_split
        ]

    def _store_from_folder(self) -> ImageStore:
        self._temporary = tempfile.TemporaryDirectory(dir=self._made_cache_dir(), prefix="pictures-")
        store = ImageStore(self._temporary.name, image_size=self.config.image_size)
        fill_from_folder(store, links_of(*self.config.tables), self.config.folder)
        return store

    def _made_cache_dir(self) -> str:
        os.makedirs(self._cache_dir_root, exist_ok=True)
        return self._cache_dir_root

    def _write_rows(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        fields = {name: feature.pa_type for name, feature in FEATURES.items() if name != "image"} | _PICTURE_COLUMNS
        for split, rows in self.selection.rows_by_split.items():
            with pq.ParquetWriter(f"{folder}/{split}.parquet", pa.schema(fields)) as writer:
                for start in range(0, len(rows), 10_000):
                    values = [
                        _columns(selected) | {name: getattr(state, name) for name in _PICTURE_COLUMNS}
                        for selected in rows[start : start + 10_000]
                        for state in [self.store.state(selected.row.image_link)]
                    ]
                    writer.write_table(pa.Table.from_pylist(values, schema=writer.schema))

    def _generate_examples(self, rows: tuple[Selected, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, selected in enumerate(rows):
            # The bytes as they are, and no path: Image would take a file of that name in the working directory for
            # the picture and forget the bytes.
            image = self.store.read(selected.row.image_link) if selected.has_picture else None
            yield number, _columns(selected) | {"image": image}


def _columns(selected: Selected) -> dict[str, Any]:
    row = selected.row
    return {
        "index": row.index,
        "image_link": row.image_link,
        "group_id": row.group_id,
        "entity_name": row.entity_name,
        "entity_value": selected.label,
        "entity_value_raw": row.entity_value,
    }


def _log(selection: Selection) -> None:
    for what, message in (("row", "rows of train left out"), ("image", "rows of test without an image")):
        reasons = count_reasons(left_out.reason for left_out in selection.left_out if left_out.what == what)
        if reasons:
            counts = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
            logger.warning("%s %s: %s", reasons.total(), message, counts)
    if selection.oversize:
        logger.warning(
            "%s components of %s rows stay in train, each too large to be held out; the largest: %s rows, like %s",
            len(selection.oversize), sum(part.rows for part in selection.oversize),
            selection.oversize[0].rows, selection.oversize[0].example,
        )  # fmt: skip
