import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset_builder import build
from tests.commands import call
from tests.dataset_builder.files import Shop

DATA, ROWS = "data/train-00000-of-00001.parquet", "rows/train.parquet"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


def run_build(shop: Shop, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        call(build.main, patch, *shop.arguments(), "--output_dir", folder)


def contents(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def built(shop: Shop) -> Path:
    run_build(shop, shop.folder / "out")
    return shop.folder / "out"


def flip_bit(position: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        at = int(len(content) * position)
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return flip


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((DATA, flip_bit(position)) for position in (0.0, 0.5, 0.8)),
        (DATA, lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2)),
        *((ROWS, flip_bit(position)) for position in (0.5, 0.9)),
        ("left_out.csv", flip_bit(0.5)),
        *((name, None) for name in (DATA, ROWS, "left_out.csv")),
        (DATA, lambda content: content[:100]),
        ("data/train-00001-of-00002.parquet", lambda content: b"one too many"),
    ],
)
def test_a_build_whose_files_have_changed_is_not_kept(
    shop: Shop,
    built: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    change: Callable[[bytes], bytes] | None,
) -> None:
    folder = tmp_path / built.name
    shutil.copytree(built, folder)
    file = folder / name
    if change:
        file.write_bytes(change(file.read_bytes() if file.is_file() else b""))
    else:
        file.unlink()
    run_build(shop, folder)
    assert f"{folder}: {name} is not as it was written; the dataset is written again" in caplog.text
    assert contents(folder) == contents(built)


def test_a_build_whose_files_are_intact_is_kept(
    shop: Shop, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / built.name
    shutil.copytree(built, folder)
    before = {file: file.stat().st_ino for file in folder.rglob("*.parquet")}
    run_build(shop, folder)
    assert f"unchanged: {folder}" in capsys.readouterr().out
    assert {file: file.stat().st_ino for file in folder.rglob("*.parquet")} == before
