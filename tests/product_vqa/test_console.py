"""`product-vqa COMMAND`: the commands of `python -m`, from any folder."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from product_vqa.console import COMMANDS, describe_commands
from tests.commands import ROOT, run_here
from tests.product_vqa.blocked import run_without_extras

_MAIN = "from product_vqa.console import main; main()"


def product_vqa(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _MAIN, *map(str, arguments)],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_command_is_installed_by_its_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"product-vqa": "product_vqa.console:main"}


def test_every_command_is_one_of_python_m() -> None:
    for module, _ in COMMANDS.values():
        file = ROOT / f"{module.replace('.', '/')}.py"
        assert 'if __name__ == "__main__":' in file.read_text(), module
    stages = {"dataset_builder", "training", "inference"}
    found = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for stage in stages
        for file in (ROOT / stage).glob("*.py")
        if 'if __name__ == "__main__":' in file.read_text()
    }
    assert found <= {module for module, _ in COMMANDS.values()}


def test_help_lists_the_commands_and_imports_nothing_heavy(tmp_path: Path) -> None:
    done = product_vqa("--help", folder=tmp_path)
    assert done.stdout == describe_commands() + "\n" and all(f"\n  {name} " in done.stdout for name in COMMANDS)
    program = f"{_MAIN}; import json; print(sorted({{'numpy', 'yaml', 'transformers', 'torch'}} & sys.modules.keys()))"
    assert run_without_extras(program).stdout.endswith("\n[]\n")


def test_an_unknown_command_is_one_line_with_the_nearest(tmp_path: Path) -> None:
    done = product_vqa("predit", folder=tmp_path)
    assert done.returncode == 2
    expected = "error: unknown command predit (did you mean predict?); product-vqa --help lists all commands\n"
    assert done.stderr == expected


@pytest.mark.slow
def test_a_command_runs_from_any_folder_and_names_itself(tmp_path: Path) -> None:
    done = product_vqa("check", "--help", folder=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("usage: product-vqa check [--config FILE] [options]")
    refused = product_vqa("check", "--submission", "none.csv", "--test_csv", "none.csv", folder=tmp_path)
    assert refused.returncode == 2 and refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1


@pytest.mark.parametrize("config", ["paligemma_3b_224_nf4", "training/configs/paligemma_3b_224_nf4.yaml"])
def test_a_shipped_configuration_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run_here("training.estimate", "--config", config, "--lora_r", "-1")
    assert refused.returncode == 2 and re.search(r"error: --lora_r", refused.stderr), refused.stderr


@pytest.mark.slow
def test_a_command_without_its_extra_is_one_line() -> None:
    done = run_without_extras(_MAIN, "evaluate", "--predictions", "x.csv", "--references", "x.csv")
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: \w+ is not installed: pip install 'product-vqa\[all\]' \(what is installed can only read images\)\n",
        done.stderr,
    )
