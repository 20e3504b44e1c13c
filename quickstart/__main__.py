"""The whole chain on this machine: labels are rendered, fetched, published, learnt, answered, checked and scored.

    python -m quickstart

Every step is a command that you can type yourself; it is printed before it runs. The Hub is one of this machine's own.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder

DATASET_ID, BASE_ID, ADAPTER_ID = "local/product-labels", "local/small-paligemma", "local/label-reader"
PACKAGE = Path(__file__).parent
ROWS_A_STEP = 16  # on all processes together


@dataclass
class QuickstartOptions:
    """What to render, and where everything goes."""

    output_dir: str = field(default="runs/quickstart", metadata={"help": "Everything goes there; emptied first."})
    train_rows: int = field(default=2400, metadata={"help": "Questions about labels to learn from."})
    test_rows: int = field(default=320, metadata={"help": "Questions about labels never seen, to answer and score."})
    level: str = field(default="standard", metadata={"help": "Difficulty of the labels: plain, standard, hard."})
    seed: int = field(default=0, metadata={"help": "Of the labels and of the training."})
    num_processes: int = field(
        default=2, metadata={"help": "Processes that train and predict, 1 or 2: two of one thread beat one of two."}
    )


class Steps:
    """Runs public commands, one after the other, each printed as it is typed; keeps their seconds."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.seconds: dict[str, float] = {}

    def run(self, name: str, title: str, *command: str | Path, capture: bool = False) -> str:
        """Run a command to its end; its output goes to the console, or is returned. Raises InputError if it fails."""
        words = [str(word) for word in command]
        print(f"\n== {len(self.seconds) + 1}. {title}\n$ {' '.join(words)}", flush=True)
        executable = Path(sys.executable).parent / words[0]
        start = time.perf_counter()
        done = subprocess.run(
            [str(executable if executable.is_file() else words[0]), *words[1:]],
            env=os.environ | self.environment,
            stdout=subprocess.PIPE if capture else None,
            text=True,
        )
        self.seconds[name] = round(time.perf_counter() - start, 1)
        if done.returncode != 0:
            raise InputError(f"step {name!r} failed with exit code {done.returncode}; its output is above")
        return done.stdout or ""


def main() -> None:
    (options,) = parse_options(QuickstartOptions, description="Run the whole chain on this machine, offline.")

    from local_hub import LocalHub

    folder = empty_folder(Path(options.output_dir))
    with LocalHub(folder / "hub") as hub, serve(folder / "labels" / "images") as pictures_url:
        print(f"A Hub of this machine's own is at {hub.endpoint}, the labels' pictures at {pictures_url}.")
        steps = Steps(quiet_environment(folder, num_processes=options.num_processes) | hub.environment)
        summary = run_chain(steps, folder, options, pictures_url=pictures_url)

    summary["seconds"] = steps.seconds
    summary["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2, 2)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print_summary(summary, folder)


def run_chain(steps: Steps, folder: Path, options: QuickstartOptions, *, pictures_url: str) -> dict[str, Any]:
    """CSVs -> dataset repo -> adapter repo -> checked and scored submission. Returns the summary."""
    labels, answers = folder / "labels", folder / "labels" / "test_answers.csv"
    python = ("python", "-m")
    launch = (
        "accelerate",
        "launch",
        "--quiet",
        "--config_file",
        shown(accelerate_config(options.num_processes)),
        "-m",
    )

    steps.run(
        "render", "Render product labels, in the form of the challenge's train.csv and test.csv",
        *python, "quickstart.labels", "--output_dir", labels, "--train_rows", options.train_rows,
        "--test_rows", options.test_rows, "--seed", options.seed, "--level", options.level, "--base_url", pictures_url,
    )  # fmt: skip
    tables = ("--train_csv", labels / "train.csv", "--test_csv", labels / "test.csv")
    steps.run("inspect", "Look at the CSVs", *python, "dataset_builder.inspect", *tables)
    steps.run(
        "build", "Fetch the pictures and publish the dataset",
        *python, "dataset_builder.build", *tables, "--image_store", folder / "images", "--allow_private_hosts",
        "--output_dir", folder / "dataset", "--push_to_hub", "--hub_dataset_id", DATASET_ID,
    )  # fmt: skip
    base = shown(PACKAGE / "base")
    steps.run("base", "Publish a small PaliGemma that reads", "hf", "upload", "--private", BASE_ID, base, ".")

    before, after = folder / "before.csv", folder / "submission.csv"
    questions = ("--dataset", DATASET_ID, "--split", "test")
    steps.run(
        "predict_before", "Let the base answer, untrained",
        *launch, "inference.predict", "--base_model", BASE_ID, *questions, "--output", before,
    )  # fmt: skip
    steps.run(
        "train", "Fine-tune it with LoRA and publish the adapter",
        *launch, "training.sft", "--config", shown(training_config()), "--dataset_name", DATASET_ID,
        "--model_name_or_path", BASE_ID, "--output_dir", folder / "adapter", "--seed", options.seed,
        "--per_device_train_batch_size", ROWS_A_STEP // options.num_processes,
        "--push_to_hub", "--hub_model_id", ADAPTER_ID, "--hub_private_repo", "true",
    )  # fmt: skip
    steps.run(
        "predict", "Pull the adapter and write the submission",
        *launch, "inference.predict", "--adapter", ADAPTER_ID, *questions, "--output", after,
    )  # fmt: skip

    check = (*python, "inference.check", "--submission", after, "--test_csv", labels / "test.csv")
    steps.run("check", "Would it be accepted?", *check)
    steps.run("check_official", "And by the challenge's own rules?", *check, "--official")
    evaluate = (*python, "inference.evaluate", "--references", answers, "--json", "--predictions")
    scores_before = json.loads(steps.run("evaluate_before", "Score the base", *evaluate, before, capture=True))
    scores = json.loads(steps.run("evaluate", "Score the adapter", *evaluate, after, capture=True))
    overlap = json.loads(
        steps.run(
            "overlap", "Was anything of the test seen before?",
            *python, "quickstart.overlap", "--labels", labels, "--predictions", after, "--json", capture=True,
        )
    )  # fmt: skip
    steps.run(
        "report", "Show it all on a page",
        *python, "inference.report", "--predictions", after.with_suffix(".parquet"), "--dataset", DATASET_ID,
        "--split", "test", "--references", answers, "--output", folder / "report.html",
    )  # fmt: skip
    save_contact_sheet(folder)
    return {
        "f1_before": round(scores_before["f1_quantity"], 4),
        "f1_after": round(scores["f1_quantity"], 4),
        "f1_exact_after": round(scores["f1"], 4),
        "exact_by_entity": {
            entity: round(part["true_positives"] / part["rows"], 4) for entity, part in scores["by_entity"].items()
        },
        "rows": scores["rows"],
        "overlap": overlap,
        "check": "accepted",
        "level": options.level,
        "seed": options.seed,
        "repos": {"dataset": DATASET_ID, "base": BASE_ID, "adapter": ADAPTER_ID},
    }


def empty_folder(folder: Path) -> Path:
    """An empty folder of that name. Raises InputError if it holds something that no quickstart left there."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "hub").is_dir():
        raise InputError(f"--output_dir {folder}: holds files that are not an earlier quickstart's; choose another")
    shutil.rmtree(folder, ignore_errors=True)
    with argument("output_dir"):
        writable_folder(folder / "labels" / "images")
    return folder


class serve:  # noqa: N801 - used as a function: `with serve(folder) as url`
    """Serve a folder's files on a free port of loopback, so that `build` fetches them as it fetches any link."""

    def __init__(self, folder: Path) -> None:
        handler = partial(_QuietHandler, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept

    def log_message(self, *_: Any) -> None: ...


def quiet_environment(folder: Path, *, num_processes: int) -> dict[str, str]:
    """Caches of the quickstart's own, and fewer words from the libraries."""
    return {
        "HF_HOME": str((folder / "cache").absolute()),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_processes)),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "BITSANDBYTES_NOWELCOME": "1",
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
    }


def accelerate_config(num_processes: int) -> Path:
    import training

    name = {1: "cpu.yaml", 2: "cpu_2.yaml"}.get(num_processes)
    if name is None:
        raise InputError(f"--num_processes must be 1 or 2, got {num_processes}")
    return Path(training.__file__).parent / "accelerate" / name


def training_config() -> Path:
    import training

    return Path(training.__file__).parent / "configs" / "quickstart.yaml"


def shown(path: Path) -> Path:
    """As a user would type it from the working directory."""
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


def save_contact_sheet(folder: Path) -> None:
    """Twelve test pictures with question, truth and answer."""
    import csv

    import pyarrow.parquet as parquet

    from product_vqa.contact_sheet import SheetRow, contact_sheet

    with (folder / "labels" / "test_answers.csv").open() as lines:
        truth = {row["index"]: row["entity_value"] for row in csv.DictReader(lines)}
    with (folder / "submission.csv").open() as lines:
        predictions = {row["index"]: row["prediction"] for row in csv.DictReader(lines)}
    (file,) = (folder / "dataset" / "data").glob("test-*.parquet")
    table = parquet.read_table(file)
    rows = table.take(list(range(0, len(table), max(1, len(table) // 12)))).slice(0, 12).to_pylist()
    sheet = contact_sheet(
        [
            SheetRow(
                image=row["image"],
                entity_name=row["entity_name"],
                entity_value=truth[str(row["index"])],
                prediction=predictions[str(row["index"])],
            )
            for row in rows
        ]
    )
    sheet.save(folder / "contact_sheet.png")


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    print(f"""
== Done in {sum(summary["seconds"].values()):.0f} s
F1 on {summary["rows"]} questions about labels never seen, numbers and units compared:
  before  {summary["f1_before"]:.4f}
  after   {summary["f1_after"]:.4f}   (exact strings: {summary["f1_exact_after"]:.4f})
Seen before: {summary["overlap"]["pictures_in_both"]} of its pictures; {summary["overlap"]["share_seen"]:.0%} of its \
answers, all of one digit; F1 on the others {summary["overlap"]["f1_quantity_unseen"]:.4f}

submission     {folder / "submission.csv"}      (accepted by both checks)
what was said  {folder / "submission.parquet"}
twelve of them {folder / "contact_sheet.png"}
its mistakes   {folder / "report.html"}      (open it in a browser)
dataset        {folder / "dataset"}      on the Hub: {DATASET_ID}
adapter        {folder / "adapter"}      on the Hub: {ADAPTER_ID}
the Hub        python -m local_hub --root {folder / "hub"}
summary        {folder / "summary.json"}""")


if __name__ == "__main__":
    run(main)
