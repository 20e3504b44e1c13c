"""`product-vqa predict ...`, from any folder: each command is the `python -m ...` of the same options."""

import difflib
import importlib
import runpy
import sys

import product_vqa

COMMANDS = {
    "inspect": ("dataset_builder.inspect", "say what is in CSVs or a dataset, before anything is built"),
    "download": ("dataset_builder.download", "download the images of CSVs"),
    "build": ("dataset_builder.build", "make a dataset from CSVs and images"),
    "ocr": ("dataset_builder.ocr", "read the text of the images of a store or a dataset"),
    "audit": ("dataset_builder.audit", "rank the labels of a dataset by how wrong they look"),
    "estimate": ("training.estimate", "estimate memory and time of a training"),
    "train": ("training.sft", "fine-tune an adapter, in one process"),
    "launch": ("product_vqa.launch", "the same in several processes: launch [options] -m training.sft ..."),
    "predict": ("inference.predict", "read attributes from images: of a dataset, a folder or a table"),
    "check": ("inference.check", "check a submission for the challenge"),
    "evaluate": ("inference.evaluate", "score predictions"),
    "calibrate": ("inference.calibrate", "make the confidences of an adapter reliable"),
    "ensemble": ("inference.ensemble", "combine predictions"),
    "report": ("inference.report", "write predictions and errors as one HTML file"),
    "export": ("inference.export", "write an adapter and its base model as one merged model"),
    "serve": ("inference.serve", "answer questions about images over HTTP"),
    "parity": ("inference.parity", "compare another engine with the adapter"),
    "demo": ("inference.demo", "open a web page that reads images"),
    "quickstart": ("quickstart.__main__", "run the complete pipeline on rendered labels, offline"),
    "local-hub": ("local_hub.__main__", "serve a Hub on localhost"),
}


def main() -> None:
    """Run the command that the first argument names. Nothing heavy is imported before."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "help"):
        print(describe_commands())
        return
    if name == "--version":
        print(product_vqa.__version__)
        return
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        print(f"error: unknown command {name}{hint}; product-vqa --help lists all commands", file=sys.stderr)
        sys.exit(2)
    sys.argv[:2] = [f"product-vqa {name}"]
    cli = importlib.import_module("product_vqa.cli")
    cli.set_program_name(f"product-vqa {name}")
    try:
        runpy.run_module(COMMANDS[name][0], run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        message = cli.explain_missing_package(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def describe_commands() -> str:
    """The output of `product-vqa --help`."""
    lines = [f"  {name:12} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: product-vqa COMMAND [options]",
            "",
            *lines,
            "",
            "product-vqa COMMAND --help lists its options. Configurations that this project ships are found by name:",
            "product-vqa train --config paligemma_3b_224_nf4",
        ]
    )
