"""Parse a command's options into dataclasses, and run it: an error is one line on stderr and an exit code."""

import argparse
import difflib
import gc
import inspect
import itertools
import logging
import math
import os
import re
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin, get_type_hints

import psutil

from product_vqa.documents import parse_yaml, read_bytes, repeated_keys
from product_vqa.errors import InputError, first_line
from product_vqa.machine_errors import explain_machine_error
from product_vqa.paths import find_shipped, shipped_names
from product_vqa.quoting import printable
from product_vqa.redaction import hide_secrets

if TYPE_CHECKING:
    from transformers import HfArgumentParser as Parser
else:
    try:
        from trl import TrlParser as Parser  # the same, and imports in a third of the time
    except ImportError:  # an installation that only reads
        from transformers import HfArgumentParser as Parser

LAUNCHER_VARIABLE = "PRODUCT_VQA_LAUNCHER"  # set by product_vqa.launch
# What an installation without extras lacks, by the name of the import.
OF_EXTRAS = ("bitsandbytes", "datasets", "evaluate", "imagehash", "jinja2", "pandas", "scipy", "trl", "xxhash")
MAX_CONFIG_BYTES = 1_000_000  # of the file of --config
_NAME_OF_REVISION = {"model_revision": "model_name_or_path", "dataset_revision": "dataset_name"}

# Silence two lines that libraries print in every process about their own calls. At import and not in `run`: these
# libraries may be imported before `run` is called.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit" not in str(record.msg))
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lists each option once (the parser also accepts `--a_b` as `--a-b`), with its default if it has one.

    The description keeps its lines, so that the example in it can be copied.
    """

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = [name for name in action.option_strings if "-" not in name.removeprefix("--")] or action.option_strings
        value = "" if action.nargs == 0 else f" {self._format_args(action, action.dest.upper())}"
        return ", ".join(names) + value

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.const is False and action.option_strings[0].startswith("--no_"):  # the parser's own
            return f"Same as --{action.dest} false."
        if action.required:
            return f"{text} (required)"
        return f"{text} (default: %(default)s)" if action.default not in (None, argparse.SUPPRESS) else text


class CommandParser(Parser):
    """Default < YAML < command line. The values of a YAML file are checked like those of flags."""

    def error(self, message: str) -> NoReturn:
        raise InputError(_short(message))  # argparse would print the usage: up to 200 lines

    def set_defaults_from(self, file: str, *, given: dict[str, str]) -> None:
        """Take the values of a YAML file as defaults. Raises InputError, with the file and the key, for a wrong one.

        A revision in the file belongs to the repo in the file: it is ignored if the command line, whose options and
        values are `given`, names another one.

        The file may come from a stranger, so it holds options only: TRL's key `env`, which sets variables of the
        environment (HF_ENDPOINT, PYTHONPATH), is refused.
        """
        hints = {name: hint for kind in self.dataclass_types for name, hint in get_type_hints(kind).items()}
        options = {action.dest: action for action in self._actions if action.dest in hints and action.nargs != 0}
        flags = {f"--{name}" for name in options}
        config = _read_config(file)
        if "env" in config and "env" not in options:
            raise InputError(f"{file}: env: a configuration sets no environment variables; set them in the shell")
        unknown = [str(key)[:100] for key in config if key not in options]
        if unknown:
            shown = ", ".join(f"{key}{_suggestion(f'--{key}', flags)}" for key in unknown[:10])
            more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
            raise InputError(f"{file}: unknown key {shown}{more}; --help lists all options")
        for key, value in config.items():
            name = _NAME_OF_REVISION.get(key, "")
            if name in given and given[name] != config.get(name):
                continue
            try:
                self.set_defaults(**{key: self._convert(value, options[key], _kinds(hints[key]))})
            except (argparse.ArgumentError, ValueError) as error:
                raise InputError(f"{file}: {key}: {_short(getattr(error, 'message', str(error)))}") from error
            options[key].required = False

    def _convert(self, value: Any, action: argparse.Action, kinds: set[Any]) -> Any:
        """Convert a value of YAML as argparse converts the text of a flag, and check it alike.

        argparse itself checks a default only if it is text. `lora_r: 8.5` and `learning_rate: 2e-4` (which YAML reads
        as text) would otherwise pass unchecked, and so would a mapping for a number.
        """
        if value is None:
            if type(None) not in kinds and action.default is not None:
                raise ValueError("has no value; write one, or remove the key")
            return None
        if isinstance(value, dict):
            if dict not in kinds:
                raise ValueError("must be a single value, got a mapping")
            return value
        if isinstance(value, list) and list not in kinds:
            raise ValueError("must be a single value, got a list")
        texts = [_as_text(one) for one in (value if isinstance(value, list) else [value])]
        if isinstance(value, list) and action.nargs != "+":  # a list, where a flag takes one name of it
            return texts
        return self._get_values(action, texts) if texts else []

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        value = super()._get_value(action, arg_string)
        if isinstance(value, float) and not math.isfinite(value):
            raise argparse.ArgumentError(action, f"must be a finite number, got {arg_string}")
        return value


def _kinds(hint: Any) -> set[Any]:
    """The types that a field may have: {dict, str, NoneType} for `dict[str, Any] | str | None`."""
    return {get_origin(one) or one for one in get_args(hint) or (hint,)} | {get_origin(hint) or hint}


def _as_text(value: Any) -> str:
    if isinstance(value, str | int | float | date):
        return str(value)
    raise ValueError(f"must be text or a number, got {type(value).__name__}")


def _short(message: str) -> str:
    """An error of argparse without the second spelling of its option: `--max_steps/--max-steps`."""
    return re.sub(r"(--\w+)(/--[\w-]+)+", r"\1", message.removeprefix("argument "))


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
    _option_names.update(action.dest for action in parser._actions)
    arguments, config_file = _split_arguments(
        sys.argv[1:] if argv is None else argv,
        flags={flag for action in parser._actions for flag in action.option_strings},
    )
    if config_file is not None:
        parser.set_defaults_from(config_file, given=_given_values(arguments))
    try:
        # A file next to the script would be read for more arguments, by default.
        return tuple(parser.parse_args_into_dataclasses(args=arguments, look_for_args_file=False))
    except InputError:
        raise
    except (ValueError, TypeError, OverflowError) as error:  # from the checks of a dataclass of a library
        message = first_line(error)
        raise InputError(f"{message} ({config_file})" if config_file is not None else message) from error


def _split_arguments(arguments: list[str], *, flags: set[str]) -> tuple[list[str], str | None]:
    """Split the command line into options and the file of `--config`; raises InputError for an unknown option."""
    rest: list[str] = []
    config_files: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        flag, _, value = argument.partition("=")
        if flag == "--config":
            file = value or next(remaining, "")
            if not file:
                raise InputError("--config needs a file: --config training/configs/quickstart.yaml")
            config_files.append(file)
        elif flag.startswith("--") and flag not in flags:
            raise InputError(f"unknown option {flag}{_suggestion(flag, flags)}; --help lists all options")
        else:
            rest.append(argument)
    if len(config_files) > 1:
        raise InputError(f"--config is given {len(config_files)} times; one file holds all options of a run")
    return rest, config_files[0] if config_files else None


def _given_values(arguments: list[str]) -> dict[str, str]:
    """Return the options of a command line with their first values."""
    given = {}
    for word, following in itertools.pairwise([*arguments, ""]):
        if word.startswith("--"):
            flag, has_value, value = word.partition("=")
            given[flag.removeprefix("--").replace("-", "_")] = value if has_value else following
    return given


_started_as: str | None = None


def set_program_name(name: str) -> None:
    """Set the command as it was started, if that was not `python -m`."""
    global _started_as
    _started_as = name


def _program_name() -> str:
    """Return the command as it was started: `python -m inference.check`, not the name of a file."""
    if _started_as is not None:
        return _started_as
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else "%(prog)s"


def _suggestion(flag: str, flags: set[str]) -> str:
    nearest = difflib.get_close_matches(flag, flags, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _read_config(file: str) -> dict[str, Any]:
    """Raises InputError unless the file, or the shipped one of this name, is a YAML mapping with text as keys."""
    file = find_shipped(file, folder="configs")
    try:
        content = read_bytes(file, max_bytes=MAX_CONFIG_BYTES)
        config = parse_yaml(content)
        repeated = repeated_keys(content)
    except FileNotFoundError as error:
        shipped = ", ".join(shipped_names("configs"))
        raise InputError(f"--config {file}: no such file; this project ships {shipped}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name, or a DocumentError
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"--config {file}{' is' if reason.startswith('not ') else ':'} {reason}") from error
    if not isinstance(config, dict):
        raise InputError(f"--config {file} must hold `key: value` lines, got {type(config).__name__}")
    if repeated:
        raise InputError(f"--config {file}: key {repeated[0]} is given twice; remove one")
    return config


_option_names: set[str] = set()  # of the command that is running


def with_flags(text: str) -> str:
    """Replace each `option` of the running command, which a library names in backticks, by the flag --option."""
    return re.sub(r"`(\w+)`", lambda name: f"--{name[1]}" if name[1] in _option_names else name[0], text)


class _FlagFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(hide_secrets(with_flags(super().format(record))))


def explain_missing_package(error: Exception) -> str | None:
    """What to install, for an import that an installation without extras lacks; None for another error."""
    if not isinstance(error, ModuleNotFoundError) or error.name not in OF_EXTRAS:
        return None
    return f"{error.name} is not installed: pip install 'product-vqa[all]' (what is installed can only read images)"


def format_error(text: str) -> str:
    """Return an error's message as a command prints it: one line, with flags for arguments and without any secret."""
    return printable(hide_secrets(with_flags(" ".join(text.split("\n")))))


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
    except KeyboardInterrupt:
        print("Interrupted. Rerun the same command to resume.", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `command | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:
        text = str(error) if isinstance(error, InputError) else explain_machine_error(error)
        text = text or explain_missing_package(error)
        if text is None and isinstance(error, OSError):  # a file that disappeared, say
            text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        if text is None:
            raise
        message = format_error(text)
        print(f"error: {message}", file=sys.stderr)
        _tell_launcher(message)
        code = 2
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the work is done: no traceback from the interpreter's end
        gc.freeze()  # or else the interpreter searches what all libraries hold for cycles: 0.3 s of a build
    sys.exit(code)


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
