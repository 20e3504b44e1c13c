"""Does the code in an adapter's model card run where nothing of this project is installed?

    python -m benchmarks.model_card

It fine-tunes the quickstart's base model for a few steps, from Hub to Hub. Then it pulls the card and runs its Python
code about test images, in an environment that has torch, pillow, transformers and peft only. This is not a test,
because it needs a package index and some minutes.
"""

import argparse
import csv
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.commands import BASE, CONFIG_FILE, hf, launch, python
from benchmarks.environment import make_environment
from local_hub import LocalHub

PACKAGES = ("torch", "pillow", "transformers", "peft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, help="folder of the environment, to reuse it; default: temporary")
    parser.add_argument("--steps", type=int, default=100, help="number of training steps")
    parser.add_argument("--pictures", type=int, default=5, help="number of test images")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="card-") as name, LocalHub(Path(name, "hub")) as hub:
        work = Path(name)
        os.environ.update(hub.environment, HF_HOME=str(work / "cache"))
        card = publish_adapter(work, steps=options.steps)
        interpreter = make_environment(
            options.environment or work / "environment",
            *(f"{package}=={version(package).split('+')[0]}" for package in PACKAGES),
        )
        rows = read_test_rows(work / "labels")[: options.pictures]
        correct = sum(run_card(card, row, work, interpreter) == row["entity_value"] for row in rows)
    print(f"{correct} of {options.pictures} correct, with {', '.join(PACKAGES)} only")


def publish_adapter(work: Path, *, steps: int) -> str:
    """Push a dataset, the base model and an adapter; returns the adapter's card as it is on the Hub."""
    labels = work / "labels"
    python("quickstart.rendering.render", "--output_dir", labels, "--train_rows", 1600, "--test_rows", 40)
    python(
        "dataset_builder.build", "--train_csv", labels / "train.csv", "--test_csv", labels / "test.csv",
        "--image_dir", labels / "images", "--output_dir", work / "dataset",
        "--push_to_hub", "--hub_dataset_id", "local/labels",
    )  # fmt: skip
    hf("upload", "--private", "local/base", BASE, ".")
    launch(
        "training.sft", "--config", CONFIG_FILE, "--dataset_name", "local/labels",
        "--model_name_or_path", "local/base", "--output_dir", work / "run", "--max_steps", steps,
        "--per_device_train_batch_size", 8, "--push_to_hub", "--hub_model_id", "local/adapter",
    )  # fmt: skip
    hf("download", "local/adapter", "README.md", "--local-dir", work / "card")
    return (work / "card" / "README.md").read_text()


def read_test_rows(labels: Path) -> list[dict[str, str]]:
    """The test questions with their reference answers."""
    with (labels / "test.csv").open() as questions, (labels / "test_answers.csv").open() as references:
        pairs = zip(csv.DictReader(questions), csv.DictReader(references), strict=True)
        return [question | reference for question, reference in pairs]


def run_card(card: str, row: dict[str, str], work: Path, interpreter: Path) -> str:
    """Run the card's code about the image of this row; returns what it prints."""
    match = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    if match is None:
        sys.exit(f"the card has no Python code:\n{card}")
    prompt = f"What is the {row['entity_name'].replace('_', ' ')}?"
    image = work / "labels" / "images" / row["image_link"].rpartition("/")[2]
    (work / "photo.jpg").write_bytes(image.read_bytes())
    (work / "read.py").write_text(re.sub(r"What is the [a-z ]+\?", prompt, match[1]))
    completed = subprocess.run([interpreter, "read.py"], cwd=work, capture_output=True, text=True)
    if completed.returncode:
        sys.exit(f"the card's code failed:\n{match[1]}\n{completed.stderr[-3000:]}")
    prediction = completed.stdout.strip()
    print(f"{prompt:<45}{row['entity_value']:<20}-> {prediction}")
    return prediction


if __name__ == "__main__":
    main()
