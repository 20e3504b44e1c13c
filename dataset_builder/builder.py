"""`ProductVqa`, the dataset without the Hub: CSVs and images to splits, as `datasets` generates and caches them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

import product_vqa
from dataset_builder.csv_reader import read_tables
from dataset_builder.downloader import import_images, open_images
from dataset_builder.fingerprint import compute_fingerprint
from dataset_builder.image_dir import ImageDir
from dataset_builder.image_store import ImageStore
from dataset_builder.options import STATED, ImageOptions, ImageSourceOptions, SelectionOptions, TableOptions
from dataset_builder.output_folder import DROPPED_FILE, ROWS_FOLDER
from dataset_builder.row_filter import DatasetRow, check_labels, correct_labels
from dataset_builder.unanswered import choose_rows, schema_with
from dataset_builder.unanswered_sources import check_unanswered
from dataset_builder.writer import ROW_GROUP_ROWS, generate_examples, split_generators, write_dropped, write_rows
from product_vqa.schemas import save_schema
from product_vqa.task.features import FEATURES


@dataclass(eq=False)
class ProductVqaConfig(datasets.BuilderConfig):
    """Names the cache folder after the fingerprint: a CSV or an image can change under the same file name."""

    version: datasets.Version | str | None = product_vqa.__version__
    fingerprint: str = ""

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        return f"{self.name}-{self.fingerprint}"


class ProductVqa(datasets.GeneratorBasedBuilder):
    """`ProductVqa(train_csv=..., test_csv=..., image_dir=...)`, then `download_and_prepare()` and `as_dataset()`.

    Give one CSV or both, and the `schema` of their attributes unless they are the challenge's; `wide`, `columns`,
    `unit_spellings`, `unanswered` and `corrections` are as in `build`. Give the images in `image_dir`, or in an
    `image_store` that `download` made: nothing is downloaded here. Images of a folder are resized to `image_size`
    (default 448); those of a store have their size already. In `cache_dir`, `left_out.csv` lists the dropped rows with
    their reasons, and `rows/` has the rows without their images. Raises InputError for input that cannot be used.
    """

    BUILDER_CONFIG_CLASS = ProductVqaConfig
    DEFAULT_WRITER_BATCH_SIZE = ROW_GROUP_ROWS

    def __init__(
        self,
        *,
        train_csv: str | os.PathLike[str] | None = None,
        test_csv: str | os.PathLike[str] | None = None,
        schema: str | os.PathLike[str] | None = None,
        wide: bool = False,
        columns: str | None = None,
        image_dir: str | os.PathLike[str] | None = None,
        image_store: str | os.PathLike[str] | None = None,
        image_size: int | None = None,
        ranges: str = "leave_out",
        unit_spellings: bool = False,
        validation_size: float = 0.05,
        seed: int = 0,
        unanswered: float = 0.0,
        unanswered_from: str = STATED,
        unanswered_below: float = 0.1,
        corrections: Sequence[str | os.PathLike[str]] = (),
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._selection = SelectionOptions(
            ranges, unit_spellings, validation_size, seed, unanswered, unanswered_from, unanswered_below,
            [os.fspath(file) for file in corrections],
        )  # fmt: skip
        source = ImageSourceOptions(_path(image_dir), _path(image_store))
        self._images = open_images(source, image_size=image_size)
        tables = read_tables(TableOptions(_path(train_csv), _path(test_csv), _path(schema), wide, columns))
        self._tables = correct_labels(tables, self._selection)
        check_labels(self._tables, self._selection)
        check_unanswered(self._selection, self._tables)
        if isinstance(self._images, ImageStore):
            self._image_size = self._images.image_size
        else:
            self._image_size = ImageOptions().image_size if image_size is None else image_size
        fingerprint = compute_fingerprint(
            self._tables, self._images, image_size=self._image_size, selection=self._selection
        )
        super().__init__(cache_dir=_path(cache_dir), dataset_name="product_vqa", fingerprint=fingerprint)

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES)

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        store = self._images
        if isinstance(store, ImageDir):
            image_dir, store = store, ImageStore.temporary(self._cache_dir_root, image_size=self._image_size)
            import_images(store, self._tables.urls(), image_dir)
        images, failures = store.find(self._tables.urls())
        filtered, splits, unanswered = choose_rows(self._tables, images, failures, selection=self._selection)
        # datasets renames the folder to cache_dir once it is complete. When rows are streamed, there is no folder.
        folder = Path(self._output_dir)
        if folder.is_dir():
            write_dropped(filtered.dropped, folder / DROPPED_FILE)
            write_rows(splits, folder / ROWS_FOLDER)
            save_schema(schema_with(self._tables.schema, unanswered), folder)
        return split_generators(splits, store)

    def _generate_examples(
        self, rows: tuple[DatasetRow, ...], store: ImageStore
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        return generate_examples(rows, store)


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
