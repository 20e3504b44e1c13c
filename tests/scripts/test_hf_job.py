"""The run as one file: what uv and the Hub read from it, and the run itself against a Hub on loopback."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from product_vqa.errors import InputError
from tests.commands import ROOT, call
from tests.dockerfile import copied

SCRIPT = ROOT / "scripts" / "hf_job.py"
REPOS = ("--dataset", "local/tiny-dataset", "--adapter", "local/job-adapter", "--predictions", "local/job-predictions")


OPTIONS = ("--training_config", "quickstart.yaml", "--shards", "2", "--batch_size", "2")
PLACEHOLDER = "https://git.example/product-vqa"


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
    assert header["dependencies"] == [f"{project['name']}[all]"]
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
    options = ("--training_options", f"model_name_or_path={base}", "max_steps=2", "max_eval_samples=4")
    outputs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        done = run_script(tmp_path / name, *OPTIONS, *options)
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


def save_repository(folder: Path) -> Path:
    """A git repository with the files of this checkout that the package is built from, as they are now."""
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(source, folder / name)
    author = ("-c", "user.name=tests", "-c", "user.email=tests@example.com")
    for arguments in (("init", "--quiet"), ("add", "--all"), (*author, "commit", "--quiet", "--message", "package")):
        subprocess.run(["git", "-C", folder, *arguments], check=True)
    return folder


def environment_of_uv(repository: Path) -> dict[str, str]:
    """Lets uv find the project in `repository`, for the header's URL, and torch's CPU build where pip finds it."""
    settings = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    folders = {folder for found in re.findall(r"\.find-links='(.*)'", settings) for folder in found.split()}
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return inherited | {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": PLACEHOLDER,
        "UV_FIND_LINKS": ",".join(sorted(folders)),
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
    }


def start_with_uv(folder: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.Popen[str]:
    folder.mkdir()
    command = ["uv", "run", SCRIPT, *REPOS, *OPTIONS, *arguments]
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not on the PATH; `pip install uv` brings it")
def test_uv_runs_the_script_with_what_its_header_names_and_a_job_that_was_ended_resumes(
    hub: Any, tiny_repos: tuple[str, str], tmp_path: Path
) -> None:
    """It downloads half a gigabyte, once: then uv's cache has it."""
    from huggingface_hub import HfApi, hf_hub_download

    base, _ = tiny_repos
    repository = save_repository(tmp_path / "repository")
    environment = environment_of_uv(repository)
    options = ("--training_options", f"model_name_or_path={base}", "max_steps=100", "max_eval_samples=4")
    options += ("logging_steps=1", "--adapter", "local/uv-adapter", "--predictions", "local/uv-predictions")

    job = start_with_uv(tmp_path / "first", environment, *options)
    assert job.stdout is not None
    output = ""
    for line in job.stdout:
        output += line
        if line.startswith("step 5/"):
            job.send_signal(signal.SIGTERM)
    assert job.wait() == 2, output[-3000:]
    assert "step 'train' failed with exit code 143" in output, output[-3000:]
    assert "last-checkpoint/state.json" in HfApi().list_repo_files("local/uv-adapter")

    job = start_with_uv(tmp_path / "second", environment, *options)
    output, _ = job.communicate()
    assert job.returncode == 0, output[-3000:]
    assert re.search(r"(?m)^resuming at step \d+/100$", output)
    pushed = Path(hf_hub_download("local/uv-adapter", "submission.csv")).read_bytes()
    assert pushed == (tmp_path / "second" / "runs" / "hf_job" / "submission.csv").read_bytes()
    assert pushed.startswith(b"index,prediction\n")

    find = ["uv", "python", "find", "--script", SCRIPT]
    python = subprocess.check_output(find, env=environment, cwd=tmp_path, text=True).strip()
    read = "import importlib.metadata as m; print(m.distribution('product-vqa').read_text('direct_url.json'))"
    installed = json.loads(subprocess.check_output([python, "-c", read], cwd=tmp_path, env=environment))
    head = subprocess.check_output(["git", "-C", repository, "rev-parse", "HEAD"], text=True).strip()
    assert (installed["url"], installed["vcs_info"]["commit_id"]) == (PLACEHOLDER, head)
