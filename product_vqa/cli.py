"""Parse a command's options into dataclasses, and run it: an error is one line on stderr and an exit code."""

import argparse
import difflib
import inspect
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
import yaml
from trl import TrlParser  # type: ignore[attr-defined]  # exported lazily

from product_vqa.disk_errors import explain_disk_error
from product_vqa.errors import InputError

LAUNCHER_VARIABLE = "PRODUCT_VQA_LAUNCHER"  # set by product_vqa.launch

# Silence two lines that libraries print in every process about their own calls. At import and not in `run`: these
# libraries may be imported before `run` is called.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit" not in str(record.msg))
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lists each option once (TrlParser also accepts `--a_b` as `--a-b`), with its default if it has one.

    The description keeps its lines, so that the example in it can be copied.
    """

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = [name for name in action.option_strings if "-" not in name.removeprefix("--")] or action.option_strings
        value = "" if action.nargs == 0 else f" {self._format_args(action, action.dest.upper())}"
        return ", ".join(names) + value

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.const is False and action.option_strings[0].startswith("--no_"):  # TrlParser's own
            return f"Same as --{action.dest} false."
        if action.required:
            return f"{text} (required)"
        return f"{text} (default: %(default)s)" if action.default not in (None, argparse.SUPPRESS) else text


class CommandParser(TrlParser):
    """A TrlParser (default < YAML < command line) that checks the types of YAML values like those of flags."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message.replace("argument ", ""))  # argparse would print the usage: up to 200 lines

    def set_defaults_with_config(self, **config: Any) -> list[str]:
        # argparse converts and checks a default only if it is a string. `lora_r: 8.5` and `learning_rate: 2e-4` (which
        # YAML reads as text) would otherwise pass unchecked.
        return super().set_defaults_with_config(
            **{key: str(value) if isinstance(value, int | float) else value for key, value in config.items()}
        )


def parse_options(*dataclass_types: type, description: str, argv: list[str] | None = None) -> tuple[Any, ...]:
    """Parse the command line, and the YAML file that `--config` names, into an instance of each dataclass.

    The command line wins over the file. Raises InputError for an option or key that no dataclass has (and suggests the
    nearest one), for a value of the wrong type, and for a missing required option.
    """
    parser = CommandParser(
        list(dataclass_types),  # type: ignore[arg-type]
        description=inspect.cleandoc(description),
        epilog="--config FILE reads any of these options from a YAML file; the command line wins.",
        allow_abbrev=False,
        usage=f"{_program_name()} [--config FILE] [options]",
        formatter_class=_HelpFormatter,
    )
    flags = {flag for action in parser._actions for flag in action.option_strings}
    names = {action.dest for action in parser._actions}
    _option_names.update(names)
    arguments: list[str] = []
    for argument in sys.argv[1:] if argv is None else argv:
        flag, _, value = argument.partition("=")
        if flag == "--config" and value:  # TrlParser does not recognize --config=FILE
            arguments += [flag, value]
            continue
        if flag.startswith("--") and flag not in flags | {"--config"}:
            raise InputError(f"unknown option {flag}{_suggestion(flag, flags)}; --help lists all options")
        arguments.append(argument)
    config_file = _config_file(arguments)
    if config_file is not None:
        _check_config(config_file, names)
    try:
        return tuple(parser.parse_args_and_config(args=arguments))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{error} ({config_file})" if config_file is not None else str(error)) from error


def _program_name() -> str:
    """Return the command as it was started: `python -m inference.check`, not the name of a file."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else "%(prog)s"


def _suggestion(flag: str, flags: set[str]) -> str:
    nearest = difflib.get_close_matches(flag, flags, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _config_file(arguments: list[str]) -> Path | None:
    if "--config" not in arguments:
        return None
    position = arguments.index("--config") + 1
    if position == len(arguments):
        raise InputError("--config needs a file: --config training/configs/quickstart.yaml")
    return Path(arguments[position])


def _check_config(file: Path, names: set[str]) -> None:
    """Raise InputError unless the file is a YAML mapping whose keys are options."""
    if not file.is_file():
        raise InputError(f"--config {file}: no such file")
    try:
        config = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise InputError(f"--config {file} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"--config {file} must hold `key: value` lines, got {type(config).__name__}")
    flags = {f"--{name}" for name in names}
    known = names | {"env"}  # TrlParser's own key: variables to set in the environment
    unknown = [f"{key}{_suggestion(f'--{key}', flags)}" for key in config if key not in known]
    if unknown:
        raise InputError(f"{file}: unknown key {', '.join(unknown)}; --help lists all options")


_option_names: set[str] = set()  # of the command that is running


def with_flags(text: str) -> str:
    """Replace each `option` of the running command, which a library names in backticks, by the flag --option."""
    return re.sub(r"`(\w+)`", lambda name: f"--{name[1]}" if name[1] in _option_names else name[0], text)


class _FlagFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return with_flags(super().format(record))


def run(main: Callable[[], int | None]) -> None:
    """Call a command's `main` and exit with its code; for an InputError, print one line on stderr and exit with 2."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_FlagFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("httpx2", "httpcore2", "httpx", "filelock", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns about odd headers
    try:
        code = main() or 0
    except InputError as error:
        code = _fail(str(error))
    except KeyboardInterrupt:
        print("Interrupted. Rerun the same command to resume.", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `command | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:
        if (message := explain_disk_error(error)) is None:
            raise
        code = _fail(message)
    sys.exit(code)


def _fail(text: str) -> int:
    message = with_flags(text)
    print(f"error: {message}", file=sys.stderr)
    _tell_launcher(message)
    return 2


def _tell_launcher(message: str) -> None:
    """Record the error for `product_vqa.launch`; under `accelerate launch`, print it again after everything else.

    accelerate's launcher ends with exit code 1 and about forty lines of traceback, which would hide the error.
    """
    error_file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # set if this is one of several processes
    if LAUNCHER_VARIABLE in os.environ:
        if error_file:
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler  # takes a second

            get_error_handler().record_exception(InputError(message))
        return
    try:
        launcher = psutil.Process(os.getppid())
        if not any("accelerate" in word for word in launcher.cmdline()[:3]):
            return
        pidfd = os.pidfd_open(launcher.pid)
        if error_file:  # all processes fail; the one that creates this file prints
            os.close(os.open(Path(error_file).parents[1] / "printed", os.O_CREAT | os.O_EXCL))
    except (psutil.Error, OSError, AttributeError):  # AttributeError: only Linux has pidfd_open
        return
    if os.fork() == 0:
        os.setsid()  # torchrun ends the process group
        select.select([pidfd], [], [], 60)  # readable once the launcher has ended
        os.write(sys.stderr.fileno(), f"error: {message}\n".encode(errors="replace"))
        os._exit(0)
