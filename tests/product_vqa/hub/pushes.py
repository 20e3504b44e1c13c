"""Whatever this project pushes, each as a function of a repo's name and a folder."""

from collections.abc import Callable
from pathlib import Path

from dataset_builder.push import check_target, push
from inference.space import push_space
from product_vqa.cards import mark_card
from product_vqa.hub import commit_files
from training.push import open_repo, push_run


def folder_of(files: dict[str, bytes], root: Path) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


CARD = mark_card("---\nlicense: other\n---\n# A card\n\ntext\n").encode()


def push_dataset(name: str, folder: Path) -> None:
    files = {
        "README.md": CARD,
        "build.json": b"{}",  # without it, the data would be somebody else's
        "data/train-00000-of-00001.parquet": b"\0" * 300_000,
        "data/test-00000-of-00001.parquet": b"\1" * 300_000,
    }
    push(folder_of(files, folder), check_target(name, private=True), private=True)


def push_adapter(name: str, folder: Path) -> None:
    files = {"README.md": CARD, "adapter_model.safetensors": b"\2" * 300_000, "adapter_config.json": b"{}"}
    push_run(folder_of(files, folder), files=sorted(files), repo_id=open_repo(name, private=True), revision=None)


def push_calibration(name: str, folder: Path) -> None:
    commit_files(open_repo(name, private=True), {"calibration.json": b"{}"}, message="Calibrated")


def push_page(name: str, folder: Path) -> None:
    push_space(name, adapter="local/read-by-the-page")


PUSHES: dict[str, tuple[Callable[[str, Path], None], str, int]] = {
    "dataset": (push_dataset, "dataset", 4),
    "adapter": (push_adapter, "model", 3),
    "calibration": (push_calibration, "model", 1),
    "space": (push_page, "space", 40),
}
