"""The published dataset, read back: single splits of a folder or of a repo at its commit."""

import pyarrow.compute as pc
from datasets import Dataset, Image, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError

from product_vqa.command import InputError, first_line
from product_vqa.hub import Location, explained
from product_vqa.schema import FEATURES


def load_splits(location: Location, splits: list[str], *, flag: str) -> dict[str, Dataset]:
    """Those of `splits` that the dataset has; only their files are fetched (`load_dataset` would fetch them all).

    Images are not decoded: `product_vqa.images.as_image` does that, from the bytes in the dataset. Raises InputError,
    naming `flag`, for no dataset at all, one of other columns, or one that holds the paths of images in their place.
    """
    with explained(location.name, flag=flag, repo_type="dataset", revision=location.revision):
        try:
            builder = load_dataset_builder(location.name, revision=location.revision)
        except (DatasetNotFoundError, FileNotFoundError, ValueError) as error:
            raise InputError(
                f"{flag} {location} is no dataset that dataset_builder.build made: {first_line(error)}"
            ) from error
        files = builder.config.data_files or {}
        wanted = {split: list(files[split]) for split in splits if split in files}
        if builder.dataset_name is None or not wanted:
            return {}
        loaded = load_dataset("parquet", data_files=wanted)
    for split, dataset in loaded.items():
        missing = [name for name in FEATURES if name not in dataset.column_names]
        if missing or not isinstance(dataset.features["image"], Image):
            raise InputError(
                f"{flag} {location}: split {split} lacks {', '.join(missing) or 'decoded images'}; "
                f"its columns are {', '.join(dataset.column_names)}. dataset_builder.build makes what is needed"
            )
        loaded[split] = dataset.cast_column("image", Image(decode=False))
        _check_embedded(loaded[split], name=f"{flag} {location}: split {split}")
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


def load_split(location: Location, split: str, *, flag: str) -> Dataset:
    """One split. Raises InputError if the dataset does not have it."""
    splits = load_splits(location, [split], flag=flag)
    if split not in splits:
        raise InputError(f"{flag} {location} has no split {split!r}")
    return splits[split]
