"""Write docs/reference.md from the commands' own --help and the docstrings of the public classes.

make reference        (a test fails when the file is not what this would write)
"""

import contextlib
import dataclasses
import inspect
import io
import os
import re
import runpy
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "reference.md"

# In the order of use. The commands of benchmarks and of the quickstart's parts are described by their --help alone.
COMMANDS = [
    "dataset_builder.inspect",
    "dataset_builder.download",
    "dataset_builder.ocr",
    "dataset_builder.build",
    "dataset_builder.audit",
    "training.estimate",
    "training.sft",
    "inference.predict",
    "inference.check",
    "inference.evaluate",
    "inference.calibrate",
    "inference.ensemble",
    "inference.report",
    "inference.demo",
    "inference.serve",
    "inference.export",
    "inference.parity",
    "local_hub",
    "quickstart",
    "product_vqa.launch",
]


def read_helps(commands: list[str]) -> dict[str, str]:
    """The output of `python -m module --help` for each command, on lines that are not wrapped.

    All in this process, because they share what takes seconds to import.
    """
    helps, argv, columns = {}, sys.argv, os.environ.get("COLUMNS")
    try:
        os.environ["COLUMNS"] = "10000"
        for module in commands:
            sys.argv = [module, "--help"]
            with contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of runpy, about a module that was imported before
                code: object = None
                try:
                    runpy.run_module(module, run_name="__main__", alter_sys=True)
                except SystemExit as end:
                    code = end.code
            assert not code, (module, code)
            helps[module] = printed.getvalue()
    finally:
        sys.argv = argv
        os.environ.pop("COLUMNS")
        os.environ.update({} if columns is None else {"COLUMNS": columns})
    return helps


def own_training_options() -> set[str]:
    """Options of training.sft that are defined here, and not in TRL's SFTConfig."""
    from trl import SFTConfig  # type: ignore[attr-defined]  # exported lazily

    from training import options

    classes = (options.DatasetOptions, options.ModelOptions, options.TrainingOptions)
    inherited = {field.name for field in dataclasses.fields(SFTConfig)}
    return {field.name for one in classes for field in dataclasses.fields(one)} - inherited


def describe_command(module: str, text: str, *, own: set[str] | None, others: str) -> str:
    """One section: what the command does, and a table of its options, or of those in `own` and a line on `others`."""
    description = re.split(r"\n\n|\s+(?=(?:accelerate launch|python -m))", text.partition("\n\n")[2])[0].strip()
    rows = []
    # "  --name VALUE   meaning (default: 1)", or the meaning on the next line where the name is long.
    for name, meaning in re.findall(r"^  (--\w+)[^\n]*?(?:  |\n {10,})(?! )([^\n]+)", text, re.MULTILINE):
        if name == "--help" or name.startswith("--no_"):  # --no_x is --x false
            continue
        if own is None or name.removeprefix("--") in own:
            match = re.fullmatch(r"(.*?)\s*(?:\(default: (.*)\)|\((required)\))?", meaning)
            assert match is not None
            default = "required" if match[3] else f"`{match[2]}`" if match[2] is not None else ""
            rows.append(f"| `{name}` | {default} | {match[1].replace('|', chr(92) + '|')} |")
    table = ["| option | default | meaning |", "|---|---|---|", *rows] if rows else []
    note = [] if own is None else ["", others]
    return "\n".join([f"### `python -m {module}`", "", description, "", *table, *note]).rstrip() + "\n"


def describe_class(name: str, thing: type, *methods: str) -> str:
    """One section: the docstring of a class, and signature and docstring of some of its methods."""
    lines = [f"### `{name}`", "", *_docstring(thing)]
    for method in methods:
        lines += [
            "```python",
            f"{method}{_signature(getattr(thing, method))}",
            "```",
            "",
            *_docstring(getattr(thing, method)),
        ]
    return "\n".join(lines)


def _docstring(thing: object) -> list[str]:
    text = inspect.getdoc(thing) or ""
    return [re.sub(r"(?m)((?:^>>> .*\n(?:.+\n?)*)+)", r"```python\n\1\n```", text), ""]


def _signature(method: object) -> str:
    text = str(inspect.signature(method, eval_str=True))  # type: ignore[arg-type]
    return re.sub(r"\bself, |\bself\b|(?:\w+\.)+(?=[A-Z])", "", text)


def make_reference() -> str:
    from dataset_builder import ProductVqa
    from product_vqa import Answer, AnswerRegion, AttributeReader

    own, trl = own_training_options(), "The other options are those of TRL's `SFTConfig`; `--help` lists them."
    inherited: dict[str, tuple[set[str], str]] = {
        "training.estimate": (own, trl),
        "training.sft": (own, trl),
        "product_vqa.launch": (set(), "The options are those of `accelerate launch`."),
    }
    commands = []
    for module, text in read_helps(COMMANDS).items():
        shown, others = inherited.get(module, (None, ""))
        commands.append(describe_command(module, text, own=shown, others=others))
    classes = [
        describe_class(
            "product_vqa.AttributeReader",
            AttributeReader,
            "from_pretrained",
            "read",
            "read_many",
            "read_batch",
            "locate",
        ),
        describe_class("product_vqa.Answer", Answer, "as_dict"),
        describe_class("product_vqa.AnswerRegion", AnswerRegion),
        describe_class("dataset_builder.ProductVqa", ProductVqa),
    ]
    return "\n".join(
        [
            "# Reference",
            "",
            "Generated from the code by `make reference`. Commands with many options take `--config file.yaml`;",
            "an option on the command line wins. Each command has `--help`.",
            "",
            "## Commands",
            "",
            *commands,
            "## Python",
            "",
            *classes,
        ]
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    FILE.write_text(make_reference())
    print(f"written: {FILE.relative_to(ROOT)}")
