"""Plan and download what a command needs: a base model, a dataset, the rows of a split."""

from collections.abc import Sequence
from pathlib import Path

import datasets
from huggingface_hub import constants

from product_vqa.dataset import download_splits, find_rows, find_splits, measure_files, measure_splits
from product_vqa.disk_space import DiskPlan, Need
from product_vqa.errors import argument
from product_vqa.hub import Location, download, measure_download
from product_vqa.modeling.model_files import PROCESSOR_FILES, weight_patterns
from product_vqa.rank import is_first_process


def download_all(*, base_model: Location | None, dataset: Location, split: str) -> None:
    """Download a base model, if there is one, and a split; print how much that is, and check that it fits.

    Every process does so before it connects with the others, and the cache's locks let one of them download. Otherwise
    the others would wait for it in a collective operation, of which NCCL ends any after ten minutes.
    """
    if is_first_process():
        with argument("dataset"):
            plan = plan_dataset(dataset, [split])
        if base_model is not None:
            with argument("base_model"):
                plan = plan_base_model(base_model) + plan
        plan.announce()
    if base_model is not None:
        with argument("base_model"):
            download_base_model(base_model)
    with argument("dataset"):
        download_dataset(dataset, [split])


def plan_base_model(location: Location) -> DiskPlan:
    """Plan the download of a base model with its processor."""
    return _plan_downloads("base model", measure_download(location, patterns=_base_model_patterns(location)).missing)


def plan_dataset(location: Location, splits: Sequence[str]) -> DiskPlan:
    """Plan the download of splits of a dataset, and the copy as Arrow that `datasets` makes of them."""
    missing, arrow = measure_splits(location, splits)
    plan = _plan_downloads("dataset", missing)
    if arrow:
        cache = Path(datasets.config.HF_DATASETS_CACHE)
        plan += DiskPlan((Need("dataset as Arrow", "HF_HOME", cache, arrow),), downloaded=0)
    return plan


def plan_rows(location: Location, split: str) -> DiskPlan:
    """Plan the download of the rows of a split, without their images if the dataset has a table of them."""
    return _plan_downloads(f"rows of split {split}", measure_files(location, find_rows(location, split)))


def download_base_model(location: Location) -> None:
    """Download a base model with its processor; later calls find the files in the cache."""
    download(location, patterns=_base_model_patterns(location))


def download_dataset(location: Location, splits: Sequence[str]) -> None:
    """Download splits of a dataset; later calls find the files in the cache."""
    download_splits(location, {split: names for split, names in find_splits(location).items() if split in splits})


def download_rows(location: Location, split: str) -> None:
    """Download what `count_entities` reads; later calls find it in the cache."""
    download_splits(location, find_rows(location, split))


def _base_model_patterns(location: Location) -> list[str]:
    return [*weight_patterns(location), *PROCESSOR_FILES]


def _plan_downloads(what: str, num_bytes: int) -> DiskPlan:
    if num_bytes == 0:
        return DiskPlan((), 0)
    return DiskPlan((Need(what, "HF_HOME", Path(constants.HF_HUB_CACHE), num_bytes),), num_bytes)
