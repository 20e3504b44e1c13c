"""The run as one file: what uv and the Hub read from it, and the run itself against a Hub on loopback."""

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from product_vqa.errors import InputError
from tests.commands import ROOT, call

SCRIPT = ROOT / "scripts" / "hf_job.py"
REPOS = ("--dataset", "local/tiny-dataset", "--adapter", "local/job-adapter", "--predictions", "local/job-predictions")


def run_script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script in a folder with the environment of the tests, in which uv would run it with its own."""
    return subprocess.run(
        [sys.executable, SCRIPT, *REPOS, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_the_header_says_what_the_script_needs() -> None:
    from huggingface_hub import JobHardware
    from huggingface_hub.cli._uv_script_header import parse_uv_script_header

    lines = SCRIPT.read_text().split("# ///\n")[0].splitlines()
    assert lines[0] == "# /// script"
    header = tomllib.loads("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[1:]))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert header["requires-python"] == project["requires-python"]
    assert header["dependencies"] == [project["name"]]
    assert "git" in header["tool"]["uv"]["sources"][project["name"]]  # not whatever an index has under this name
    job = parse_uv_script_header(SCRIPT.read_text())
    assert job is not None and job.secrets == ["HF_TOKEN"] and not job.env
    assert job.flavor in {hardware.value for hardware in JobHardware}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shards", "0"], "--shards must be at least 1, got 0"),
        (["--training_options", "seed=1", "fast"], "--training_options 'fast' is not of the form name=value"),
        (
            ["--training_config", "none.yaml"],
            r"--training_config none.yaml: no such file, and none of .*quickstart.yaml",
        ),
    ],
)
def test_wrong_options_are_named_before_anything_runs(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("hf_job", SCRIPT)
    assert spec is not None and spec.loader is not None
    job = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "hf_job", job)
    spec.loader.exec_module(job)
    with pytest.raises(InputError, match=message):
        call(job.main, monkeypatch, *REPOS, *arguments)


@pytest.mark.faults
def test_a_job_trains_and_predicts_and_another_one_resumes_on_an_empty_disk(
    hub: Any, tiny_repos: tuple[str, str], tmp_path: Path
) -> None:
    from huggingface_hub import HfApi, hf_hub_download

    base, _ = tiny_repos
    options = ["--training_config", "quickstart.yaml", "--shards", "2", "--batch_size", "2"]
    options += ["--training_options", f"model_name_or_path={base}", "max_steps=2", "max_eval_samples=4"]
    outputs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        done = run_script(tmp_path / name, *options)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        outputs.append(done.stdout)
    assert "unchanged" not in outputs[0]
    for number in (1, 2):
        assert f"unchanged: shard {number}/2 of local/job-predictions" in outputs[1]
    files = HfApi().list_repo_files("local/job-adapter")
    assert {"adapter_model.safetensors", "README.md", "submission.csv"} <= set(files)
    pushed = Path(hf_hub_download("local/job-adapter", "submission.csv")).read_bytes()
    assert pushed == (tmp_path / "second" / "runs" / "hf_job" / "submission.csv").read_bytes()
    assert pushed.startswith(b"index,prediction\n")
