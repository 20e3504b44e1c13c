"""Training on rows that are read from the Hub meanwhile: the same training as on a copy of them on disk."""

import itertools
import pickle
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi, constants

from product_vqa.errors import InputError
from product_vqa.hub import Location, locate
from tests.commands import CPU_2, call, launch
from tests.faulty_hub import FaultyHub, answer, faulty_hub, hang, point_at, reset, skip_waits
from tests.tiny import make_rows, save_row_groups
from tests.training.runs import (
    check_equal_adapters,
    interrupt_at,
    pushed_to,
    read_log,
    read_losses,
    run_to_the_end,
    start,
    wait_for,
)
from training import sft
from training.loading import Data, Sources, load_data
from training.options import DatasetOptions
from training.sample_order import BufferedSampler
from training.streaming import StreamedRows

REPO = "local/streamed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """62 rows for training in 14 row groups of two files."""
    splits = {"train": make_rows(62), "validation": make_rows(21, start=1000), "test": make_rows(9, start=2000)}
    return save_row_groups(tmp_path_factory.mktemp("datasets") / "streamed", splits, has_table=True)


@pytest.fixture(scope="module")
def repo(hub: object, folder: Path) -> str:
    push(folder)
    return REPO


def push(folder: Path) -> None:
    HfApi().create_repo(REPO, repo_type="dataset", exist_ok=True)
    HfApi().upload_folder(repo_id=REPO, folder_path=folder, repo_type="dataset")


def load(dataset: Location, *, is_best_kept: bool = True, **options: Any) -> Data:
    sources = Sources(Location("base"), dataset, Location("base"), dataset, base_license=None)
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
    with faulty_hub(tmp_path) as hub:
        point_at(hub, monkeypatch)
        push(folder)
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


# ---- Runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arguments(tiny_run: list[str | Path], repo: str) -> list[str | Path]:
    """Two epochs of 16 steps of four samples."""
    return [
        *tiny_run, "--dataset_name", repo, "--num_train_epochs", "2", "--max_steps", "-1", "--save_steps", "8",
        "--save_total_limit", "9", "--logging_steps", "1", "--eval_steps", "16", "--lora_r", "4", "--dtype", "float32",
        "--bf16", "false", "--seed", "3", "--shuffle_buffer_size", "20", "--max_eval_samples", "9",
        "--per_device_train_batch_size", "4",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def from_disk(arguments: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run([*arguments, "--output_dir", tmp_path_factory.mktemp("runs") / "from_disk"])


@pytest.fixture(scope="module")
def streamed(arguments: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run([*arguments, "--streaming", "true", "--output_dir", tmp_path_factory.mktemp("runs") / "streamed"])


def run(arguments: Sequence[str | int | Path]) -> Path:
    """Run it, with a cache of its own; returns its output folder."""
    output_dir = Path(arguments[-1])
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(output_dir.parent / "cache"))
        call(sft.main, monkeypatch, *arguments)
    return output_dir


def scores(output_dir: Path) -> list[dict[str, str]]:
    """The scores of the steps and the evaluations, which do not depend on the time."""
    names = ("step", "loss", "grad_norm", "learning_rate", "eval_loss", "eval_f1", "eval_f1_quantity", "eval_samples")
    return [{name: row[name] for name in names} for row in read_log(output_dir)]


def check_same(output_dir: Path, from_disk: Path) -> None:
    """To the bit."""
    assert len(read_losses(output_dir)) == 32
    assert scores(output_dir) == scores(from_disk)
    check_equal_adapters(output_dir, from_disk)


@pytest.mark.slow
def test_a_run_trains_and_scores_as_one_from_disk_does_without_a_copy(from_disk: Path, streamed: Path) -> None:
    check_same(streamed, from_disk)
    assert [*(from_disk.parent / "cache").rglob("*.parquet")]
    assert not [*(streamed.parent / "cache").rglob("*.parquet")]
    config = yaml.safe_load((streamed / "sft_config.yaml").read_text())
    assert (config["streaming"], config["shuffle_buffer_size"]) == (True, 20)
    cards = [(output_dir / "README.md").read_text() for output_dir in (streamed, from_disk)]
    facts = [
        [line for line in card.splitlines() if line.startswith("| ") and "| time |" not in line] for card in cards
    ]
    assert facts[0] == facts[1] and len(facts[0]) > 10


def kill_after(step: int, finished: Path, output_dir: Path) -> Path:
    """A copy of a finished run, as if it had been killed before its next checkpoint."""
    shutil.copytree(finished, output_dir)
    for folder in output_dir.glob("checkpoint-*"):
        if int(folder.name.rpartition("-")[2]) > step:
            shutil.rmtree(folder)
    (output_dir / "adapter_model.safetensors").unlink()
    return output_dir


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(["--streaming", "true", "--dataloader_num_workers", "2"], id="workers"),
        pytest.param([], id="disk", marks=pytest.mark.faults),
    ],
)
def test_it_resumes_within_an_epoch_with_workers_or_from_a_copy_on_disk(
    arguments: list[str | Path], from_disk: Path, streamed: Path, tmp_path: Path, how: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output_dir = kill_after(24, streamed, tmp_path / "run")
    run([*arguments, *how, "--output_dir", output_dir])
    assert "resuming at step 24/32" in capsys.readouterr().out
    check_same(output_dir, from_disk)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param(["--streaming", "true"], id="streamed"),
        pytest.param(["--streaming", "true", "--dataloader_num_workers", "2"], id="workers", marks=pytest.mark.faults),
        pytest.param([], id="disk", marks=pytest.mark.faults),
    ],
)
def test_it_resumes_within_an_epoch_on_an_empty_disk(
    arguments: list[str | Path], from_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str],
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    push = pushed_to(f"local/streamed-{request.node.callspec.id}")[:-2]  # which names the base model
    interrupt_at(monkeypatch, 26)
    with pytest.raises(KeyboardInterrupt):
        run([*arguments, *push, "--streaming", "true", "--output_dir", tmp_path / "first" / "run"])
    interrupt_at(monkeypatch, None)
    run([*arguments, *push, *how, "--output_dir", tmp_path / "second" / "run"])
    assert "resuming at step 24/32" in capsys.readouterr().out
    check_same(tmp_path / "second" / "run", from_disk)
    is_streamed = not [*(tmp_path / "second" / "cache").rglob("*.parquet")]
    assert is_streamed == bool(how)


@pytest.mark.slow
def test_another_buffer_or_none_is_another_run(
    arguments: list[str | Path], streamed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output_dir = kill_after(24, streamed, tmp_path / "run")
    size = arguments.index("--shuffle_buffer_size")
    for others, found in ((["--shuffle_buffer_size", "21", "--streaming", "true"], "21"), ([], r"\(default\)")):
        changed = [*arguments[:size], *arguments[size + 2 :], *others, "--output_dir", output_dir]
        with pytest.raises(InputError, match=rf"another configuration \(shuffle_buffer_size: 20 -> {found}\)"):
            call(sft.main, monkeypatch, *changed)


def command(arguments: list[str | Path], *more: str | Path) -> list[str]:
    return [sys.executable, "-m", "training.sft", *map(str, [*arguments, "--streaming", "true", *more])]


@pytest.mark.faults
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_in_the_middle_of_an_epoch_loses_nothing(
    arguments: list[str | Path], from_disk: Path, tmp_path: Path, signal_: signal.Signals, workers: int
) -> None:
    words = command(arguments, "--dataloader_num_workers", str(workers), "--output_dir", tmp_path / "run")
    process = start(words)
    wait_for(process, "step 21/32")
    process.send_signal(signal_)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == (143 if signal_ == signal.SIGTERM else -signal_), output
    output = run_to_the_end(words)
    assert "resuming at step " in output
    assert re.search(r"Disk space: about .* needed: \d+ checkpoints", output)  # no dataset
    check_same(tmp_path / "run", from_disk)


@pytest.mark.faults
@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_train_what_one_does_and_read_each_row_group_once(
    arguments: list[str | Path], from_disk: Path, tmp_path: Path, workers: int
) -> None:
    launch(
        "training.sft", *arguments, "--per_device_train_batch_size", "2", "--streaming", "true",
        "--dataloader_num_workers", str(workers), "--output_dir", tmp_path / "run", config_file=CPU_2,
    )  # fmt: skip
    found, expected = (read_losses(output_dir) for output_dir in (tmp_path / "run", from_disk))
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [loss for _, loss in found[:4]] == pytest.approx([loss for _, loss in expected[:4]], abs=1e-5)


@pytest.mark.faults
def test_a_hub_that_fails_every_third_time_changes_nothing_in_a_run(
    arguments: list[str | Path], from_disk: Path, bad_hub: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = skip_waits(monkeypatch)
    faults = itertools.cycle([answer(429, retry_after="5"), answer(500), reset])
    numbers = itertools.count()
    app = bad_hub._app

    async def fail_often(scope: Any, receive: Any, send: Any) -> None:
        is_bad = "/resolve/" in scope["path"] and next(numbers) % 3 == 1
        await (next(faults)(bad_hub, scope, receive, send) if is_bad else app(scope, receive, send))

    monkeypatch.setattr(bad_hub, "_app", fail_often)
    call(sft.main, monkeypatch, *arguments, "--streaming", "true", "--output_dir", tmp_path / "run")
    assert len(slept) > 10
    check_same(tmp_path / "run", from_disk)


@pytest.mark.faults
def test_a_smoke_run_streams_and_warns_of_row_groups_that_are_too_large(
    arguments: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    options = ["--streaming", "true", "--shuffle_buffer_size", "19", "--output_dir", tmp_path / "run"]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert call(sft.main, monkeypatch, "--smoke", *arguments, *options) == 0
    assert "smoke run: passed" in capsys.readouterr().out
    assert "The row groups have up to 5 rows, which is too much for `shuffle_buffer_size` 19" in caplog.text
    assert not [*tmp_path.rglob("*.parquet")] and not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.faults)])
def test_a_row_group_that_is_damaged_ends_the_run_in_one_line_where_it_is_reached(
    arguments: list[str | Path], folder: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    file = damaged / "data" / "train-00001-of-00002.parquet"
    data = bytearray(file.read_bytes())
    data[4:1000] = bytes(996)
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"train-00001-of-00002\.parquet: row group 0, column") as error:
        call(
            sft.main, monkeypatch, *arguments, "--dataset_name", damaged, "--streaming", "true",
            "--dataloader_num_workers", str(workers), "--output_dir", tmp_path / "run",
        )  # fmt: skip
    assert "\n" not in str(error.value)
