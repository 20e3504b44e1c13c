"""The published dataset, read back: single splits of a folder or of a repo at its commit."""

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
from product_vqa.hub import Location, fetch, list_files
from product_vqa.task.features import FEATURES, SPLITS


def load_splits(location: Location, splits: list[str]) -> dict[str, Dataset]:
    """Those of `splits` that the dataset has; only their files are fetched (`load_dataset` would fetch them all).

    Images are not decoded: `product_vqa.images.as_image` does that, from the bytes in the dataset. Raises InputError
    for no dataset at all, one of other columns, or one that holds the paths of images in their place.
    """
    found = find_splits(location)
    files = fetch_splits(location, {split: found[split] for split in splits if split in found})
    if not files:
        return {}
    try:
        # A folder's name may hold what is a pattern: `runs [2]`.
        loaded = load_dataset(
            "parquet",
            data_files={split: [glob.escape(str(file)) for file in paths] for split, paths in files.items()},
        )
    except (FileNotFoundError, ValueError, DatasetsError) as error:
        raise not_built_here(location, error) from error
    for split, dataset in loaded.items():
        missing = [name for name in FEATURES if name not in dataset.column_names]
        if missing or not isinstance(dataset.features["image"], Image):
            raise InputError(
                f"{location}: split {split} lacks {', '.join(missing) or 'decoded images'}; "
                f"its columns are {', '.join(dataset.column_names)}. dataset_builder.build makes what is needed"
            )
        loaded[split] = dataset.cast_column("image", Image(decode=False))
        _check_embedded(loaded[split], name=f"{location}: split {split}")
    return dict(loaded)


def _check_embedded(dataset: Dataset, *, name: str) -> None:
    """A path in a dataset leads to whatever lies there on this machine, or to a server: neither is opened."""
    column = dataset.data.column("image")
    row = pc.index(pc.and_(pc.is_valid(column), pc.is_null(pc.struct_field(column, "bytes"))), True).as_py()
    if row != -1:
        raise InputError(
            f"{name}: the image of index {dataset['index'][row]} is only a path ({column[row]['path'].as_py()!r}); "
            "dataset_builder.build stores the images themselves"
        )


def load_split(location: Location, split: str) -> Dataset:
    """One split. Raises InputError if the dataset does not have it."""
    splits = load_splits(location, [split])
    if split not in splits:
        raise InputError(f"{location} has no split {split!r}")
    return splits[split]


def find_splits(location: Location, *, config: str | None = None) -> dict[str, list[str]]:
    """Split -> its Parquet files, as the card says, or their names where it does not; fetched are none of them.

    `config` is the configuration; by default `default`, or the card's first. Empty if the card has no such one.
    `datasets` resolves the card's patterns against the files that are there: offline, where only some splits are in
    the cache, it refuses them all. Raises InputError if there are no Parquet files.
    """
    files = [name for name in list_files(location, repo_type="dataset") if name.endswith(".parquet")]
    if not files:
        raise not_built_here(location, "it holds no Parquet files")
    patterns = _card_patterns(location, config=config)
    if patterns is None:
        return _name_splits(files) if config is None else {}
    found = {
        split: [name for name in files if any(fnmatchcase(name, pattern) for pattern in wanted)]
        for split, wanted in patterns.items()
    }
    return {split: names for split, names in found.items() if names}


def fetch_splits(location: Location, names: dict[str, list[str]]) -> dict[str, list[Path]]:
    """The files that `find_splits` named, on this machine. Raises InputError if they cannot be had."""
    patterns = [glob.escape(name) for split in names.values() for name in split]
    if not patterns:
        return {}
    folder = fetch(location, patterns=[CARD_FILE, *patterns], repo_type="dataset")
    return {split: [folder / name for name in files] for split, files in names.items()}


def not_built_here(location: Location, reason: Exception | str) -> InputError:
    text = reason if isinstance(reason, str) else first_line(reason)
    return InputError(f"{location} is no dataset that dataset_builder.build made: {text}")


def _card_patterns(location: Location, *, config: str | None) -> dict[str, list[str]] | None:
    """Split -> patterns of its files, from the metadata of the card; None if it says nothing of them."""
    file = fetch(location, patterns=[CARD_FILE, ".gitattributes"], repo_type="dataset") / CARD_FILE
    if not file.is_file():
        return None
    try:
        configs: list[dict[str, Any]] = DatasetCard(file.read_text(encoding="utf-8")).data.to_dict().get("configs", [])
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
        raise not_built_here(location, f"its {CARD_FILE} is wrong about `configs` ({type(error).__name__})") from error


def _name_splits(files: list[str]) -> dict[str, list[str]]:
    """`data/train-00000-of-00001.parquet` -> train; of files at the root where there is no folder `data`."""
    files = [name for name in files if name.startswith("data/")] or [name for name in files if "/" not in name]
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in files:
        if match := re.match(r"\w+?(?=[-.]|_?\d)", name.rpartition("/")[2]):
            splits.setdefault(match[0], []).append(name)
    return {split: names for split, names in splits.items() if names}
