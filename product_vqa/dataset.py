"""Load single splits of a built dataset, from a folder or from a repo at a commit.

The dataset may be a stranger's. Its card chooses among the Parquet files of the dataset itself, and nothing else in it
counts: no URL or path, in the card or in a row, is ever opened. The Parquet files are checked before they are read,
and their texts before they are used.
"""

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetsError
from datasets.table import Table

from product_vqa.cards import CARD_FILE
from product_vqa.documents import DocumentError, parse_front_matter, read_bytes
from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location, download, find_file, list_files, measure_download
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.quoting import one_line
from product_vqa.schemas import load_schema
from product_vqa.task.attributes import Schema
from product_vqa.task.columns import SPLITS
from product_vqa.task.features import FEATURES

ROWS_CONFIG = "rows"  # the configuration of the card that has all columns but the images
OCR_CONFIG = "ocr"  # that with the texts of the images, if the dataset has them
MAX_CARD_BYTES = 2 * 1024**2
MAX_PATTERNS = 10_000  # of files, in a card
MAX_TEXT_BYTES = 64 * 1024  # of a URL, a label, a group
_TEXT = ("BYTE_ARRAY",)
COLUMNS = {  # their types, by their paths in a Parquet file
    "index": ("INT64", "INT32"),
    "image.bytes": _TEXT,
    "image.path": _TEXT,
    **{name: _TEXT for name in FEATURES if name not in ("index", "image")},
}
ENTITY_COLUMN = {"entity_name": _TEXT}
STORED_FEATURES = Features({**FEATURES, "image": Image(decode=False)})
# What pyarrow and datasets raise for a damaged file, in addition to their own errors.
DAMAGED = (
    pa.ArrowException, DatasetsError, OSError, ValueError, TypeError, KeyError, AttributeError, IndexError,
    NotImplementedError, OverflowError, RecursionError, MemoryError,
)  # fmt: skip


def load_splits(location: Location, splits: list[str]) -> dict[str, Dataset]:
    """Load those of `splits` that exist. Only their files are downloaded; `load_dataset` would download all.

    Images are not decoded; `product_vqa.images.as_image` decodes them from their bytes. Only the columns of
    a built dataset are read. Raises InputError if there is no dataset, its columns differ, a file or a text in it is
    damaged, or it stores paths instead of images.
    """
    found = find_splits(location)
    files = download_splits(location, {split: found[split] for split in splits if split in found})
    if not files:
        return {}
    for split, paths in files.items():
        for path, name in zip(paths, found[split], strict=True):
            _check_file(path, name, location=location, split=split)
    try:
        loaded = load_dataset("parquet", **_parquet_arguments(files))
    except DAMAGED as error:
        raise dataset_error(location, error) from error
    schema = load_schema(location)
    for split, dataset in loaded.items():
        check_rows(dataset.data, name=f"{location}: split {split}", schema=schema)
    return dict(loaded)


def _parquet_arguments(files: Mapping[str, list[Path]]) -> dict[str, Any]:
    """Return the arguments with which `datasets` reads the files of each split."""
    return {
        # The name of a folder may look like a pattern: `runs [2]`.
        "data_files": {split: [glob.escape(str(file)) for file in paths] for split, paths in files.items()},
        "columns": list(STORED_FEATURES),
        "features": STORED_FEATURES,
    }


def measure_splits(location: Location, splits: Sequence[str]) -> tuple[int, int]:
    """Return how many bytes `load_splits` will download, and how many it will write as Arrow to the cache."""
    found = {split: names for split, names in find_splits(location).items() if split in splits}
    patterns = _patterns(found)
    if not patterns:
        return 0, 0
    size = measure_download(location, patterns=patterns, repo_type="dataset")
    if size.missing == 0:
        files = download_splits(location, found)
        with suppress(*DAMAGED):  # `load_splits` explains them
            if Path(load_dataset_builder("parquet", **_parquet_arguments(files)).cache_dir).exists():
                return 0, 0
    return size.missing, size.total  # Parquet does not compress images, nor does Arrow


def _check_file(file: Path, name: str, *, location: Location, split: str) -> None:
    """Raise InputError unless the file has the columns of a built dataset and can be read within the limits."""
    try:
        present = check_parquet(file, COLUMNS)
    except (ParquetError, OSError) as error:
        raise dataset_error(location, f"{name}: {first_line(error)}") from error
    check_columns(present, location=location, split=split)


def check_columns(present: Sequence[str], *, location: Location, split: str) -> None:
    """Raise InputError unless these paths of columns of a file have those of a built dataset among them."""
    tops = list(dict.fromkeys(path.partition(".")[0] for path in present))
    missing = [column for column in FEATURES if column not in tops]
    if missing or not {"image.bytes", "image.path"} <= set(present):
        raise InputError(
            f"{location}: split {split} has no {', '.join(missing) or 'images in its column `image`'}; its columns "
            f"are {', '.join(one_line(top) for top in tops)[:500]}. Build the dataset with dataset_builder.build"
        )


def check_rows(table: pa.Table | Table, *, name: str, schema: Schema) -> None:
    """Raise InputError, with the index of the row, if a row of the table holds what no dataset of the schema does."""
    indexes = table.column("index")
    if indexes.null_count:
        raise InputError(f"{name}: the index of row {_first(pc.is_null(indexes))} is null (rows are counted from 0)")

    def refuse(row: int, what: str) -> InputError:
        return InputError(f"{name}: {what.replace('INDEX', f'index {indexes[row].as_py()}')}")

    for column in (column for column in FEATURES if column not in ("index", "image")):
        values = table.column(column)
        _check_texts(values, column, refuse)
        if values.null_count:
            raise refuse(_first(pc.is_null(values)), f"the {column} of INDEX is null")
    _check_images(table.column("image"), refuse)
    entities = table.column("entity_name")
    for unknown in pc.unique(entities).to_pylist():
        if unknown not in schema.attributes:
            row = pc.index(entities, unknown).as_py()
            known = ", ".join(schema.names)
            raise refuse(row, f"the entity_name of INDEX is {unknown[:50]!r}; expected one of {known}")


def _check_texts(values: pa.ChunkedArray, column: str, refuse: Callable[[int, str], InputError]) -> None:
    row = 0
    for chunk in values.chunks:
        try:
            chunk.validate(full=True)
        except pa.ArrowInvalid:
            raise refuse(row + _first_not_utf8(chunk), f"the {column} of INDEX is not UTF-8 text") from None
        lengths = pc.binary_length(chunk)
        if (pc.max(lengths).as_py() or 0) > MAX_TEXT_BYTES:
            longest = pc.index(lengths, pc.max(lengths)).as_py()
            raise refuse(
                row + longest, f"the {column} of INDEX has {lengths[longest]} bytes, more than {MAX_TEXT_BYTES}"
            )
        row += len(chunk)


def _first_not_utf8(chunk: pa.Array) -> int:
    for row, value in enumerate(chunk.cast(pa.binary())):
        try:
            (value.as_py() or b"").decode()
        except UnicodeDecodeError:
            return row
    raise AssertionError


def _check_images(column: pa.ChunkedArray, refuse: Callable[[int, str], InputError]) -> None:
    """Raise InputError if an image is only a path. It could point anywhere on this machine, or to a server."""
    paths = pa.chunked_array([chunk.field("path") for chunk in column.chunks], type=pa.string())
    _check_texts(paths, "path of the image", refuse)
    row = _first(pc.and_(pc.is_valid(column), pc.is_null(pc.struct_field(column, "bytes"))))
    if row != -1:
        path = column[row]["path"].as_py()
        raise refuse(
            row,
            f"the image of INDEX is only a path ({path if path is None else path[:200]!r}); "
            "build the dataset with dataset_builder.build, which stores the images themselves",
        )


def _first(is_so: pa.ChunkedArray) -> int:
    return int(pc.index(is_so, True).as_py())


def load_split(location: Location, split: str) -> Dataset:
    """Load one split. Raises InputError if the dataset does not have it."""
    splits = load_splits(location, [split])
    if split not in splits:
        raise InputError(f"{location} has no split {split!r}")
    return splits[split]


def find_rows(location: Location, split: str) -> dict[str, list[str]]:
    """Find the files with the rows of a split: those without images if the dataset has them.

    Raises InputError if there is no such split.
    """
    files = find_splits(location, config=ROWS_CONFIG).get(split) or find_splits(location).get(split)
    if not files:
        raise InputError(f"{location} has no split {split!r}")
    return {split: files}


def count_row_groups(location: Location, split: str) -> list[int]:
    """Return the number of rows of each row group of a split that `load_splits` has loaded."""
    files = download_splits(location, {split: find_splits(location)[split]})[split]
    metadata = [pq.read_metadata(file) for file in files]
    return [one.row_group(number).num_rows for one in metadata for number in range(one.num_row_groups)]


def measure_files(location: Location, names: dict[str, list[str]]) -> int:
    """Return how many bytes `download_splits` will download."""
    return measure_download(location, patterns=_patterns(names), repo_type="dataset").missing


def count_entities(location: Location, split: str) -> dict[str, int]:
    """Count the rows of each entity of the dataset's schema in a split.

    Raises InputError if there is no such split, it has no rows about a known entity, or a file is damaged.
    """
    names = find_rows(location, split)
    counts = dict.fromkeys(load_schema(location).names, 0)
    for path, name in zip(download_splits(location, names)[split], names[split], strict=True):
        try:
            check_parquet(path, ENTITY_COLUMN)
            with pq.ParquetFile(path) as file:
                entities = file.read(columns=["entity_name"]).column("entity_name").cast(pa.string())
        except (ParquetError, *DAMAGED) as error:
            raise dataset_error(location, f"{name}: {first_line(error)}") from error
        for entity in counts:
            counts[entity] += pc.sum(pc.equal(entities, entity), min_count=0).as_py()
    return check_counts(counts, location=location, split=split)


def check_counts(counts: dict[str, int], *, location: Location, split: str) -> dict[str, int]:
    """Return `counts`. Raises InputError if no row of the split is about a known entity."""
    if not any(counts.values()):
        raise InputError(f"{location}: split {split!r} has no rows with one of the entities {', '.join(counts)}")
    return counts


def find_splits(location: Location, *, config: str | None = None) -> dict[str, list[str]]:
    """Find the Parquet files of each split by the card, or by their names if the card does not list them.

    `config` is the configuration of the card; its default is `default`, or else the first. Without such a
    configuration, there are no splits. No Parquet file is downloaded. (`datasets` resolves the card's patterns against
    the files in the cache. Offline, if only some splits are in the cache, it refuses all of them. It would also open
    URLs and files outside of the dataset.) Raises InputError if there are no Parquet files.
    """
    files = [name for name in list_files(location, repo_type="dataset") if name.endswith(".parquet")]
    if not files:
        raise dataset_error(location, "it holds no Parquet files")
    for name in files:
        if "::" in name or "\\" in name or not name.isprintable():  # `::` chains URLs in fsspec
            raise dataset_error(location, f"the name of its file {one_line(name)} is not allowed")
    patterns = _card_patterns(location, config=config)
    if patterns is None:
        return _name_splits(files) if config is None else {}
    found = {
        split: [name for name in files if any(fnmatchcase(name, pattern) for pattern in wanted)]
        for split, wanted in patterns.items()
    }
    return {split: names for split, names in found.items() if names}


def download_splits(location: Location, names: dict[str, list[str]]) -> dict[str, list[Path]]:
    """Download the files that `find_splits` returned. Raises InputError if that fails."""
    patterns = _patterns(names)
    if not patterns:
        return {}
    folder = download(location, patterns=[CARD_FILE, *patterns], repo_type="dataset")
    return {split: [_existing_file(location, folder, name) for name in files] for split, files in names.items()}


def _patterns(names: dict[str, list[str]]) -> list[str]:
    return [glob.escape(name) for split in names.values() for name in split]


def _existing_file(location: Location, folder: Path, name: str) -> Path:
    file = find_file(location, folder, name)
    if file is None:
        raise dataset_error(location, f"its file {one_line(name)} does not exist")
    return file


def dataset_error(location: Location, reason: Exception | str) -> InputError:
    """Return the error for a location that does not hold a dataset of this project."""
    if isinstance(reason, DatasetsError) and reason.__cause__ is not None:  # "An error occurred while generating ..."
        reason = f"{type(reason.__cause__).__name__}: {first_line(reason.__cause__)}"
    text = reason if isinstance(reason, str) else first_line(reason)
    return InputError(f"{location} is not a dataset built by dataset_builder.build: {one_line(text, max_length=500)}")


def _card_patterns(location: Location, *, config: str | None) -> dict[str, list[str]] | None:
    """Read the patterns of each split's files from the metadata of the card; None if it has none."""
    folder = download(location, patterns=[CARD_FILE, ".gitattributes"], repo_type="dataset")
    file = find_file(location, folder, CARD_FILE)
    if file is None:
        return None
    try:
        metadata = parse_front_matter(read_bytes(file, max_bytes=MAX_CARD_BYTES))
        configs: list[dict[str, Any]] = metadata.get("configs") or []
        by_name = {str(one["config_name"]): one["data_files"] for one in configs if "data_files" in one}
        if not by_name or (config is not None and config not in by_name):
            return None
        chosen = config or ("default" if "default" in by_name else next(iter(by_name)))
        listed = by_name[chosen]
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            listed = [{"split": "train", "path": listed}]
        paths = {str(one["split"]): one["path"] for one in listed}
        patterns = {split: [path] if isinstance(path, str) else list(path) for split, path in paths.items()}
        if sum(map(len, patterns.values())) > MAX_PATTERNS:
            raise ValueError(f"more than {MAX_PATTERNS} patterns")
        if not all(isinstance(pattern, str) for wanted in patterns.values() for pattern in wanted):
            raise TypeError("a pattern is not a text")
    except DocumentError as error:
        raise dataset_error(location, f"its {CARD_FILE} is malformed: {error}") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise dataset_error(
            location, f"`configs` in its {CARD_FILE} is malformed ({type(error).__name__}: {first_line(error)})"
        ) from error
    return patterns


def _name_splits(files: list[str]) -> dict[str, list[str]]:
    """Group files by the split in their names: `data/train-00000-of-00001.parquet` -> train.

    If no file is in the folder `data`, those at the root count.
    """
    files = [name for name in files if name.startswith("data/")] or [name for name in files if "/" not in name]
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in files:
        if match := re.match(r"\w+?(?=[-.]|_?\d)", name.rpartition("/")[2]):
            splits.setdefault(match[0], []).append(name)
    return {split: names for split, names in splits.items() if names}
