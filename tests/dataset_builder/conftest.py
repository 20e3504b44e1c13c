from pathlib import Path
from typing import Any

import pytest

from dataset_builder import build
from tests.commands import call
from tests.dataset_builder.files import TEST_COLUMNS, Shop, jpeg, write_csv, write_train_csv
from tests.dataset_builder.image_server import ImageServer


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def csvs(server: ImageServer, tmp_path: Path) -> list[Any]:
    """Forty labelled rows and ten others; two images are gone, and two URLs have the same image."""
    server.answers |= {f"/{number}.jpg": jpeg(number % 38) for number in range(50) if number not in (7, 45)}
    urls = [f"{server.url}/{number}.jpg" for number in range(50)]
    write_train_csv(tmp_path / "train.csv", urls[:40])
    write_csv(tmp_path / "test.csv", TEST_COLUMNS, [[100 + n, url, "g", "width"] for n, url in enumerate(urls[40:])])
    return ["--train_csv", tmp_path / "train.csv", "--test_csv", tmp_path / "test.csv", "--allow_private_hosts",
            "--validation_size", "0.2"]  # fmt: skip


@pytest.fixture
def run(csvs: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    def run_build(machine: Path, output: Path, *more: object) -> None:
        call(build.main, monkeypatch, *csvs, "--image_store", machine / "store", "--output_dir", output, *more)

    return run_build
