"""What a launcher makes of an error and of a signal: through our own, and through accelerate's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from product_vqa import launch
from product_vqa.cli import LAUNCHER_VARIABLE
from product_vqa.errors import InputError
from tests.commands import call

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OURS, ACCELERATES = "product_vqa.launch", "accelerate.commands.launch"

FAILS = """
from product_vqa.cli import run
from product_vqa.errors import InputError

def main():
    raise InputError("--flag: nothing there; give another")

run(main)
"""
WAITS = """
import pathlib, signal, sys, time

def stop(*_):
    pathlib.Path(sys.argv[1], "saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1], "started").touch()
time.sleep(60)
"""


def command(launcher: str, config: str, script: Path) -> list[str]:
    file = ROOT / "training" / "accelerate_configs" / f"{config}.yaml"
    return [sys.executable, "-m", launcher, "--config_file", str(file), str(script), str(script.parent)]


@pytest.mark.parametrize("config", ["cpu", pytest.param("cpu_2", marks=pytest.mark.faults)])
@pytest.mark.parametrize(("launcher", "code"), [(OURS, 2), (ACCELERATES, 1)])
def test_the_error_is_the_last_line_of_a_launched_command(
    tmp_path: Path, launcher: str, code: int, config: str
) -> None:
    script = tmp_path / "fails.py"
    script.write_text(FAILS)
    done = subprocess.run(
        command(launcher, config, script), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, "error: --flag: nothing there; give another")
    assert launcher == ACCELERATES or "Traceback" not in done.stdout


@pytest.mark.faults
def test_the_process_that_failed_is_reported_and_not_those_that_were_stopped_then(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text(
        FAILS.replace("def main():", "def main():\n    if os.environ['RANK'] == '0':\n        time.sleep(60)")
        .replace("\n", "\nimport os, time\n", 1)
    )  # fmt: skip
    done = subprocess.run(command(OURS, "cpu_2", script), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "error: --flag: nothing there; give another")


@pytest.mark.parametrize("config", ["cpu", pytest.param("cpu_2", marks=pytest.mark.faults)])
def test_a_launched_command_receives_sigterm_and_its_exit_code_is_passed_on(tmp_path: Path, config: str) -> None:
    script = tmp_path / "waits.py"
    script.write_text(WAITS)
    process = subprocess.Popen(command(OURS, config, script), cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert (tmp_path / "saved").exists()


def test_a_config_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", OURS, "--config_file", str(tmp_path / "none.yaml"), "-m", "training.sft"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "error: accelerate cannot launch this: The passed configuration file"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *d]\n", "recursive or names no anchor"),
        (b"\xff\xfe", "not UTF-8"),
        (b"- a\n", "must hold `key: value` lines"),
        (b"compute_environment: AMAZON_SAGEMAKER\n", "is not LOCAL_MACHINE"),
        (b"num_processes: {a: 1}\n", "accelerate cannot launch this"),
        (b"distributed_type: [1]\n", "accelerate cannot launch this"),
        (b"unknown: 1\n", "accelerate cannot launch this"),
        (None, "not a regular file"),
    ],
)
def test_a_hostile_config_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    file = tmp_path / "c.yaml"
    if content is None:
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    monkeypatch.setenv(LAUNCHER_VARIABLE, "")
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with pytest.raises(InputError, match=message) as raised:
            call(launch.main, monkeypatch, "--config_file", file, "-m", "product_vqa.nothing")
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "flags", "expected"),
    [pytest.param(None, [], "0", marks=pytest.mark.faults), ("3", [], "3"), ("3", ["--gpu_ids", "1"], "1")],
)
def test_the_gpus_that_the_user_chose_are_kept(
    tmp_path: Path, variable: str | None, flags: list[str], expected: str
) -> None:
    script = tmp_path / "prints.py"
    script.write_text("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"CUDA_VISIBLE_DEVICES": variable} if variable else {}
    config = ROOT / "training" / "accelerate_configs" / "gpu.yaml"
    done = subprocess.run(
        [sys.executable, "-m", OURS, "--config_file", str(config), *flags, str(script)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, [expected]), done.stderr[-500:]
