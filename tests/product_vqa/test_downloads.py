"""The plan of what is downloaded and written is what a run then downloads and writes, and a small disk is refused."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from huggingface_hub import constants

from product_vqa.dataset import load_splits
from product_vqa.disk_space import DiskPlan, Need
from product_vqa.downloads import (
    download_base_model,
    download_dataset,
    download_rows,
    plan_base_model,
    plan_dataset,
    plan_rows,
)
from product_vqa.errors import InputError
from product_vqa.hub import Location, locate


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    return tmp_path


def used(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def test_what_is_planned_is_what_is_downloaded_and_written(cache: Path, tiny_repos: tuple[str, str]) -> None:
    base, dataset = locate(tiny_repos[0]), locate(tiny_repos[1], repo_type="dataset")
    splits = ["train", "validation", "none"]
    plans = plan_base_model(base), plan_dataset(dataset, splits)
    (weights,), (parquet, arrow) = plans[0].needs, plans[1].needs
    assert sum(plan.downloaded for plan in plans) == weights.num_bytes + parquet.num_bytes
    before = used(cache / "hub")  # cards, and lists of files

    download_base_model(base)
    download_dataset(dataset, splits)
    downloaded = used(cache / "hub") - before
    assert downloaded == pytest.approx(weights.num_bytes + parquet.num_bytes, rel=0.01)
    load_splits(dataset, splits)
    assert used(cache / "hub") == before + downloaded
    assert used(cache / "arrow") == pytest.approx(arrow.num_bytes, rel=0.01)

    assert plan_base_model(base) == plan_dataset(dataset, splits) == DiskPlan((), 0)
    assert [need.what for need in plan_dataset(dataset, ["test"]).needs] == ["dataset", "dataset as Arrow"]


def test_the_rows_of_a_split_are_downloaded_without_images_where_there_is_a_table(
    cache: Path, tiny_repos: tuple[str, str]
) -> None:
    """tiny_repos has no such table, so all of the split is."""
    dataset = locate(tiny_repos[1], repo_type="dataset")
    (need,) = plan_rows(dataset, "test").needs
    assert need.what == "rows of split test"
    before = used(cache / "hub")
    download_rows(dataset, "test")
    assert used(cache / "hub") - before == pytest.approx(need.num_bytes, rel=0.05)
    assert plan_rows(dataset, "test") == DiskPlan((), 0)
    with pytest.raises(InputError, match="has no split 'tests'"):
        plan_rows(dataset, "tests")


def test_of_folders_only_the_arrow_files_are_written(cache: Path, tiny_base: Path, tiny_dataset: Path) -> None:
    assert plan_base_model(Location(str(tiny_base))) == DiskPlan((), 0)
    (arrow,) = plan_dataset(Location(str(tiny_dataset)), ["train"]).needs
    assert arrow.folder == cache / "arrow"
    assert arrow.num_bytes == sum(file.stat().st_size for file in tiny_dataset.glob("data/train*"))


def test_offline_nothing_is_downloaded(
    cache: Path, tiny_repos: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = locate(tiny_repos[0])
    plan_base_model(base)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert plan_base_model(base) == DiskPlan((), 0)


def test_a_plan_is_one_line_and_a_small_disk_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=20_000_000_000))
    plan = DiskPlan((Need("base model", "HF_HOME", tmp_path / "hub", 5.9e9),), 5_900_000_000)
    plan += DiskPlan((Need("2 checkpoints", "`output_dir`", tmp_path / "run", 0.3e9),), 0)
    assert str(plan) == (
        "Disk space: about 6.2 GB needed, 5.9 GB of it downloaded: base model 5.9 GB, 2 checkpoints 300.0 MB; "
        "20.0 GB free"
    )
    plan.check()
    plan += DiskPlan((Need("dataset as Arrow", "HF_HOME", tmp_path / "arrow", 14e9),), 0)
    with pytest.raises(InputError) as refusal:
        plan.check()
    assert str(refusal.value) == (
        f"too little disk space: 5.9 GB for base model in {tmp_path}/hub and 300.0 MB for 2 checkpoints in "
        f"{tmp_path}/run and 14.0 GB for dataset as Arrow in {tmp_path}/arrow needed, but only 20.0 GB free; "
        "set HF_HOME or `output_dir` to a folder on another disk"
    )
