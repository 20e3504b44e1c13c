"""How every command starts and fails: options from dataclasses, errors as one line and an exit code."""

import argparse
import difflib
import logging
import os
import re
import select
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import psutil
from trl import TrlParser  # type: ignore[attr-defined]  # exported lazily

from product_vqa.errors import InputError

LAUNCHER_VARIABLE = "PRODUCT_VQA_LAUNCHER"  # set by product_vqa.launch

# Two lines that every process would print, of calls within libraries that nobody here can change. Here and not in
# `run`, because the libraries may be imported before it is called.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit" not in str(record.msg))
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


class _HelpFormatter(argparse.HelpFormatter):
    """Each option once (TrlParser knows `--a_b` as `--a-b` too), with its default where it has one."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = [name for name in action.option_strings if "-" not in name.removeprefix("--")] or action.option_strings
        value = "" if action.nargs == 0 else f" {self._format_args(action, action.dest.upper())}"
        return ", ".join(names) + value

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required:
            return f"{text} (required)"
        return f"{text} (default: %(default)s)" if action.default not in (None, argparse.SUPPRESS) else text


class CommandParser(TrlParser):
    """TrlParser (default < YAML < command line) whose YAML values pass the same type checks as the command line's."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message.replace("argument ", ""))  # argparse would print the whole usage, here 200 lines

    def set_defaults_with_config(self, **config: Any) -> list[str]:
        # argparse converts and checks a default only if it is a string: `lora_r: 8.5` or `learning_rate: 2e-4` (which
        # YAML reads as text) would otherwise pass as they are.
        return super().set_defaults_with_config(
            **{key: str(value) if isinstance(value, int | float) else value for key, value in config.items()}
        )


def parse_options(*dataclass_types: type, description: str, argv: list[str] | None = None) -> tuple[Any, ...]:
    """An instance of each dataclass, from `--config file.yaml` (any of the fields) and the command line, which wins.

    Raises InputError for a key or a flag that no field has, with the nearest one that exists, for a value of the wrong
    type and for a required one that is missing.
    """
    parser = CommandParser(
        list(dataclass_types),  # type: ignore[arg-type]
        description=description,
        epilog="--config FILE reads any of these options from a YAML file; the command line wins.",
        allow_abbrev=False,
        usage=f"{_program_name()} [--config FILE] [options]",
        formatter_class=_HelpFormatter,
    )
    known = {name for action in parser._actions for name in action.option_strings}
    _option_names.update(action.dest for action in parser._actions)
    arguments: list[str] = []
    for argument in sys.argv[1:] if argv is None else argv:
        flag, _, value = argument.partition("=")
        if flag == "--config" and value:  # TrlParser does not see --config=FILE
            arguments += [flag, value]
            continue
        if flag.startswith("--") and flag not in known | {"--config"}:
            raise InputError(f"unknown option {flag}{_suggestion(flag, known)}; --help lists them all")
        arguments.append(argument)
    config_file = _config_file(arguments)
    try:
        return tuple(parser.parse_args_and_config(args=arguments))
    except ValueError as error:
        if isinstance(error, InputError) or config_file is None:
            raise InputError(str(error)) from error
        if unknown := re.findall(r"'--(\w+)'", str(error)) if "Unknown arguments from config" in str(error) else []:
            keys = ", ".join(f"{key}{_suggestion(f'--{key}', known)}" for key in unknown)
            raise InputError(f"{config_file}: unknown key {keys}; --help lists them all") from error
        raise InputError(f"{error} ({config_file})") from error


def _program_name() -> str:
    """`python -m inference.check`: as it was started, and not the name of a file."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else "%(prog)s"


def _suggestion(flag: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(flag, known, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _config_file(arguments: list[str]) -> Path | None:
    if "--config" not in arguments:
        return None
    position = arguments.index("--config") + 1
    if position == len(arguments):
        raise InputError("--config needs a file: --config training/configs/quickstart.yaml")
    file = Path(arguments[position])
    if not file.is_file():
        raise InputError(f"--config {file}: no such file")
    import yaml

    try:
        content = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"--config {file} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {file} must hold `key: value` lines, got {type(content).__name__}")
    return file


_option_names: set[str] = set()  # of the command that is running


def with_flags(text: str) -> str:
    """Write each `option` of the running command, which a library names in backticks, as the flag --option."""
    return re.sub(r"`(\w+)`", lambda name: f"--{name[1]}" if name[1] in _option_names else name[0], text)


class _FlagFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return with_flags(super().format(record))


def run(main: Callable[[], int | None]) -> None:
    """Call a command's `main` and end the process: its own code, or 2 and one line on stderr for an InputError."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FlagFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx2", "httpcore2", "httpx", "filelock", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of odd headers; what came of a link is recorded
    try:
        code = main() or 0
    except InputError as error:
        message = with_flags(str(error))
        print(f"error: {message}", file=sys.stderr)
        _tell_launcher(message)
        code = 2
    except KeyboardInterrupt:
        print("stopped: started again with the same options, it goes on where it was", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `command | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def _tell_launcher(message: str) -> None:
    """Under `product_vqa.launch`, note the error for it; under `accelerate launch`, print it again at the very end.

    accelerate's launcher ends with exit code 1 and some forty lines of traceback, and the error would be above them.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # one of several processes
    if LAUNCHER_VARIABLE in os.environ:
        if error_file:
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(InputError(message))
        return
    try:
        launcher = psutil.Process(os.getppid())
        if not any("accelerate" in word for word in launcher.cmdline()[:3]):
            return
        pidfd = os.pidfd_open(launcher.pid)
        if error_file:  # all fail together, and the first to come here prints
            os.close(os.open(Path(error_file).parents[1] / "printed", os.O_CREAT | os.O_EXCL))
    except (psutil.Error, OSError, AttributeError):  # AttributeError: no pidfd_open but on Linux
        return
    if os.fork() == 0:
        os.setsid()  # torchrun ends the group
        select.select([pidfd], [], [], 60)  # readable when the launcher has ended
        os.write(sys.stderr.fileno(), f"error: {message}\n".encode(errors="replace"))
        os._exit(0)
