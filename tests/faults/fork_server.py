"""A process that imports the commands once, and forks for each run of one: `python -m tests.faults.fork_server`.

It is started with the shim in LD_PRELOAD. Requests and replies are lines of JSON on its standard input and output.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import resource
import runpy
import select
import signal
import sys
import threading
import time
import traceback
from typing import Any

LIMITS = {"file_bytes": resource.RLIMIT_FSIZE, "open_files": resource.RLIMIT_NOFILE}


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    modules: dict[str, float] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            reply: Any = start(request["start"])
        elif "wait" in request:
            reply = wait(request["wait"], timeout_s=request["timeout_s"])
        else:
            for name in request["imports"]:
                if name not in modules:
                    modules[name] = 0
                    with contextlib.suppress(Exception):
                        importlib.import_module(name)
            reply = {"threads": len(os.listdir("/proc/self/task"))}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def start(run: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _run_command(run)
        except BaseException:
            traceback.print_exc()
        finally:
            _end(code)
    return pid


def _run_command(run: dict[str, Any]) -> int:
    """In the child: the command as `python -m` runs it, and then its exit code."""
    os.setsid()
    os.chdir(run["folder"])
    os.environ.update(run["environment"])
    for number, name in ((0, os.devnull), (1, run["stdout"]), (2, run["stderr"])):
        os.dup2(os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, buffering=1, closefd=False)  # noqa: SIM115
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    faulthandler.enable(sys.stderr)  # says where a run hangs, when it is ended by SIGABRT
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for name, value in run["limits"].items():
        resource.setrlimit(LIMITS[name], (value, value))
    for where, value in run["patches"].items():
        patch(where, value)
    if run["modules"]:
        exit_with_modules(run["modules"])
    trace = os.open(run["trace"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    shim = ctypes.CDLL(None)
    if run["brief_sleeps"]:
        shim.shim_no_sleep()
    fault = run["fault"]
    if fault:
        shim.shim_arm(
            "\n".join(fault["folders"]).encode(), fault["operations"], fault["action"], ctypes.c_long(fault["nth"]),
            fault["errno"], trace, ctypes.c_long(fault["jump_s"]),
        )  # fmt: skip
    sys.argv = [run["module"], *run["arguments"]]
    sys.modules.pop(run["module"], None)  # runpy warns about a module that was imported before
    code: Any = 0
    try:
        runpy.run_module(run["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    return int(code or 0)


def exit_with_modules(file: str) -> None:
    """Make the process record at its end which modules it has imported."""
    exit_now = os._exit

    def record(code: int) -> None:
        with open(file, "w") as stream:
            json.dump([name for name in sys.modules if not name.startswith("_")], stream)
        exit_now(code)

    os._exit = record  # type: ignore[assignment]


def patch(where: str, value: Any) -> None:
    """Set a time limit: `package.module:CONSTANT.name`, of a mapping or of a frozen dataclass."""
    module, _, constant = where.partition(":")
    name, _, attribute = constant.partition(".")
    holder = getattr(importlib.import_module(module), name)
    if isinstance(holder, dict):
        holder[attribute] = value
    else:
        object.__setattr__(holder, attribute, value)


def _end(code: int) -> None:
    """End as the interpreter does, but without tearing down its modules, which takes a third of a second."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait(pid: int, *, timeout_s: float) -> dict[str, Any]:
    """The exit code, negative for a signal; `hung` if it had to be killed."""
    descriptor = os.pidfd_open(pid)
    deadline = time.monotonic() + timeout_s
    is_over = select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]
    os.close(descriptor)
    if not is_over:
        os.killpg(pid, signal.SIGABRT)
        time.sleep(0.2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # and what it started
    _, status = os.waitpid(pid, 0)
    return {"code": os.waitstatus_to_exitcode(status), "hung": not is_over}


if __name__ == "__main__":
    main()
