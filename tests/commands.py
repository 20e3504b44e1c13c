"""Run commands as users do, each in its own process, or call their `main` in this process, which is faster."""

import contextlib
import importlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from product_vqa.cli import run, with_flags
from product_vqa.errors import InputError

ROOT = Path(__file__).parents[1]
CPU = ROOT / "training" / "accelerate_configs" / "cpu.yaml"
CPU_2 = ROOT / "training" / "accelerate_configs" / "cpu_2.yaml"


def run_module(
    module: str, *arguments: str | Path, environment: dict[str, str] | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """`python -m module arguments`."""
    return _run([sys.executable, "-m", module, *map(str, arguments)], environment, check)


def run_here(module: str, *arguments: str | Path | int) -> subprocess.CompletedProcess[str]:
    """What `python -m module arguments` prints and its exit code, in this process: without what it would import again.

    What is logged is not in `stderr`: pytest has it (`caplog`).
    """
    main = importlib.import_module(module).main
    stdout, stderr = io.StringIO(), io.StringIO()
    on_sigint = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        patch.setattr(sys, "argv", [module, *map(str, arguments)])
        try:
            with pytest.raises(SystemExit) as ended:
                run(main)
        finally:  # a process ends after `run`, but this one does not
            signal.signal(signal.SIGINT, on_sigint)
    return subprocess.CompletedProcess([module, *arguments], ended.value.code, stdout.getvalue(), stderr.getvalue())


def launch(
    module: str,
    *arguments: str | Path,
    config_file: Path = CPU,
    processes: str | None = None,
    environment: dict[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """`accelerate launch --config_file config_file -m module arguments`."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config_file)]
    if processes is not None:
        accelerate += ["--num_processes", processes]
    return _run([*accelerate, "-m", module, *map(str, arguments)], environment, check)


def _run(command: list[str], environment: dict[str, str] | None, check: bool) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, env=os.environ | (environment or {}), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if check:
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done


def in_namespace(mounts: str, command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a command in a mount namespace of its own, after the shell commands `mounts`.

    Skips the test where namespaces are not allowed.
    """
    unshare = ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not allowed")
    return subprocess.run(
        [*unshare, "sh", "-c", f'set -e\n{mounts}\nexec "$@"', "sh", *map(str, command)],
        env=os.environ, cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def call(main: Callable[[], int | None], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | None:
    """A command's `main` with these arguments, in this process: what it raises, the test sees, in the
    words that the user would see."""
    monkeypatch.setattr(sys, "argv", [main.__module__, *map(str, arguments)])
    try:
        return main()
    except InputError as error:
        error.args = (with_flags(str(error)),)
        raise
