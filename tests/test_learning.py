"""Training works: after a few steps from the quickstart's base model F1 rises; in `make faults`, only with the correct
labels.

Some predictions are still wrong, so they also show how good the confidences are. `make bench` (benchmarks/ablation.py)
does the same at full length, through the commands, and with NF4 too, which is six times slower on a CPU.
"""

import csv
import random
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from PIL import Image

from dataset_builder.labels import LabelForm, label_form
from inference import AttributeReader
from inference.calibrate import measure
from inference.metrics import sweep
from product_vqa.hub import Location
from product_vqa.modeling.calibration import fit_calibration
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, PROJECTOR_LINEAR, load_base_model, load_processor
from product_vqa.task.features import FEATURES
from product_vqa.task.quantity import format_quantity, parse_quantity
from product_vqa.task.schema import CHALLENGE
from quickstart.rendering.levels import PLAIN
from quickstart.rendering.writer import write_labels
from tests.commands import ROOT
from tests.inference.challenge import mark_right
from tests.product_vqa.modeling.challenge import TrainingCollator
from training.evaluation import answer_sample, score
from training.options import TrainingOptions
from training.trainer import PaliGemmaTrainer

BASE = Location(str(ROOT / "quickstart" / "base"))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """Training rows, and test rows whose numbers are not on the training images."""
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder, train_rows=400, test_rows=400, seed=7, level=PLAIN, base_url="http://127.0.0.1")
    splits = []
    for questions, answers in (("train.csv", None), ("test.csv", "test_answers.csv")):
        rows = list(csv.DictReader((folder / questions).open()))
        if answers:
            for row, answer in zip(rows, csv.DictReader((folder / answers).open()), strict=True):
                row["entity_value"] = answer["entity_value"]
        splits.append(
            Dataset.from_list(
                [
                    row
                    | {
                        "index": number,
                        "image": Image.open(folder / "images" / row["image_link"].rpartition("/")[2]),
                        "entity_value": format_quantity(parse_quantity(row["entity_value"])),
                        "entity_value_raw": row["entity_value"],
                    }
                    for number, row in enumerate(rows)
                    if label_form(row["entity_value"]) == LabelForm.PLAIN
                ],
                features=FEATURES,
            )
        )
    return splits[0], splits[1]


def fine_tune(train: Dataset, output_dir: Path, *, steps: int) -> PaliGemmaTrainer:
    processor = load_processor(BASE)
    trainer = PaliGemmaTrainer(
        model=load_base_model(BASE, dtype=torch.float32, attn_implementation="eager"),
        args=TrainingOptions(
            output_dir=str(output_dir), max_steps=steps or 1, per_device_train_batch_size=16, learning_rate=6e-3,
            warmup_steps=5, save_strategy="no", disable_tqdm=True, seed=0, bf16=False,
        ),
        train_dataset=train,
        processing_class=processor,
        data_collator=TrainingCollator(processor),
        schema=CHALLENGE,
        peft_config=LoraConfig(
            r=32, lora_alpha=32, target_modules=f"{LANGUAGE_MODEL_LINEARS}|{PROJECTOR_LINEAR}", task_type="CAUSAL_LM"
        ),
    )  # fmt: skip
    if steps:
        trainer.train()
    return trainer


def f1(trainer: PaliGemmaTrainer, test: Dataset) -> float:
    rows = test.select(range(48))
    processor = trainer.processing_class
    answered = answer_sample(trainer.model, rows, processor=processor, batch_size=48, schema=CHALLENGE)
    return score(answered, schema=CHALLENGE)["f1_quantity"]


@pytest.fixture(scope="module")
def fine_tuned(labels: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory) -> PaliGemmaTrainer:
    return fine_tune(labels[0], tmp_path_factory.mktemp("fine_tuned"), steps=24)


@pytest.mark.slow
def test_f1_rises_with_correct_labels(
    labels: tuple[Dataset, Dataset], fine_tuned: PaliGemmaTrainer, tmp_path: Path
) -> None:
    train, test = labels
    before = f1(fine_tune(train, tmp_path, steps=0), test)
    after = f1(fine_tuned, test)
    print(f"before {before:.3f}, after {after:.3f}")
    assert before <= 0.1
    assert after >= 0.45


@pytest.mark.faults  # half a minute
def test_f1_does_not_rise_with_shuffled_labels(labels: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    train, test = labels
    by_entity: dict[str, list[str]] = {}
    for name, answer in zip(train["entity_name"], train["entity_value"], strict=True):
        by_entity.setdefault(name, []).append(answer)
    for values in by_entity.values():
        random.Random(0).shuffle(values)
    shuffled = train.map(lambda row: {"entity_value": by_entity[row["entity_name"]].pop()})
    after = f1(fine_tune(shuffled, tmp_path, steps=24), test)
    print(f"with shuffled labels {after:.3f}")
    assert after <= 0.2


@pytest.fixture(scope="module")
def answers(labels: tuple[Dataset, Dataset], fine_tuned: PaliGemmaTrainer) -> pd.DataFrame:
    """Its predictions for all test rows, with their uncalibrated confidences."""
    _, test = labels
    reader = AttributeReader(fine_tuned.model.eval(), fine_tuned.processing_class, schema=CHALLENGE)
    predictions = []
    for start in range(0, len(test), 50):
        rows = test[start : start + 50]
        predictions += reader.read_batch(rows["image"], rows["entity_name"])
    columns = ("prediction", "confidence", "number_confidence", "unit_confidence")
    table = pd.DataFrame([[getattr(answer, name) for name in columns] for answer in predictions], columns=columns)
    return table.assign(reference=test["entity_value"][:])


@pytest.mark.slow
def test_calibration_improves_the_confidences(answers: pd.DataFrame) -> None:
    """Fit on one half and measured on the other, then the reverse."""
    rows = mark_right(answers, list(answers["reference"]))
    halves = (rows[::2], rows[1::2])
    reports = [
        measure(measured, measured["confidence"].map(fit_calibration(fitted).answer).to_numpy())
        for fitted, measured in (halves, halves[::-1])
    ]
    mean = {
        name: {when: sum(one[name][when] for one in reports) / 2 for when in ("before", "after")}
        for name in ("log_loss", "calibration_error")
    }
    print(f"reliability {mean}")
    assert 0.1 < rows["is_right"].mean() < 0.9, "nothing to calibrate"
    assert mean["log_loss"]["after"] < mean["log_loss"]["before"]
    assert mean["calibration_error"]["after"] < min(0.12, mean["calibration_error"]["before"])


@pytest.mark.slow
def test_abstention_raises_precision(answers: pd.DataFrame) -> None:
    points = sweep(answers)["points"]
    assert points[0]["coverage"] == 1
    half = next(point for point in points if point["coverage"] <= 0.5)
    tenth = next(point for point in points if point["coverage"] <= 0.1)
    print(*(f"precision {point['precision']:.2f} of {point['coverage']:.0%};" for point in (points[0], half, tenth)))
    assert points[0]["precision"] + 0.1 < half["precision"] < tenth["precision"]
