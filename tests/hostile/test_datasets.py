"""Hostile datasets: every command that reads one succeeds or ends in one line, and reads and asks nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference import evaluate, predict, report
from product_vqa.dataset import load_split
from product_vqa.errors import InputError, argument
from product_vqa.hub import Location
from product_vqa.streaming import open_split
from tests.hostile.datasets import Case, dataset_cases, good_columns, write
from tests.hostile.harness import Trap, as_params, outcome, predict_arguments
from training import sft

CASES = dataset_cases()
SHARE = 25  # every so many cases run in `make test`


def test_there_are_hundreds_of_cases() -> None:
    assert len(CASES) > 300


def sft_arguments(folder: Path, dataset: Path, base_model: Path) -> list[str | Path]:
    return [
        "--model_name_or_path", base_model, "--dataset_name", dataset, "--dataset_train_split", "validation",
        "--max_eval_samples", "0", "--output_dir", folder / "run", "--max_steps", "1", "--bf16", "false",
    ]  # fmt: skip


def hostile_dataset(case: Case, trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the case's dataset; `datasets` gets a cache of its own."""
    from datasets import config

    folder = tmp_path / "dataset"
    folder.mkdir()
    write(trap.sources.secret.parent / "outside", good_columns(), name="x.parquet")
    case.make(folder, trap.sources)
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.mark.parametrize("case", as_params(CASES, share=SHARE))
def test_a_hostile_dataset_ends_in_one_line_in_every_command(
    tiny_base: Path,
    trap: Trap,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    case: Case,
) -> None:
    folder = hostile_dataset(case, trap, tmp_path, monkeypatch)
    (tmp_path / "p.csv").write_text("index,prediction\n0,6.0 gram\n1,\n")
    page = tmp_path / "report.html"
    commands = {
        report: ["--dataset", folder, "--predictions", tmp_path / "p.csv", "--output", page, "--bootstrap", "0"],
        evaluate: ["--predictions", tmp_path / "p.csv", "--references", f"{folder}:validation", "--bootstrap", "0"],
        predict: predict_arguments(tmp_path, folder, "--base_model", tiny_base),
        sft: sft_arguments(tmp_path, folder, tiny_base),
    }  # fmt: skip
    refusals = {}
    for command, arguments in commands.items():
        if command is sft and refusals[predict] is None:
            continue  # it would train; what it loads is the same
        names = "" if command is sft else str(folder)  # which names the row, if it was loaded
        refusals[command] = outcome(command.main, monkeypatch, *arguments, names=names)
    assert (refusals[predict] is None) == (tmp_path / "s.csv").exists()
    if page.exists():
        html = page.read_text()
        assert "<script>alert" not in html and "a secret" not in html and trap.sources.server not in html
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed and "panicked" not in printed


@pytest.mark.parametrize("case", as_params(CASES, share=2 * SHARE))
def test_a_hostile_dataset_is_streamed_or_refused_as_one_on_disk_is(
    tiny_base: Path,
    trap: Trap,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    case: Case,
) -> None:
    folder = hostile_dataset(case, trap, tmp_path, monkeypatch)
    expected = rows_or_none(lambda: list(load_split(Location(str(folder)), "validation")))
    assert rows_or_none(lambda: streamed_rows(folder)) == expected
    if expected is None:
        arguments = sft_arguments(tmp_path, folder, tiny_base)
        assert outcome(sft.main, monkeypatch, *arguments, "--streaming", "true", names="") is not None
        assert "Traceback" not in "".join(capfd.readouterr())


def rows_or_none(read: Callable[[], list[Any]]) -> list[Any] | None:
    """None if they are refused, in one line."""
    try:
        with argument("dataset"):
            return read()
    except InputError as error:
        message = str(error)
    assert message.isprintable() and len(message) < 2500
    return None


def streamed_rows(folder: Path) -> list[Any]:
    split = open_split(Location(str(folder)), "validation")
    if split is None:
        raise InputError("no such split")
    return [row for group, size in enumerate(split.num_rows) if size for row in split.read(group).to_pylist()]
