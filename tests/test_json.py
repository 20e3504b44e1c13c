"""Every `--json` prints JSON alone on stdout."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import ROOT, call

pytestmark = pytest.mark.slow

# Those that compare or measure at length, or need an adapter; their --json prints a line for each result.
NOT_HERE = {
    f"benchmarks.{name}"
    for name in (
        "ablation", "attribution", "audit", "build", "disk_space", "dtype_sensitivity", "ensemble", "gpu",
        "grounding", "ocr", "predict", "predict_scale", "ray_engine", "read_many", "real_shape", "second_look",
        "serve", "shards", "silence", "streaming",
    )
}  # fmt: skip


def commands_with_json() -> set[str]:
    option = re.compile(r'^\s*(json: bool = field|parser\.add_argument\("--json")', re.MULTILINE)
    files = [file for file in ROOT.glob("*/*.py") if file.parent.name != "tests" and option.search(file.read_text())]
    return {f"{file.parent.name}.{file.stem}" for file in files}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight rendered rows of each split, the answers to them, and a submission that is half right."""
    from quickstart.rendering.levels import LEVELS
    from quickstart.rendering.writer import write_labels

    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder, train_rows=8, test_rows=8, level=LEVELS["plain"], base_url="http://127.0.0.1:1")
    rows = [line.split(",") for line in (folder / "test_answers.csv").read_text().splitlines()[1:]]
    answers = [f"{index},{value if number % 2 else ''}" for number, (index, _, value) in enumerate(rows)]
    (folder / "submission.csv").write_text("\n".join(["index,prediction", *answers]) + "\n")
    return folder


@pytest.fixture
def arguments(labels: Path) -> dict[str, list[str | Path]]:
    train, test, submission = labels / "train.csv", labels / "test.csv", labels / "submission.csv"
    return {
        "dataset_builder.inspect": ["--train_csv", train, "--test_csv", test],
        "inference.check": ["--submission", submission, "--test_csv", test],
        "inference.evaluate": ["--predictions", submission, "--references", labels / "test_answers.csv"],
        "quickstart.overlap": ["--labels", labels, "--predictions", submission],
        "benchmarks.train": ["--steps", "1", "--repeats", "1"],
    }


def test_every_command_with_json_prints_json_alone(
    arguments: dict[str, list[str | Path]],
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    assert commands_with_json() == arguments.keys() | NOT_HERE
    shrink_the_benchmark(monkeypatch, tiny_base)
    for command, given in arguments.items():
        main: Callable[[], int | None] = __import__(command, fromlist=["main"]).main
        capfd.readouterr()
        call(main, monkeypatch, *given, "--json")
        printed = capfd.readouterr().out
        assert isinstance(json.loads(printed), dict), (command, printed[:500])


def shrink_the_benchmark(monkeypatch: pytest.MonkeyPatch, tiny_base: Path) -> None:
    """benchmarks.train on the tests' tiny base in place of two of 36 and 200 million weights."""
    import shutil

    from benchmarks import train

    def save_tiny_base(folder: Path, *, vocabulary: int) -> int:
        shutil.copytree(tiny_base, folder, dirs_exist_ok=True)
        return vocabulary

    monkeypatch.setattr(train, "save_small_model", save_tiny_base)
    monkeypatch.setattr(train, "measure_memory_in_subprocess", lambda variant, work: {"training_gb": 1.0})
    monkeypatch.setattr(train, "BATCH_SIZE", 2)
    monkeypatch.setattr(train, "WARM_UP", 1)
