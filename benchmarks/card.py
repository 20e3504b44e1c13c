"""Does the code in an adapter's card run where nothing of this project is installed?

    python -m benchmarks.card

A short training of the quickstart's base, from Hub to Hub; then the card is pulled, and its Python is run in an
environment that holds torch, pillow, transformers and peft alone, about pictures that were not trained on.
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

from benchmarks.learning import BASE, ROOT, launch, python
from benchmarks.measuring import make_environment
from local_hub import LocalHub

PACKAGES = ("torch", "pillow", "transformers", "peft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environment", type=Path, help="kept there for the next time; default: a temporary one")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="card-") as name, LocalHub(Path(name, "hub")) as hub:
        work = Path(name)
        os.environ.update(hub.environment, HF_HOME=str(work / "cache"))
        card = publish(work, steps=options.steps)
        bare = make_environment(
            options.environment or work / "bare", *(f"{name}=={version(name).split('+')[0]}" for name in PACKAGES)
        )
        code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
        right = 0
        for row in rows_of(work / "labels")[: options.pictures]:
            picture = work / "labels" / "images" / row["image_link"].rpartition("/")[2]
            (work / "photo.jpg").write_bytes(picture.read_bytes())
            question = f"What is the {row['entity_name'].replace('_', ' ')}?"
            (work / "read.py").write_text(re.sub(r"What is the [a-z ]+\?", question, code))
            done = subprocess.run([bare, "read.py"], cwd=work, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"the card's code failed:\n{code}\n{done.stderr[-3000:]}")
            print(f"{question:<45}{row['entity_value']:<20}-> {done.stdout.strip()}")
            right += done.stdout.strip() == row["entity_value"]
    print(f"{right} of {options.pictures} right, by {', '.join(PACKAGES)} alone")


def publish(work: Path, *, steps: int) -> str:
    """Base, dataset and adapter to the Hub; returns the adapter's card as it lies there."""
    from huggingface_hub import HfApi, ModelCard

    python("quickstart.rendering.render", "--output_dir", work / "labels", "--train_rows", 1600, "--test_rows", 40)
    python("dataset_builder.build", "--train_csv", work / "labels/train.csv", "--test_csv", work / "labels/test.csv",
           "--image_dir", work / "labels/images", "--output_dir", work / "dataset", "--push_to_hub",
           "--hub_dataset_id", "local/labels")  # fmt: skip
    api = HfApi()
    api.create_repo("local/base", private=True)
    api.upload_folder(repo_id="local/base", folder_path=BASE)
    launch("training.sft", "--config", ROOT / "training/configs/quickstart.yaml", "--dataset_name", "local/labels",
           "--model_name_or_path", "local/base", "--output_dir", work / "run", "--max_steps", steps,
           "--per_device_train_batch_size", 8, "--push_to_hub", "--hub_model_id", "local/adapter")  # fmt: skip
    return str(ModelCard.load("local/adapter"))


def rows_of(labels: Path) -> list[dict[str, str]]:
    """The test's questions with their answers."""
    questions = csv.DictReader((labels / "test.csv").open())
    answers = csv.DictReader((labels / "test_answers.csv").open())
    return [question | answer for question, answer in zip(questions, answers, strict=True)]


if __name__ == "__main__":
    main()
