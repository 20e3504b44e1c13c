"""The Dockerfile, read: no test builds the image, since none needs Docker."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.dockerfile import DOCKERFILE, INSTRUCTIONS, copied


def test_the_base_image_is_the_one_of_ci() -> None:
    assert [rest for word, rest in INSTRUCTIONS if word == "FROM"] == re.findall(
        r"container: (python:3\.11-bookworm@sha256:[0-9a-f]{64})", (ROOT / ".github/workflows/audit.yml").read_text()
    )


def test_packages_are_installed_with_hashes_for_a_cpu_and_for_cuda() -> None:
    installs = re.findall(r"pip install [^;&\n]+", "\n".join(rest for word, rest in INSTRUCTIONS if word == "RUN"))
    assert len(installs) == 4
    for install in installs:
        is_own = install.split()[2:] == ["--no-deps", "--no-build-isolation", "."]
        assert is_own or ("--no-deps" in install and "--require-hashes" in install), install
    for lock in ROOT.glob("requirements*.lock"):
        assert lock.name in DOCKERFILE
    assert ("ARG", "TORCH=cpu") in INSTRUCTIONS


def test_the_container_runs_as_a_user_without_rights_and_no_layer_holds_a_secret() -> None:
    assert [rest for word, rest in INSTRUCTIONS if word == "USER"] == ["1000"]
    last = [word for word, _ in INSTRUCTIONS][-5:]
    assert last == ["USER", "ENV", "WORKDIR", "ENTRYPOINT", "CMD"]
    variables = " ".join(rest for word, rest in INSTRUCTIONS if word in ("ARG", "ENV"))
    assert not re.search(r"(?i)token|secret|password|key", variables)
    assert not [word for word, _ in INSTRUCTIONS if word == "ADD"]


def test_the_build_gets_what_the_dockerfile_copies_and_nothing_else_of_the_checkout() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in ignored if line and not line.startswith("#")]
    assert patterns[0] == "*"
    allowed = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}
    assert allowed == set(copied())
    assert all((ROOT / name).exists() for name in allowed)


@pytest.mark.slow
def test_the_wheel_can_be_built_from_what_is_copied(tmp_path: Path) -> None:
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied())
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    assert list((tmp_path / "dist").glob("product_vqa-*.whl"))
