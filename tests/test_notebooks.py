"""The notebooks are what their source makes, and run from the first cell to the last one."""

import ast
import importlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from product_vqa import cli
from quickstart.file_server import serve_folder
from tests.commands import ROOT, run_module

if TYPE_CHECKING:
    from local_hub import LocalHub

SOURCE = runpy.run_path(str(ROOT / "notebooks" / "make_notebooks.py"))
NOTEBOOKS = {platform.name: SOURCE["notebook_file"](platform) for platform in SOURCE["PLATFORMS"]}
SET_BY_CELLS = {"TRAINING": str(ROOT / "training"), "SECONDS_LEFT": "60", "SHARD": "1/8"}


def read_cells(notebook: Path, cell_type: str) -> list[str]:
    """The sources of the cells of a type."""
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == cell_type]


def read_settings(notebook: Path) -> dict[str, str]:
    """The values of the first cell of code."""
    assignment = ast.parse(read_cells(notebook, "code")[0]).body[1]
    assert isinstance(assignment, ast.Assign)
    settings: dict[str, str] = ast.literal_eval(assignment.value)
    return settings


def shell_lines(notebook: Path) -> Iterator[str]:
    """Each line that a cell gives to the shell, without the exclamation mark and in one piece."""
    for source in read_cells(notebook, "code"):
        for line in re.sub(r"\\\n\s*", "", source).splitlines():
            if line.strip().startswith("!"):
                yield line.strip().removeprefix("!")


# ---- The notebooks, read ------------------------------------------------------------------------------------------


def test_the_notebooks_are_what_their_source_makes() -> None:
    """`make notebooks` writes them."""
    assert sorted(NOTEBOOKS.values()) == sorted((ROOT / "notebooks").glob("*.ipynb"))
    for platform in SOURCE["PLATFORMS"]:
        assert NOTEBOOKS[platform.name].read_text() == SOURCE["make_notebook"](platform)


@pytest.mark.parametrize("notebook", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_a_notebook_is_valid_and_holds_neither_output_nor_secret(notebook: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: `make install`")
    content = nbformat.read(notebook, as_version=4)
    nbformat.validate(content)
    assert nbformat.writes(content) + "\n" == notebook.read_text()  # as Jupyter would save it
    cells = [cell for cell in content.cells if cell.cell_type == "code"]
    assert len(cells) > 12
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert max(len(cell.source.splitlines()) for cell in cells) <= 26
    assert not re.search(r"\bhf_[A-Za-z0-9]{8,}", notebook.read_text())


@pytest.mark.parametrize("notebook", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_each_setting_is_used_and_each_variable_is_set(notebook: Path) -> None:
    settings, code = read_settings(notebook), "\n".join(read_cells(notebook, "code"))
    used = set(re.findall(r"\$([A-Z_]+)", "\n".join(shell_lines(notebook)))) | set(
        re.findall(r'os\.environ\[[\'"]([A-Z_]+)', code)
    )
    names = {"DATASET", "ADAPTER", "PREDICTIONS"}  # which a loop completes
    assert used - {"HF_TOKEN"} == settings.keys() - {"HF_HOME"} | SET_BY_CELLS.keys()
    assert names < settings.keys()
    assert all(isinstance(value, str) for value in settings.values())


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_each_command_of_a_notebook_parses(notebook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the parser of the command itself, and the values of the settings."""
    values = read_settings(notebook) | SET_BY_CELLS
    modules = []
    for line in shell_lines(notebook):
        words = shlex.split(Template(line).substitute(values))
        if "-m" not in words or "pip" in words:
            continue
        module, arguments = words[words.index("-m") + 1], words[words.index("-m") + 2 :]
        if module == "product_vqa.launch":
            from accelerate.commands.launch import launch_command_parser

            launch = launch_command_parser().parse_args(arguments)
            assert launch.module and Path(launch.config_file).is_file()
            module, arguments = launch.training_script, launch.training_script_args
        assert_parses(module, arguments, monkeypatch)
        modules.append(module)
    assert set(modules) == {
        "training.estimate", "dataset_builder.inspect", "dataset_builder.build", "training.sft", "inference.predict",
        "inference.evaluate", "inference.check",
    }  # fmt: skip
    assert len(modules) == 11


def assert_parses(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command accepts the arguments; it goes no further."""

    class ParsedError(Exception):
        pass

    def parse(*dataclass_types: type, **options: Any) -> None:
        original(*dataclass_types, **options)
        raise ParsedError

    original, command = cli.parse_options, importlib.import_module(module)
    with monkeypatch.context() as patched:
        patched.setattr(cli, "parse_options", parse)
        if hasattr(command, "parse_options"):
            patched.setattr(command, "parse_options", parse)
        patched.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(ParsedError):
            command.main()


# ---- The notebooks, run -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh environment without this project. It shares the other packages with the environment of the tests."""
    for name in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(name, reason=f"{name} is not installed: `make install`")
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    (own,) = environment.glob("lib/python*/site-packages")
    shared = {str(Path(_origin(name)).parents[1]) for name in ("pip", "torch", "ipykernel")}
    (own / "shared.pth").write_text(
        "\n".join(shared)
    )  # whose own .pth files, of this project's checkout, are not read
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [str(environment / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PATH", f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return environment


def _origin(name: str) -> str:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return spec.origin


def execute(notebook: Path, folder: Path) -> str:
    """Run all cells in a folder, and return their output. Raises nbclient's CellExecutionError where a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    client = NotebookClient(content, timeout=900, resources={"metadata": {"path": str(folder)}})
    try:
        client.execute()
    finally:
        outputs = [output for cell in content.cells if cell.cell_type == "code" for output in cell.outputs]
        text = "".join(output.get("text", "") for output in outputs)
        (folder / "output.txt").write_text(text)
    return text


@pytest.fixture
def settings(tmp_path: Path, wheel: Path, hub: "LocalHub", monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Values for a run on this machine: rendered labels, the quickstart's base model, and a Hub on loopback."""
    from huggingface_hub import HfApi

    labels = tmp_path / "labels"
    images = tmp_path / "work" / "images"
    with serve_folder(labels / "images") as url:
        run_module("quickstart.rendering.render", "--output_dir", labels, "--train_rows", 96, "--test_rows", 80,
                   "--base_url", url)  # fmt: skip
        csvs = ("--train_csv", labels / "train.csv", "--test_csv", labels / "test.csv")
        # The notebook refuses private addresses, so the store has the images before it runs.
        run_module("dataset_builder.download", *csvs, "--image_store", images, "--image_size", 224,
                   "--allow_private_hosts")  # fmt: skip
    api = HfApi()
    api.create_repo("local/small-paligemma", private=True, exist_ok=True)
    api.upload_folder(repo_id="local/small-paligemma", folder_path=ROOT / "quickstart" / "base")
    values = {
        "PACKAGE": f"{wheel}[all]",
        "TRAIN_CSV": str(labels / "train.csv"),
        "TEST_CSV": str(labels / "test.csv"),
        "DATASET": f"{tmp_path.name}-dataset",
        "ADAPTER": f"{tmp_path.name}-adapter",
        "PREDICTIONS": f"{tmp_path.name}-predictions",
        "BASE_MODEL": "local/small-paligemma",
        "CONFIG": "quickstart.yaml",
        "ACCELERATE_CONFIG": "cpu.yaml",
        "NUM_PROCESSES": "1",
        "TRIAL_ROWS": "64",
        "SHARDS": "2",
        "WORK_DIR": str(tmp_path / "work"),
        "HF_HOME": str(tmp_path / "cache"),
        "SUBMISSION": str(tmp_path / "submission.csv"),
    }
    for name, value in values.items():
        monkeypatch.setenv(f"PRODUCT_VQA_{name}", value)
    return values


@pytest.mark.faults
def test_the_notebook_for_colab_runs_to_an_accepted_submission(
    kernel: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    output = execute(NOTEBOOKS["colab"], tmp_path)
    assert_submitted(output, settings)


@pytest.mark.faults
def test_the_notebook_for_kaggle_resumes_in_the_next_session(
    kernel: Path, settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient.exceptions import CellExecutionError

    monkeypatch.setenv("PRODUCT_VQA_ACCELERATE_CONFIG", "cpu_2.yaml")
    monkeypatch.setenv("PRODUCT_VQA_NUM_PROCESSES", "2")
    monkeypatch.setenv("PRODUCT_VQA_SESSION_HOURS", "0")
    with pytest.raises(CellExecutionError, match=r"SESSION_HOURS are over\. Run all cells again in the next session"):
        execute(NOTEBOOKS["kaggle"], tmp_path)
    output = (tmp_path / "output.txt").read_text()
    assert "will be built" in output and "rows selected" in output and "pushed: " in output

    monkeypatch.delenv("PRODUCT_VQA_SESSION_HOURS")
    monkeypatch.setenv("PRODUCT_VQA_WORK_DIR", str(tmp_path / "another-disk"))
    monkeypatch.setenv("PRODUCT_VQA_HF_HOME", str(tmp_path / "another-cache"))
    output = execute(NOTEBOOKS["kaggle"], tmp_path)
    assert "is on the Hub" in output and "rows selected" not in output  # neither the trial nor the build is repeated
    assert_submitted(output, settings)


def assert_submitted(output: str, settings: dict[str, str]) -> None:
    """The submission has each index of test.csv, was accepted, and what it was made from is on the Hub."""
    from huggingface_hub import HfApi

    submission, test = pd.read_csv(settings["SUBMISSION"]), pd.read_csv(settings["TEST_CSV"])
    assert list(submission["index"]) == list(test["index"])
    assert f"{len(test)} rows" in output and "accepted" in output
    files = HfApi().list_repo_files(f"local/{settings['ADAPTER']}")
    assert "adapter_model.safetensors" in files and any(name.startswith("last-checkpoint/") for name in files)
    predictions = HfApi().list_repo_files(f"local/{settings['PREDICTIONS']}", repo_type="dataset")
    assert sum(name.endswith(".parquet") for name in predictions) == int(settings["SHARDS"])
    assert os.environ["HF_TOKEN"] not in output
