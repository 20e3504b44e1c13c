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

from product_vqa.cli import LAUNCHER_VARIABLE, run
from product_vqa.errors import InputError, first_line


def main() -> int:
    arguments = launch_command_parser().parse_args()
    os.environ[LAUNCHER_VARIABLE] = "1"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _forward)  # with several processes, torchrun's agent installs its own handlers
    try:
        launch_command(arguments)
    except subprocess.CalledProcessError as error:  # from a single process
        return _shell_code(error.returncode)
    except ChildFailedError as error:  # from several processes
        _, failure = error.get_first_failure()
        message = failure.error_file_data["message"]
        if isinstance(message, dict) and message["message"].startswith(f"{InputError.__name__}: "):
            # The process has printed this already, but torchrun's own lines came after it.
            print(f"error: {message['message'].partition(': ')[2]}", file=sys.stderr)
        return _shell_code(failure.exitcode)
    except SignalException as error:
        return 128 + error.sigval.value
    except (OSError, ValueError) as error:  # no such config file, or options that exclude each other
        raise InputError(f"accelerate cannot launch this: {first_line(error)}") from error
    return 0


def _forward(number: int, _: Any) -> None:
    """Forward a signal to the launched process; the launcher keeps waiting for it."""
    for child in psutil.Process().children():
        child.send_signal(number)


def _shell_code(returncode: int) -> int:
    """Return the exit code as a shell reports it: 128 + N for a process that was killed by signal N."""
    return returncode if returncode >= 0 else 128 - returncode


if __name__ == "__main__":
    run(main)
