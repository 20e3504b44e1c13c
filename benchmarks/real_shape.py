"""The architecture of PaliGemma 3B on a CPU: two training steps and a few predictions through the public commands.

    python -m benchmarks.real_shape --json

The base model has random weights (`benchmarks.base_models`), so the answers mean nothing, but memory, time and file
formats are those of the real one. In bfloat16 and in NF4 it trains two steps of one sample, loads the adapter into
plain transformers and peft, and predicts sixteen rows. It takes 12 GB of memory, 7 GB of disk and fifteen minutes.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.base_models import ARCHITECTURES, save_base_model
from benchmarks.commands import python
from benchmarks.results import print_result
from benchmarks.timing import time_command

PRECISIONS: dict[str, list[str]] = {"bfloat16": [], "nf4": ["--load_in_4bit", "true"]}
BASE_ID = "local/base"  # the adapter's name for the base model
NUM_ROWS = 16  # to predict
# transformers and peft alone, as the code in a model card uses them.
PLAIN_CODE = """
import sys, torch
from peft import PeftModel
from transformers import PaliGemmaForConditionalGeneration
base, adapter = sys.argv[1:]
model = PaliGemmaForConditionalGeneration.from_pretrained(base, dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, adapter).eval()
loaded = sum("lora_" in name for name, _ in model.named_parameters())
imported = {"product_vqa", "training", "inference", "trl"} & set(sys.modules)
assert not imported, imported
print(loaded)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", choices=ARCHITECTURES, default="paligemma-3b-pt-224", help="the base model")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--tiny", action="store_true", help="two small layers instead, to try the benchmark")
    parser.add_argument("--work_dir", type=Path, help="folder for everything, kept; a base model in it is used again")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="real-shape-") as temporary:
        work = (options.work_dir or Path(temporary)).absolute()
        architecture = ARCHITECTURES[options.name]
        base = work / options.name
        if not (base / "model.safetensors.index.json").exists():
            save_base_model(base, architecture.shrink() if options.tiny else architecture)
        dataset = make_dataset(work)
        results = {name: measure(work, base, dataset, name) for name in options.precisions}
        result = {"base_model": options.name, "parameters": count_parameters(base), **results}
    print_result(result, as_json=options.json)


def make_dataset(work: Path) -> Path:
    """Build a dataset folder of rendered labels."""
    labels, dataset = work / "labels", work / "dataset"
    if not dataset.exists():
        python(
            "quickstart.rendering.render", "--output_dir", labels, "--train_rows", 16, "--test_rows", NUM_ROWS,
        )  # fmt: skip
        python(
            "dataset_builder.build", "--train_csv", labels / "train.csv", "--test_csv", labels / "test.csv",
            "--image_dir", labels / "images", "--validation_size", 0, "--output_dir", dataset,
        )  # fmt: skip
    return dataset


def count_parameters(base: Path) -> int:
    index = json.loads((base / "model.safetensors.index.json").read_text())
    return int(index["metadata"]["total_size"]) // 2


def measure(work: Path, base: Path, dataset: Path, precision: str) -> dict[str, Any]:
    """Train, load and predict in one precision."""
    print(f"== {precision}", file=sys.stderr, flush=True)
    run = work / precision
    shutil.rmtree(run, ignore_errors=True)
    trained = time_command(
        [
            sys.executable, "-m", "training.sft", "--dataset_name", dataset, "--model_name_or_path", base,
            "--base_model_id", BASE_ID, "--output_dir", run / "adapter", "--max_steps", 2, "--save_steps", 1,
            "--per_device_train_batch_size", 1, "--gradient_accumulation_steps", 1, "--logging_steps", 1,
            "--learning_rate", "1e-3", "--warmup_steps", 0, "--dtype", "bfloat16", "--bf16", "true",
            "--max_eval_samples", 0, "--report_to", "none", "--use_cpu", "true", *PRECISIONS[precision],
        ],
        cwd=make_folder(run / "train"),
    )  # fmt: skip
    predicted = time_command(
        [
            sys.executable, "-m", "inference.predict", "--adapter", run / "adapter", "--base_model", base,
            "--dataset", dataset, "--split", "test", "--output", run / "submission.csv", "--batch_size", 4,
            "--dtype", "bfloat16",
        ],
        cwd=make_folder(run / "predict"),
    )  # fmt: skip
    python("inference.check", "--submission", run / "submission.csv", "--test_csv", work / "labels" / "test.csv")
    estimate = re.search(r"memory, about ([\d.]+) GB", (run / "train" / "log.txt").read_text())
    assert estimate is not None
    first, second = (
        load_file(run / "adapter" / f"checkpoint-{step}" / "adapter_model.safetensors") for step in (1, 2)
    )
    return {
        "step_s": round(60 * step_minutes(run / "adapter" / "log.csv"), 1),
        "train_s": trained.seconds,
        "train_peak_gb": round(trained.peak_pss_mb / 1e3, 2),
        "train_peak_anonymous_gb": round(trained.peak_anonymous_mb / 1e3, 2),
        "estimate_gb": float(estimate[1]),
        "weights": len(second),
        "changed_weights": sum(is_changed(name, first[name], second[name]) for name in second),
        "loaded_by_peft": load_plainly(base, run / "adapter"),
        "predict_s": predicted.seconds,
        "predict_peak_gb": round(predicted.peak_pss_mb / 1e3, 2),
        "predict_peak_anonymous_gb": round(predicted.peak_anonymous_mb / 1e3, 2),
        "checked_rows": NUM_ROWS,
    }


def make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def is_changed(name: str, first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether training changed a weight: B from zero, and A, which has no gradient before B has changed."""
    return bool(second.any()) if "lora_B" in name else not torch.equal(first, second)


def step_minutes(log_file: Path) -> float:
    """The time of the second step, which has no warm-up."""
    lines = [line.split(",") for line in log_file.read_text().splitlines()]
    minutes = [float(line[lines[0].index("minutes")]) for line in lines[1:] if line[lines[0].index("loss")]]
    return minutes[1] - minutes[0]


def load_plainly(base: Path, adapter: Path) -> int:
    """Load the adapter with transformers and peft alone; returns its number of weights in the model."""
    completed = subprocess.run(
        [sys.executable, "-c", PLAIN_CODE, str(base), str(adapter)], cwd="/", capture_output=True, text=True
    )
    if completed.returncode:
        sys.exit(f"the adapter does not load into plain transformers and peft: {completed.stderr[-2000:]}")
    return int(completed.stdout)


if __name__ == "__main__":
    main()
