"""A Hub's answers cost one line: no traceback, no path outside of the cache, no code of a terminal, no token."""

from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from product_vqa.dataset import find_splits, load_splits
from product_vqa.errors import InputError
from product_vqa.hub import download, find_file, hub_errors, list_files, locate
from product_vqa.streaming import open_split
from tests.faulty_hub import point_clients_at, skip_waits
from tests.hostile.harness import as_params
from tests.hostile.hubs import OUTSIDE, HostileHub, hostile_hubs, serve
from tests.product_vqa.hub.pushes import push_adapter, push_calibration, push_dataset

CASES = list(hostile_hubs())
TOKEN = "hf_secretsecretsecret"


def read_dataset(folder: Path) -> None:
    location = locate("user/name", repo_type="dataset")
    load_splits(location, list(find_splits(location)))


def stream_dataset(folder: Path) -> None:
    location = locate("user/name", repo_type="dataset")
    for split in find_splits(location):
        open_split(location, split)


def read_adapter(folder: Path) -> None:
    location = locate("user/name")
    list_files(location)
    find_file(location, download(location, patterns=["*.json", "README.md"]), "README.md")


def calibrate(folder: Path) -> None:
    with hub_errors("user/name"):  # as the command does
        push_calibration("user/name", folder)


USES: list[Callable[[Path], None]] = [
    read_dataset,
    stream_dataset,
    read_adapter,
    lambda folder: push_dataset("user/name", folder),
    lambda folder: push_adapter("user/name", folder),
    calibrate,
]


def test_there_are_hundreds_of_them() -> None:
    assert len(CASES) > 500 and len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", as_params(CASES, share=40))
def test_a_hostile_hub_costs_one_line(
    case: HostileHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    skip_waits(monkeypatch)
    outside = [Path("/tmp", OUTSIDE), Path("/", OUTSIDE)]
    with serve(case) as url:
        point_clients_at(url, TOKEN, monkeypatch)
        for number, use in enumerate(USES):
            monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / f"cache{number}" / "deep" / "hub"))
            folder = tmp_path / f"folder{number}"
            folder.mkdir()
            message = ""
            try:
                use(folder)
            except InputError as error:
                message = str(error)
            assert (message.isprintable(), len(message) < 2000, TOKEN in message) == (True, True, False), message
            outside += tmp_path.rglob(OUTSIDE)
            assert not any(path.exists() for path in outside)
    assert TOKEN not in "".join(capfd.readouterr())
