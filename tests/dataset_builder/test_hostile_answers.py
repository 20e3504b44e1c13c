"""What a server sends ends nothing but its own URL, in time, and with a printable reason."""

import csv
import time
from pathlib import Path

import pytest

from dataset_builder import download
from dataset_builder.downloader import download as download_images
from dataset_builder.image_store import ImageStore
from product_vqa.http.fetching import FetchLimits
from tests.commands import call
from tests.dataset_builder.files import write_train_csv
from tests.hostile.server_answers import HostileAnswer, HostileServer, hostile_answers

QUICK = FetchLimits(
    connect_timeout_s=2, read_timeout_s=1, total_timeout_s=1.5, num_attempts=2, backoff_s=0.01, max_wait_s=1
)


def check_answers(answers: list[HostileAnswer], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(download_images.__kwdefaults__, "limits", QUICK)  # type: ignore[arg-type]
    with HostileServer(answers) as server:
        urls = [*server.urls.values(), *server.good_urls]
        train_csv = write_train_csv(folder / "train.csv", urls)
        arguments: list[str | Path] = ["--train_csv", train_csv, "--image_store", folder / "store"]
        start = time.monotonic()
        call(download.main, monkeypatch, *arguments, "--allow_private_hosts")
        seconds = time.monotonic() - start
    store = ImageStore(folder / "store")
    failures = store.failures(urls)
    assert {url: failures[url] for url in server.good_urls if url in failures} == {}
    slowest = {name: store.state(url).seconds for name, url in server.urls.items() if store.state(url).seconds > 6}
    assert not slowest and seconds < 60, (slowest, seconds)
    for name, url in server.urls.items():
        state = store.state(url)
        assert state.finished_at and state.reason.isprintable() and len(state.reason) <= 300, (name, state)
    with (folder / "store" / "failed.csv").open(newline="") as stream:
        assert {row["image_link"] for row in csv.DictReader(stream)} == set(failures)


@pytest.mark.slow
def test_a_hostile_answer_ends_its_own_url_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_answers(hostile_answers()[::20], tmp_path, monkeypatch)


@pytest.mark.faults
def test_each_hostile_answer_ends_its_own_url_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = hostile_answers()
    assert len(answers) >= 200
    check_answers(answers, tmp_path, monkeypatch)
