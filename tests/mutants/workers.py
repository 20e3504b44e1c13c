"""Run tests against mutants: in a copy of the repo, each in a process of its own with the libraries already loaded."""

import contextlib
import gc
import importlib.util
import json
import multiprocessing
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = ["-x", "-m", "not slow and not faults", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
PLUGINS = "pytest_timeout,_hypothesis_pytestplugin"  # to look for plugins takes longer than many a test
# Of processor time, for mutants that never end, whatever else the machine does; and of time, for those that wait.
MIN_CPU_S, MIN_TIMEOUT_S = 10, 20
TIMEOUT_FACTOR = 5  # of what the tests take without a mutant
MAX_BYTES = 8 * 1024**3  # of memory that a mutant may ask for

_OURS = {"tests", "product_vqa", "dataset_builder", "training", "inference", "local_hub", "quickstart", "benchmarks"}


class Outcome(NamedTuple):
    result: str  # killed, timeout, survived
    seconds: float


def copy_repo(folder: Path) -> None:
    """Copy the files that git knows or does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def run_mutants(copy: Path, module: str, texts: Sequence[str], *, tests: Sequence[str]) -> Iterator[Outcome]:
    """Run `tests` (arguments of pytest) for each of the module's texts, one after another.

    Raises RuntimeError if they fail without a mutant.
    """
    original = (copy / module).read_text()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    server = context.Process(target=_serve, args=(copy, module, texts, tests, sender))
    server.start()
    sender.close()
    try:
        for _ in texts:
            yield Outcome(*receiver.recv())
    except EOFError:
        log = (copy / "pytest.log").read_text()
        raise RuntimeError(f"the tests of {module} fail without a mutant:\n{log}") from None
    finally:
        server.terminate()
        server.join()
        (copy / module).write_text(original)


def _serve(copy: Path, module: str, texts: Sequence[str], tests: Sequence[str], sender: Connection) -> None:
    """Load what the tests need but the repo's own modules, then fork for each text."""
    os.chdir(copy)
    os.environ |= {"PYTHONPATH": str(copy), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": PLUGINS}
    sys.path[:0] = [str(copy)]
    for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
        del sys.modules[name]
    importlib.import_module("tests.conftest")  # sets what the libraries read when they are imported

    names = copy / "modules.json"
    if _run_tests(copy, tests, list_modules=names).result != "survived":
        return
    for name in json.loads(names.read_text()):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    before = os.times()
    seconds = _run_tests(copy, tests).seconds
    cpu_s = os.times().children_user + os.times().children_system - before.children_user - before.children_system
    limits = {
        "cpu_s": max(MIN_CPU_S, round(TIMEOUT_FACTOR * cpu_s)),
        "timeout_s": max(MIN_TIMEOUT_S, TIMEOUT_FACTOR * seconds),
    }

    gc.collect()
    gc.freeze()  # or each mutant searches the objects of the libraries for garbage, which takes half of its time
    # Compiled files are recognized by time and size, which two mutants may have in common.
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    file = copy / module
    Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    for text in texts:
        file.write_text(text)
        sender.send(tuple(_run_tests(copy, tests, **limits)))


def _run_tests(
    copy: Path,
    tests: Sequence[str],
    *,
    cpu_s: int = resource.RLIM_INFINITY,
    timeout_s: float = 600,
    list_modules: Path | None = None,
) -> Outcome:
    """Fork and run pytest. `list_modules`: where to list the modules of the libraries that it has loaded."""
    started = time.monotonic()
    if not (pid := os.fork()):
        code = 1
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_DATA, (MAX_BYTES, MAX_BYTES))
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
            log = os.open(copy / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            shutil.rmtree(os.environ["HF_HOME"])  # what earlier mutants have downloaded
            Path(os.environ["HF_HOME"]).mkdir()
            code = int(pytest.main([*OPTIONS, "--basetemp", str(copy / ".pytest_temporary"), *tests]))
            if list_modules:
                names = [name for name in sys.modules if name.partition(".")[0] not in {*_OURS, "__main__"}]
                list_modules.write_text(json.dumps(names))
        finally:
            os._exit(code)
    descriptor = os.pidfd_open(pid)
    is_done, _, _ = select.select([descriptor], [], [], timeout_s)
    os.close(descriptor)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # with what it has started
    _, status = os.waitpid(pid, 0)
    has_ended = is_done and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL))
    result = "timeout" if not has_ended else "survived" if status == 0 else "killed"
    return Outcome(result, time.monotonic() - started)
