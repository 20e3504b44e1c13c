"""Run the complete pipeline on this machine, offline: render labels, build the dataset, train, predict, evaluate.

    python -m quickstart
    python -m quickstart --schema schema.yaml  # your own attributes instead of the challenge's

Every step is a public command, which is printed before it runs. The Hub is a local one (`local_hub`).
"""

import json
import os
import resource
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import training
from local_hub import LocalHub
from product_vqa.atomic_io import one_writer
from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder
from quickstart.file_server import serve_folder
from quickstart.steps import Steps

DATASET_ID = "local/product-labels"
BASE_ID = "local/small-paligemma"
ADAPTER_ID = "local/label-reader"
BASE_FOLDER = Path(__file__).parent / "base"
TRAINING_FOLDER = Path(training.__file__).parent
CONFIG_FILE = TRAINING_FOLDER / "configs" / "quickstart.yaml"
ROWS_PER_STEP = 8  # on all processes together


@dataclass
class QuickstartOptions:
    """What to render, and where to write everything."""

    output_dir: str = field(
        default="runs/quickstart", metadata={"help": "Folder for all output; it is emptied first."}
    )
    train_rows: int | None = field(
        default=None,
        metadata={
            "help": (
                "Number of training rows, one question each; default: 7200, or 9600 for a --schema, of which the base "
                "model knows nothing. Rows about attributes that are asked of every product (missing_is_not_shown in "
                "a schema) come on top."
            )
        },
    )
    test_rows: int = field(
        default=320, metadata={"help": "Number of test rows, about labels that are not trained on."}
    )
    schema: str | None = field(
        default=None,
        metadata={"help": "Your own attributes, which the labels print: a schema.yaml. Default: the challenge's."},
    )
    level: str = field(default="standard", metadata={"help": "Difficulty of the labels: plain, standard, hard."})
    seed: int = field(default=0, metadata={"help": "Random seed of the labels and of the training."})
    num_processes: int = field(
        default=2,
        metadata={"help": "Number of processes that train and predict, 1 or 2; two are faster on two cores."},
    )

    @property
    def num_train_rows(self) -> int:
        if self.train_rows is not None:
            return self.train_rows
        return 7200 if self.schema is None else 9600


def main() -> None:
    (options,) = parse_options(QuickstartOptions, description="Run the complete pipeline on this machine, offline.")
    folder = Path(options.output_dir)
    with argument("output_dir"):
        writable_folder(folder.absolute().parent)
    with argument("schema"):
        check_schema(options.schema)
    with one_writer(folder.absolute(), argument="output_dir"):
        empty_folder(folder)
        with LocalHub(folder / "hub") as hub, serve_folder(folder / "labels" / "images") as images_url:
            print(f"A local Hub runs at {hub.endpoint}, and the images are served at {images_url}.")
            steps = Steps(quiet_environment(folder, num_processes=options.num_processes) | hub.environment)
            summary = run_pipeline(steps, folder, options, images_url=images_url)

        summary["seconds"] = steps.seconds
        summary["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2, 2)
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print_summary(summary, folder, is_challenge=options.schema is None)


def run_pipeline(steps: Steps, folder: Path, options: QuickstartOptions, *, images_url: str) -> dict[str, Any]:
    """CSVs -> dataset repo -> adapter repo -> checked and evaluated submission. Returns the summary."""
    launch = launch_command(options.num_processes)
    before = folder / "before.csv"
    after = folder / "submission.csv"

    build_dataset(steps, folder, options, images_url=images_url)
    steps.run(
        "base", "Push a small PaliGemma as the base model",
        "hf", "upload", "--private", BASE_ID, as_typed(BASE_FOLDER), ".",
    )  # fmt: skip
    predict = (*launch, "inference.predict", "--dataset", DATASET_ID, "--split", "test")
    steps.run(
        "predict_before", "Predict with the base model, before fine-tuning",
        *predict, "--base_model", BASE_ID, "--output", before,
    )  # fmt: skip
    steps.run(
        "train", "Fine-tune it with LoRA and push the adapter",
        *launch, "training.sft", "--config", as_typed(CONFIG_FILE), "--dataset_name", DATASET_ID,
        "--model_name_or_path", BASE_ID, "--output_dir", folder / "adapter", "--seed", options.seed,
        "--per_device_train_batch_size", ROWS_PER_STEP // options.num_processes,
        "--bf16", str(computes_bfloat16()).lower(),
        "--push_to_hub", "--hub_model_id", ADAPTER_ID, "--hub_private_repo", "true",
    )  # fmt: skip
    steps.run(
        "predict", "Pull the adapter and write the submission",
        *predict, "--adapter", ADAPTER_ID, "--output", after,
    )  # fmt: skip
    return evaluate(steps, folder, options, before=before, after=after)


def build_dataset(steps: Steps, folder: Path, options: QuickstartOptions, *, images_url: str) -> None:
    labels = folder / "labels"
    # Catalogues have one row per product.
    layout = () if options.schema is None else (*schema_option(options), "--wide")
    csvs = ("--train_csv", labels / "train.csv", "--test_csv", labels / "test.csv", *layout)
    form = "in the format of the challenge's train.csv and test.csv"
    if options.schema is not None:
        form = "a train.csv with a row per product and a test.csv with a row per question"
    steps.run(
        "render", f"Render product labels, {form}",
        "python", "-m", "quickstart.rendering.render", "--output_dir", labels, "--train_rows", options.num_train_rows,
        "--test_rows", options.test_rows, "--seed", options.seed, "--level", options.level, "--base_url", images_url,
        *layout,
    )  # fmt: skip
    steps.run("inspect", "Inspect the CSVs", "python", "-m", "dataset_builder.inspect", *csvs)
    steps.run(
        "build", "Download the images and push the dataset",
        "python", "-m", "dataset_builder.build", *csvs, "--image_store", folder / "images", "--allow_private_hosts",
        "--output_dir", folder / "dataset", "--push_to_hub", "--hub_dataset_id", DATASET_ID,
    )  # fmt: skip


def evaluate(steps: Steps, folder: Path, options: QuickstartOptions, *, before: Path, after: Path) -> dict[str, Any]:
    """Check and evaluate the predictions, and show them on a page. Returns the summary."""
    from quickstart.contact_sheet import save_contact_sheet  # after parsing, as --help does not need it

    references = folder / "labels" / "test_answers.csv"
    check = (
        "python", "-m", "inference.check", "--submission", after, "--test_csv", folder / "labels" / "test.csv",
    )  # fmt: skip
    steps.run("check", "Check the submission", *check, *schema_option(options))
    if options.schema is None:
        steps.run("check_official", "Check it by the challenge's own rules", *check, "--official")
    metrics = (
        "python", "-m", "inference.evaluate", "--references", references, *schema_option(options), "--json",
        "--predictions",
    )  # fmt: skip
    metrics_before = json.loads(steps.output("evaluate_before", "Evaluate the base model", *metrics, before))
    metrics_after = json.loads(steps.output("evaluate", "Evaluate the adapter", *metrics, after))
    overlap = json.loads(
        steps.output(
            "overlap", "Count what training has already seen of the test split",
            "python", "-m", "quickstart.overlap", "--labels", folder / "labels", "--predictions", after,
            *schema_option(options), "--json",
        )
    )  # fmt: skip
    steps.run(
        "report", "Write a report",
        "python", "-m", "inference.report", "--predictions", after.with_suffix(".parquet"), "--dataset", DATASET_ID,
        "--split", "test", "--references", references, "--output", folder / "report.html",
    )  # fmt: skip
    save_contact_sheet(
        folder / "contact_sheet.png", dataset=folder / "dataset", references=references, predictions=after
    )
    return {
        "f1_before": round(metrics_before["f1_quantity"], 4),
        "f1_after": round(metrics_after["f1_quantity"], 4),
        "f1_strings_after": round(metrics_after["f1"], 4),
        "exact_before": exact_share(metrics_before),
        "exact_after": exact_share(metrics_after),
        "exact_by_entity": {
            entity: round(right_count(counts) / counts["rows"], 4)
            for entity, counts in metrics_after["by_entity"].items()
        },
        "rows": metrics_after["rows"],
        "overlap": overlap,
        "check": "accepted",
        "level": options.level,
        "seed": options.seed,
        "repos": {"dataset": DATASET_ID, "base": BASE_ID, "adapter": ADAPTER_ID},
    }


def exact_share(metrics: dict[str, Any]) -> float:
    """The share of the questions whose answer is right. It is never higher than F1, unless empty answers are right."""
    return round(sum(map(right_count, metrics["by_entity"].values())) / metrics["rows"], 4)


def right_count(counts: dict[str, Any]) -> int:
    """An empty answer is right if the label does not show the attribute, as in no question about the challenge's."""
    return counts["true_positives"] + counts["true_negatives"]


def schema_option(options: QuickstartOptions) -> tuple[str | Path, ...]:
    return () if options.schema is None else ("--schema", Path(options.schema))


def check_schema(file: str | None) -> None:
    """Raise InputError for a schema that no labels can be rendered for, before anything is written."""
    if file is not None:
        from product_vqa.task.schema_file import read_schema
        from quickstart.rendering.schema_text import SchemaText  # after parsing, as --help does not need it

        SchemaText(read_schema(file))


def empty_folder(folder: Path) -> Path:
    """Empty the output folder. Raises InputError if it has files that no quickstart wrote."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "hub").is_dir():
        raise InputError(f"`output_dir` {folder} has files that no quickstart wrote; choose another folder")
    shutil.rmtree(folder, ignore_errors=True)
    with argument("output_dir"):
        writable_folder(folder / "labels" / "images")
    return folder


def quiet_environment(folder: Path, *, num_processes: int) -> dict[str, str]:
    """Environment variables for the steps: a cache in the folder, and fewer messages of the libraries."""
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


def launch_command(num_processes: int) -> tuple[str | Path, ...]:
    """`accelerate launch` with the configuration for so many processes, up to the module's name."""
    name = {1: "cpu.yaml", 2: "cpu_2.yaml"}.get(num_processes)
    if name is None:
        raise InputError(f"`num_processes` must be 1 or 2, got {num_processes}")
    config_file = as_typed(TRAINING_FOLDER / "accelerate_configs" / name)
    return ("accelerate", "launch", "--quiet", "--config_file", config_file, "-m")


def computes_bfloat16() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 in half of float32's time, as with AVX512-BF16 and AMX.

    Only the quickstart asks: elsewhere a CPU without AMX trains in float32, unless `bf16` is set.
    """
    from product_vqa.cpu import has_cpu_instructions  # after parsing, as --help does not need it

    return has_cpu_instructions("avx512_bf16", "amx_bf16")


def as_typed(path: Path) -> Path:
    """The path as a user would type it in the working directory."""
    return Path(os.path.relpath(path)) if path.is_relative_to(Path.cwd()) else path


def print_summary(summary: dict[str, Any], folder: Path, *, is_challenge: bool) -> None:
    overlap = summary["overlap"]
    compared = "numbers and units" if is_challenge else "canonical forms"
    seen = "single digits only" if is_challenge else "choices, single digits and what is not shown"
    unseen = overlap["f1_quantity_unseen"]
    print(f"""
== Done in {sum(summary["seconds"].values()):.0f} s
F1 on {summary["rows"]} questions about unseen labels, comparing {compared}:
  before  {summary["f1_before"]:.4f}   ({summary["exact_before"]:.1%} of the answers are right)
  after   {summary["f1_after"]:.4f}   ({summary["exact_after"]:.1%} of the answers are right; as strings: F1 \
{summary["f1_strings_after"]:.4f})
Test data already seen in training or pretraining: {overlap["pictures_in_both"]} images; \
{overlap["share_seen"]:.0%} of the reference answers ({seen}).
F1 on the unseen answers: {"-" if unseen is None else f"{unseen:.4f}"}

submission     {folder / "submission.csv"}      (accepted by {"both checks" if is_challenge else "the check"})
predictions    {folder / "submission.parquet"}      (with confidences and alternatives)
contact sheet  {folder / "contact_sheet.png"}      (twelve of the predictions)
report         {folder / "report.html"}      (open it in a browser)
dataset        {folder / "dataset"}      on the Hub: {DATASET_ID}
adapter        {folder / "adapter"}      on the Hub: {ADAPTER_ID}
local Hub      python -m local_hub --root {folder / "hub"}
summary        {folder / "summary.json"}""")


if __name__ == "__main__":
    run(main)
