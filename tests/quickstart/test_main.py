import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from product_vqa.atomic_io import one_writer
from product_vqa.errors import InputError
from product_vqa.task.schema_file import read_schema
from quickstart import __main__ as quickstart
from quickstart.__main__ import QuickstartOptions
from tests.commands import call, run_module
from tests.example_schemas import FOLDER


@pytest.mark.slow
def test_the_complete_pipeline_runs_offline_and_writes_all_outputs(tmp_path: Path) -> None:
    folder = tmp_path / "quickstart"
    completed = run_module("quickstart", "--output_dir", folder, "--train_rows", 48, "--test_rows", 16, "--seed", 5,
                           "--num_processes", 1)  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary["seconds"]) == [
        "render", "inspect", "build", "base", "predict_before", "train", "predict", "check", "check_official",
        "evaluate_before", "evaluate", "overlap", "report",
    ]  # fmt: skip
    assert summary["rows"] == 16
    assert summary["check"] == "accepted"
    assert 0 <= summary["f1_before"] <= 1
    assert 0 <= summary["f1_strings_after"] <= summary["f1_after"] <= 1
    # Every question is answered: with n of N right, precision and recall differ, and F1 is 2n / (N + n).
    exact = summary["exact_after"]
    assert summary["f1_after"] == pytest.approx(2 * exact / (1 + exact), abs=1e-3)
    assert set(summary["exact_by_entity"]) == set(pd.read_csv(folder / "labels" / "test.csv")["entity_name"])
    for command in ("dataset_builder.build", "training.sft", "inference.predict", "inference.check"):
        assert f"-m {command}" in completed.stdout  # each step is printed as a user would type it
    submission = pd.read_csv(folder / "submission.csv")
    assert list(submission["index"]) == list(pd.read_csv(folder / "labels" / "test.csv")["index"])
    assert (folder / "contact_sheet.png").stat().st_size > 10_000
    for repo_type, repo in (("datasets", "product-labels"), ("models", "small-paligemma"), ("models", "label-reader")):
        assert (folder / "hub" / repo_type / "local" / repo).is_dir()


def test_another_schema_has_more_rows_because_the_base_model_knows_nothing_of_it() -> None:
    assert QuickstartOptions().num_train_rows == 7200
    assert QuickstartOptions(schema="electronics.yaml").num_train_rows == 9600
    assert QuickstartOptions(schema="electronics.yaml", train_rows=48).num_train_rows == 48


@pytest.mark.faults
def test_the_complete_pipeline_runs_for_another_schema(tmp_path: Path) -> None:
    folder, schema = tmp_path / "quickstart", FOLDER / "electronics.yaml"
    completed = run_module("quickstart", "--schema", schema, "--output_dir", folder, "--train_rows", 48,
                           "--test_rows", 21, "--seed", 5, "--num_processes", 1)  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary["seconds"]) == [
        "render", "inspect", "build", "base", "predict_before", "train", "predict", "check", "evaluate_before",
        "evaluate", "overlap", "report",
    ]  # fmt: skip
    assert (summary["rows"], summary["check"]) == (21, "accepted")
    assert set(summary["exact_by_entity"]) == set(read_schema(schema).names)
    assert "accepted by the check" in completed.stdout
    assert (folder / "dataset" / "schema.yaml").is_file() and (folder / "adapter" / "schema.yaml").is_file()


@pytest.mark.faults
def test_two_runs_with_one_seed_train_the_same_adapter_in_any_folder(tmp_path: Path) -> None:
    """Each run serves the images on another port, and each process has another PYTHONHASHSEED."""
    outcomes = []
    for folder in (tmp_path / "one", tmp_path / "another" / "folder"):
        run_module("quickstart", "--output_dir", folder, "--train_rows", 96, "--test_rows", 16, "--seed", 5)
        summary = json.loads((folder / "summary.json").read_text())
        log = pd.read_csv(folder / "adapter" / "log.csv")
        measured = [name for name in log.columns if "runtime" not in name and "per_second" not in name]
        files = {
            row["index"]: row["image_link"].rpartition("/")[2]
            for row in pq.read_table(folder / "dataset" / "rows" / "validation.parquet").to_pylist()
        }
        outcomes.append(
            {
                "summary": {key: summary[key] for key in summary.keys() - {"seconds", "peak_memory_gb"}},
                "log": log[measured].drop(columns="minutes").to_csv(),
                "validation": files,
                "adapter": (folder / "adapter" / "adapter_model.safetensors").read_bytes(),
                "submission": (folder / "submission.csv").read_bytes(),
            }
        )
    assert outcomes[0]["validation"] and "loss" in outcomes[0]["log"]
    for name, outcome in outcomes[0].items():
        assert outcome == outcomes[1][name], name


def test_a_folder_with_other_files_is_not_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="has files that no quickstart wrote"):
        call(quickstart.main, monkeypatch, "--output_dir", tmp_path)
    assert (tmp_path / "thesis.tex").is_file()


def test_a_failed_step_ends_the_run_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="step 'render' failed with exit code"):
        call(quickstart.main, monkeypatch, "--output_dir", tmp_path / "q", "--level", "impossible")


def test_a_schema_that_no_labels_show_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "schema.yaml").write_text("version: 1\nattributes: {größe: {kind: integer}}")
    with pytest.raises(InputError, match=r"^--schema attribute größe: the fonts of rendered labels lack characters"):
        call(quickstart.main, monkeypatch, "--output_dir", tmp_path / "q", "--schema", tmp_path / "schema.yaml")
    assert not (tmp_path / "q").exists()


def test_what_is_right_includes_empty_answers() -> None:
    counts = {"true_positives": 5, "false_positives": 2, "false_negatives": 0, "true_negatives": 3, "rows": 10}
    assert quickstart.exact_share({"by_entity": {"vegan": counts}, "rows": 10}) == 0.8


def test_a_second_quickstart_in_one_folder_is_refused_and_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "hub").mkdir(parents=True)
    (tmp_path / "run" / "hub" / "first").touch()
    with (
        one_writer(tmp_path / "run", argument="output_dir"),
        pytest.raises(InputError, match=r"^--output_dir \S+/run: another process is writing it; wait until it ends"),
    ):
        call(quickstart.main, monkeypatch, "--output_dir", tmp_path / "run")
    assert (tmp_path / "run" / "hub" / "first").is_file()
