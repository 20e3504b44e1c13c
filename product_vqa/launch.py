"""Launch a command like `accelerate launch`, and end with the exit code of that command.

    python -m product_vqa.launch --config_file training/accelerate_configs/gpu.yaml -m training.sft --config ...

The arguments are those of `accelerate launch`. Whatever fails, that one ends with exit code 1 and a traceback of its
own. A SIGTERM ends it without reaching the process that it launched.
"""

import os
import signal
import subprocess
import sys
from typing import Any

import psutil
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from product_vqa.cli import LAUNCHER_VARIABLE, MAX_CONFIG_BYTES, run
from product_vqa.documents import read_json, read_yaml
from product_vqa.errors import InputError, first_line
from product_vqa.paths import find_shipped


def main() -> int:
    arguments = launch_command_parser().parse_args()
    if arguments.config_file is not None:
        arguments.config_file = find_shipped(arguments.config_file, folder="accelerate_configs")
        check_config(arguments.config_file)
    if arguments.gpu_ids is None and "CUDA_VISIBLE_DEVICES" in os.environ:
        arguments.gpu_ids = "all"  # else the file's `gpu_ids` would replace the GPUs that the user or a cluster chose
    os.environ[LAUNCHER_VARIABLE] = "1"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _forward)  # with several processes, torchrun's agent installs its own handlers
    try:
        launch_command(arguments)
    except subprocess.CalledProcessError as error:  # from a single process
        return _shell_code(error.returncode)
    except ChildFailedError as error:  # from several processes
        # The agent sends SIGTERM to the others when one fails, and its times are in whole seconds.
        stopped = (-signal.SIGTERM, 128 + signal.SIGTERM)
        failure = min(error.failures.values(), key=lambda one: (one.exitcode in stopped, one.timestamp))
        message = failure.error_file_data["message"]
        if isinstance(message, dict) and message["message"].startswith(f"{InputError.__name__}: "):
            # The process has printed this already, but torchrun's own lines came after it.
            print(f"error: {message['message'].partition(': ')[2]}", file=sys.stderr)
        return _shell_code(failure.exitcode)
    except SignalException as error:
        return 128 + error.sigval.value
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:  # values or options that do not fit
        raise InputError(f"accelerate cannot launch this: {first_line(error)}") from error
    return 0


def check_config(file: str) -> None:
    """Raise InputError unless the file is a small YAML or JSON mapping; accelerate reads it without any limit."""
    try:
        config = (read_json if file.endswith(".json") else read_yaml)(file, max_bytes=MAX_CONFIG_BYTES)
    except FileNotFoundError:
        return  # accelerate says so
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"accelerate cannot launch this: --config_file {file}: {reason}") from error
    if not isinstance(config, dict):
        raise InputError(f"accelerate cannot launch this: --config_file {file} must hold `key: value` lines")
    environment = config.get("compute_environment", "LOCAL_MACHINE")
    if environment != "LOCAL_MACHINE":
        raise InputError(f"--config_file {file}: compute_environment {environment!r} is not LOCAL_MACHINE")


def _forward(number: int, _: Any) -> None:
    """Forward a signal to the launched process; the launcher keeps waiting for it."""
    for child in psutil.Process().children():
        child.send_signal(number)


def _shell_code(returncode: int) -> int:
    """Return the exit code as a shell reports it: 128 + N for a process that was killed by signal N."""
    return returncode if returncode >= 0 else 128 - returncode


if __name__ == "__main__":
    run(main)
