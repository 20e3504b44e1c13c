"""Rows that are read from the Hub during the training: those of a copy on disk, whatever the Hub does meanwhile."""

import pickle
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from product_vqa.errors import InputError
from product_vqa.hub import Location, locate
from product_vqa.task.schema import CHALLENGE
from tests.faulty_hub import FaultyHub, answer, hang, reset, skip_waits
from tests.tiny import make_rows, save_row_groups
from tests.training.streams import REPO, hub_with_faults, push, save_streamed
from training.loading import Data, Sources, load_data
from training.options import DatasetOptions
from training.sample_order import BufferedSampler
from training.streaming import StreamedRows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_streamed(tmp_path_factory.mktemp("datasets") / "streamed")


@pytest.fixture(scope="module")
def repo(hub: object, folder: Path) -> str:
    return push(folder)


def load(dataset: Location, *, is_best_kept: bool = True, **options: Any) -> Data:
    sources = Sources(Location("base"), dataset, Location("base"), dataset, base_license=None, schema=CHALLENGE)
    chosen = DatasetOptions(**({"dataset_name": "", "shuffle_buffer_size": 20} | options))
    return load_data(sources, chosen, seed=5, is_best_kept=is_best_kept)


# ---- The rows ------------------------------------------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    {"max_train_samples": 17},
    {"max_train_samples": 1000, "max_eval_samples": 0},
    {"oversample_like": "test", "max_eval_samples": 3},
    {"oversample_like": "test", "max_train_samples": 30, "max_card_samples": 2},
    {"max_eval_samples": 5, "is_best_kept": False},
    {"dataset_test_split": "none"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_they_are_those_of_a_run_from_disk(folder: Path, repo: str, options: dict[str, Any]) -> None:
    location = Location(str(folder))
    expected = load(location, **options)
    for dataset in (location, locate(repo, repo_type="dataset")):
        found = load(dataset, streaming=True, **options)
        assert list(found.train) == list(expected.train)
        assert found.shuffle is not None and expected.shuffle is not None
        assert (found.shuffle.row_groups == expected.shuffle.row_groups).all()
        for ours, theirs in ((found.eval, expected.eval), (found.card, expected.card)):
            assert (ours is None) == (theirs is None)
            assert ours is None or list(ours) == list(theirs)


def test_max_train_samples_reads_as_few_row_groups_as_hold_them(folder: Path) -> None:
    rows = load(Location(str(folder)), streaming=True, max_train_samples=11, max_eval_samples=0).train
    assert isinstance(rows, StreamedRows)
    assert sorted(Counter(rows.row_groups.tolist()).values(), reverse=True)[:2] == [5, 5]
    assert len(rows) == rows.num_distinct == 11


def test_what_is_streamed_is_printed_and_none_of_it_is_on_disk(
    repo: str, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    caplog.set_level("INFO")
    load(locate(repo, repo_type="dataset"), streaming=True)
    sizes = r"Streaming: 0\.\d MB in each epoch, and up to 0\.\d MB once for the evaluation; none of it is stored"
    assert [line for line in caplog.messages if re.search(sizes, line)]
    assert not list((tmp_path / "cache").rglob("*.parquet"))


def test_a_row_that_goes_to_a_worker_process_is_read_on_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = load(Location(str(folder)), streaming=True).train
    assert isinstance(rows, StreamedRows)
    expected = [rows[7], rows[50]]
    sent = pickle.loads(pickle.dumps([rows.reference(7), rows.reference(50)]))
    monkeypatch.setattr("training.streaming.is_worker", lambda: True)
    in_worker = pickle.loads(pickle.dumps(rows))
    assert in_worker.__getitems__(sent) == expected


def test_whatever_reading_a_row_raises_on_the_way_to_a_worker_process_is_raised_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = load(Location(str(folder)), streaming=True).train
    assert isinstance(rows, StreamedRows)

    def fail(row_group: int) -> None:
        raise LookupError("a fault of the program")

    monkeypatch.setattr(rows._split, "read", fail)
    sent = pickle.loads(pickle.dumps([rows.reference(40)]))
    monkeypatch.setattr("training.streaming.is_worker", lambda: True)
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*LookupError: a fault of the program"):
        rows.__getitems__(sent)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_without_labels_are_refused_before_anything_is_trained(tmp_path: Path, split: str) -> None:
    rows = {"train": make_rows(23), "validation": make_rows(6, start=1000)}
    rows[split][2]["entity_value"] = ""
    folder = save_row_groups(tmp_path, rows)
    with pytest.raises(
        InputError, match=rf"_split` {split}: index 1?0*2 has no label \(entity_value is empty\): choo"
    ):
        load(Location(str(folder)), streaming=True)
    with pytest.raises(InputError, match=r"has no split 'none' \(`dataset_train_split`\)"):
        load(Location(str(folder)), streaming=True, dataset_train_split="none")


# ---- A Hub with bad moments ----------------------------------------------------------------------------------------


@pytest.fixture
def bad_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyHub]:
    with hub_with_faults(folder, tmp_path, monkeypatch) as hub:
        yield hub


def epoch(rows: StreamedRows, sampler: BufferedSampler) -> list[int]:
    rows.begin(sampler.of_rank(0), max_rows=40)
    read = [row["index"] for position in sampler for row in rows.__getitems__([position])]
    rows.end()
    return read


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(answer(429, retry_after="3"), id="429"),
        pytest.param(answer(500), id="500", marks=pytest.mark.faults),
        pytest.param(reset, id="reset", marks=pytest.mark.faults),
    ],
)
def test_a_fault_at_any_request_of_an_epoch_changes_nothing(
    bad_hub: FaultyHub, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    slept = skip_waits(monkeypatch)
    data = load(locate(REPO, repo_type="dataset"), streaming=True, max_eval_samples=0)
    assert isinstance(data.train, StreamedRows) and data.shuffle is not None
    sampler = BufferedSampler(data.shuffle, num_steps=16, samples_per_step=4, batch_size=4, num_ranks=1)
    expected = epoch(data.train, sampler)
    tried, at = 0, 0
    while at == tried:
        bad_hub.begin(fault, at=at)
        assert epoch(data.train, sampler) == expected
        tried += bad_hub.count > at
        at += 1
    assert tried == len(slept) == 14  # each row group is read once


def test_a_hub_that_stays_bad_ends_in_one_line(bad_hub: FaultyHub, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_waits(monkeypatch)
    rows = load(locate(REPO, repo_type="dataset"), streaming=True, max_eval_samples=0).train

    async def refuse(*arguments: Any) -> None:
        await answer(503)(bad_hub, *arguments)

    monkeypatch.setattr(bad_hub, "_app", refuse)
    with pytest.raises(InputError, match=f"`dataset_name` {REPO}: the Hub answered HTTP 503") as error:
        rows[30]
    assert "\n" not in str(error.value)


def test_a_commit_that_is_pushed_meanwhile_changes_nothing(bad_hub: FaultyHub) -> None:
    data = load(locate(REPO, repo_type="dataset"), streaming=True, max_eval_samples=0)
    assert isinstance(data.train, StreamedRows) and data.shuffle is not None
    sampler = BufferedSampler(data.shuffle, num_steps=16, samples_per_step=4, batch_size=4, num_ranks=1)
    expected = epoch(data.train, sampler)
    for name in ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"):
        HfApi().upload_file(repo_id=REPO, path_in_repo=name, path_or_fileobj=b"PAR1" * 9, repo_type="dataset")
    assert epoch(data.train, sampler) == expected


def test_before_training_the_files_are_listed_once_and_each_footer_is_read_once(
    bad_hub: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = locate(REPO, repo_type="dataset")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    bad_hub.begin()
    load(dataset, streaming=True, oversample_like="test")
    asked = Counter(request.rpartition(str(dataset.revision))[2] for request in bad_hub.requests)
    assert asked[""] == 1  # the list
    assert asked["/data/train-00000-of-00002.parquet"] + asked["/data/train-00001-of-00002.parquet"] == 3
    assert asked["/rows/test.parquet"] == 1 + 2  # the footer, and two row groups


def test_a_damaged_file_ends_the_command_at_once_though_the_hub_does_not_answer_for_another(
    bad_hub: FaultyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "data/train-00000-of-00002.parquet"
    HfApi().upload_file(repo_id=REPO, path_in_repo=name, path_or_fileobj=b"PAR1" * 9, repo_type="dataset")
    app = bad_hub._app

    async def hang_for_the_other(scope: Any, receive: Any, send: Any) -> None:
        await (hang(bad_hub, scope, receive, send) if "00001-of" in scope["path"] else app(scope, receive, send))

    dataset = locate(REPO, repo_type="dataset")
    monkeypatch.setattr(bad_hub, "_app", hang_for_the_other)
    began = time.monotonic()
    with pytest.raises(InputError, match=r"train-00000-of-00002\.parquet: it does not end like a Parquet file"):
        load(dataset, streaming=True)
    assert time.monotonic() - began < 15
