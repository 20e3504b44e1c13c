"""Hostile adapters and base models: predict succeeds or ends in one line, and runs, reads and asks nothing."""

import io
import shutil
from pathlib import Path

import pytest

from inference import predict
from tests.commands import call
from tests.hostile.adapters import Case, adapter_cases
from tests.hostile.base_models import base_model_cases
from tests.hostile.datasets import good_columns, write
from tests.hostile.harness import Trap, as_params, outcome, predict_arguments
from tests.product_vqa.modeling.adapters import save_adapter

CASES = [*adapter_cases(), *base_model_cases()]
SHARE = 40  # every so many cases run in `make test`


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A folder with an adapter, its base model and a dataset of one row."""
    folder = tmp_path_factory.mktemp("good")
    shutil.copytree(tiny_base, folder / "base")
    save_adapter(folder / "adapter", folder / "base")
    write(folder / "dataset", good_columns(1))
    return folder


def test_there_are_hundreds_of_cases_and_the_good_ones_succeed(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(adapter_cases()) > 400 and len(base_model_cases()) > 300
    call(predict.main, monkeypatch, *predict_arguments(tmp_path, good / "dataset", "--adapter", good / "adapter"))
    assert (tmp_path / "s.csv").read_text().startswith("index,prediction\n0,")


@pytest.mark.parametrize("case", as_params(CASES, share=SHARE))
def test_a_hostile_adapter_or_base_model_ends_in_one_line(
    good: Path,
    trap: Trap,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    case: Case,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))  # yes, run the code
    shutil.copytree(good / "base", tmp_path / "base")
    if not case.is_base_model:
        shutil.copytree(good / "adapter", tmp_path / "adapter")
    folder = tmp_path / ("base" if case.is_base_model else "adapter")
    case.change(folder, trap.sources)
    models: list[str | Path] = ["--base_model", folder] if case.is_base_model else ["--adapter", folder]
    if not case.is_base_model and not case.names_base_model:
        models += ["--base_model", tmp_path / "base"]
    refusal = outcome(
        predict.main,
        monkeypatch,
        *predict_arguments(tmp_path, good / "dataset", *models),
        names="" if case.names_base_model else str(tmp_path),
    )
    assert (refusal is None) == (tmp_path / "s.csv").exists()
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed and "panicked" not in printed
