"""Load single splits of a built dataset, from a folder or from a repo at a commit."""

import glob
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import yaml
from datasets import Dataset, Image, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import DatasetCard

from product_vqa.cards import CARD_FILE
from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location, download, list_files
from product_vqa.task.features import FEATURES, SPLITS


def load_splits(location: Location, splits: list[str]) -> dict[str, Dataset]:
    """Load those of `splits` that exist. Only their files are downloaded; `load_dataset` would download all.

    Images are not decoded; `product_vqa.images.as_image` decodes them from the bytes in the dataset. Raises InputError
    if there is no dataset, its columns differ, or it stores paths instead of images.
    """
    found = find_splits(location)
    files = download_splits(location, {split: found[split] for split in splits if split in found})
    if not files:
        return {}
    try:
        # The name of a folder may look like a pattern: `runs [2]`.
        loaded = load_dataset(
            "parquet",
            data_files={split: [glob.escape(str(file)) for file in paths] for split, paths in files.items()},
        )
    except (FileNotFoundError, ValueError, DatasetsError) as error:
        raise dataset_error(location, error) from error
    for split, dataset in loaded.items():
        missing = [name for name in FEATURES if name not in dataset.column_names]
        if missing or not isinstance(dataset.features["image"], Image):
            raise InputError(
                f"{location}: split {split} has no {', '.join(missing) or 'images in its column `image`'}; "
                f"its columns are {', '.join(dataset.column_names)}. Build the dataset with dataset_builder.build"
            )
        loaded[split] = dataset.cast_column("image", Image(decode=False))
        _check_embedded(loaded[split], name=f"{location}: split {split}")
    return dict(loaded)


def _check_embedded(dataset: Dataset, *, name: str) -> None:
    """Raise InputError if an image is only a path. It could point anywhere on this machine, or to a server."""
    column = dataset.data.column("image")
    row = pc.index(pc.and_(pc.is_valid(column), pc.is_null(pc.struct_field(column, "bytes"))), True).as_py()
    if row != -1:
        raise InputError(
            f"{name}: the image of index {dataset['index'][row]} is only a path ({column[row]['path'].as_py()!r}); "
            "build the dataset with dataset_builder.build, which stores the images themselves"
        )


def load_split(location: Location, split: str) -> Dataset:
    """Load one split. Raises InputError if the dataset does not have it."""
    splits = load_splits(location, [split])
    if split not in splits:
        raise InputError(f"{location} has no split {split!r}")
    return splits[split]


def find_splits(location: Location, *, config: str | None = None) -> dict[str, list[str]]:
    """Find the Parquet files of each split by the card, or by their names if the card does not list them.

    `config` is the configuration of the card; its default is `default`, or else the first. Without such a
    configuration, there are no splits. No Parquet file is downloaded. (`datasets` resolves the card's patterns against
    the files in the cache. Offline, if only some splits are in the cache, it refuses all of them.) Raises InputError
    if there are no Parquet files.
    """
    files = [name for name in list_files(location, repo_type="dataset") if name.endswith(".parquet")]
    if not files:
        raise dataset_error(location, "it holds no Parquet files")
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
    patterns = [glob.escape(name) for split in names.values() for name in split]
    if not patterns:
        return {}
    folder = download(location, patterns=[CARD_FILE, *patterns], repo_type="dataset")
    return {split: [folder / name for name in files] for split, files in names.items()}


def dataset_error(location: Location, reason: Exception | str) -> InputError:
    """Return the error for a location that does not hold a dataset of this project."""
    text = reason if isinstance(reason, str) else first_line(reason)
    return InputError(f"{location} is not a dataset built by dataset_builder.build: {text}")


def _card_patterns(location: Location, *, config: str | None) -> dict[str, list[str]] | None:
    """Read the patterns of each split's files from the metadata of the card; None if it has none."""
    file = download(location, patterns=[CARD_FILE, ".gitattributes"], repo_type="dataset") / CARD_FILE
    if not file.is_file():
        return None
    try:
        metadata = DatasetCard(file.read_text(encoding="utf-8")).data.to_dict()
        configs: list[dict[str, Any]] = metadata.get("configs", [])
        by_name = {str(one["config_name"]): one["data_files"] for one in configs if "data_files" in one}
        if not by_name or (config is not None and config not in by_name):
            return None
        chosen = config or ("default" if "default" in by_name else next(iter(by_name)))
        listed = by_name[chosen]
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            listed = [{"split": "train", "path": listed}]
        paths = {str(one["split"]): one["path"] for one in listed}
        return {split: [path] if isinstance(path, str) else list(path) for split, path in paths.items()}
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise dataset_error(location, f"`configs` in its {CARD_FILE} is malformed ({type(error).__name__})") from error


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
