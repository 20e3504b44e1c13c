"""What OCR adds to an adapter, on rendered labels: alone, and as a second reader that grounds predictions.

    python -m benchmarks.grounding --level hard --seeds 0,1,2 --output_dir runs/grounding --json

For each seed, an adapter is trained (5 minutes on two cores), calibrated on the validation split with OCR, and asked
the test split: alone, and grounded. `--reader ocr` answers the same rows by rules. Then the OCR is made worse on
purpose, half of the texts dropped and a fifth of the digits confused, in all splits. `--hint` also trains adapters
whose questions end with the candidates of OCR, for which it reads the images of the training split, too. Everything
else goes through the public commands. With `--output_dir`, the same command resumes.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.commands import BASE, CONFIG_FILE, launch, python
from benchmarks.hinted_sft import HintedBatches, Hints
from benchmarks.results import print_result
from benchmarks.timing import alternate
from inference.batch_predictor import predict_batches
from inference.candidate_finder import CandidateFinder, make_finder
from inference.dataloader import RowBatches
from inference.metrics import score_table
from inference.references import join
from inference.text_source import TextSource
from product_vqa.bootstrap import interval, resample
from product_vqa.dataset import load_split
from product_vqa.hub import Location
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.stored_texts import load_texts
from product_vqa.ocr.text_files import ENGINE_KEY, TextRow, write_texts
from product_vqa.schemas import load_schema
from product_vqa.tables.layout import LONG
from quickstart.__main__ import computes_bfloat16
from quickstart.rendering.levels import LEVELS

VALIDATION_SIZE = 0.08  # some 580 rows, for calibration
DROPPED, CONFUSED = 0.5, 0.2  # of the texts, and of the digits of the others
SPLITS = ("validation", "test")
TRAIN_SPLIT = "train"  # is read for hints only
RESAMPLES = 2000
BATCH_SIZE = 32
WAYS = ("alone", "ocr", "grounded", "worse_ocr", "grounded_in_worse", "forced_grounded", "forced_grounded_in_worse")
HINTED_WAYS = ("hinted", "hinted_in_worse", "hinted_in_unexpectedly_worse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--level", default="hard", choices=LEVELS, help="difficulty of the labels")
    parser.add_argument("--seeds", default="0", help="seeds of the labels and the training, with commas")
    parser.add_argument("--train_rows", type=int, default=7200)
    parser.add_argument("--test_rows", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=0, help="also compare the speed, this often; the median counts")
    parser.add_argument("--hint", action="store_true", help="also train with the candidates of OCR in the prompt")
    parser.add_argument("--output_dir", help="folder to keep everything in; the same command resumes in it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    with tempfile.TemporaryDirectory() if options.output_dir is None else nullcontext(options.output_dir) as name:
        results = {}
        for seed in seeds:
            folder = Path(name) / f"{options.level}_{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            make_dataset(
                folder, level=options.level, seed=seed, train_rows=options.train_rows, test_rows=options.test_rows
            )
            train(folder / "data", folder / "adapter", seed=seed)
            read_texts(folder, splits=(TRAIN_SPLIT, *SPLITS) if options.hint else SPLITS)
            predict_all(folder, seed=seed)
            if options.hint:
                predict_hinted(folder, seed=seed)
            results[str(seed)] = compare(folder, ways=(*WAYS, *(HINTED_WAYS if options.hint else ())))
            if options.repeats:
                results[str(seed)]["speed"] = measure_speed(folder, repeats=options.repeats)
    print_result({"level": options.level, "train_rows": options.train_rows, **results}, as_json=options.json)


def make_dataset(folder: Path, *, level: str, seed: int, train_rows: int, test_rows: int) -> None:
    labels = folder / "labels"
    if not (labels / "train.csv").is_file():
        python(
            "quickstart.rendering.render", "--output_dir", labels, "--train_rows", train_rows, "--test_rows",
            test_rows, "--seed", seed, "--level", level,
        )  # fmt: skip
    if not (folder / "data" / "build.json").is_file():
        python(
            "dataset_builder.build", "--train_csv", labels / "train.csv", "--test_csv", labels / "test.csv",
            "--image_dir", labels / "images", "--output_dir", folder / "data",
            "--validation_size", str(VALIDATION_SIZE),
        )  # fmt: skip


def train(dataset: Path, adapter: Path, *, seed: int, module: str = "training.sft") -> None:
    if not (adapter / "adapter_model.safetensors").is_file():
        launch(
            module, "--config", CONFIG_FILE, "--dataset_name", dataset, "--model_name_or_path", BASE,
            "--base_model_id", "local/small-paligemma", "--output_dir", adapter, "--seed", seed,
            "--max_eval_samples", 0, "--eval_strategy", "no", "--bf16", str(computes_bfloat16()).lower(),
        )  # fmt: skip


def read_texts(folder: Path, *, splits: Sequence[str]) -> None:
    """The dataset with the texts of the images of these splits, and a copy of it with worse ones."""
    if not all(text_file(folder / "data", split).is_file() for split in splits):
        python("dataset_builder.ocr", "--dataset", folder / "data", "--splits", ",".join(splits))
    worse = folder / "worse"
    if not all(text_file(worse, split).is_file() for split in splits):
        temporary = folder / "worse.tmp"
        for kept in (temporary, worse):  # one without the texts of the training split
            shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder / "data", temporary)
        for split in splits:
            make_worse(text_file(folder / "data", split), text_file(temporary, split), seed=split)
        temporary.rename(worse)


def text_file(dataset: Path, split: str) -> Path:
    return dataset / "ocr" / f"{split}-00000-of-00001.parquet"


def make_worse(file: Path, output: Path, *, seed: str) -> None:
    """Drop DROPPED of the texts, and confuse CONFUSED of the digits of the others."""
    rng = random.Random(seed)
    table = pq.read_table(file)
    rows = []
    for row in table.to_pylist():
        text = ImageText.from_dict(row)
        kept = [box for box in text.boxes if rng.random() >= DROPPED]
        confused = [replace(box, text="".join(confuse(char, rng) for char in box.text)) for box in kept]
        rows.append(TextRow(row["image_link"], row["sha256"], replace(text, boxes=tuple(confused))))
    write_texts(output, rows, engine=f"{table.schema.metadata[ENGINE_KEY].decode()}, made worse")


def confuse(char: str, rng: random.Random) -> str:
    return str(rng.randrange(10)) if char.isascii() and char.isdigit() and rng.random() < CONFUSED else char


def predict_all(folder: Path, *, seed: int) -> None:
    """The predictions of the test split in all ways. Each OCR has its own calibration."""
    adapter, base = folder / "adapter", ("--base_model", BASE)
    for dataset, name in (("data", "grounded"), ("worse", "grounded_in_worse")):
        calibrated = folder / f"adapter_{dataset}"
        if not (calibrated / "calibration.json").is_file():
            shutil.copytree(adapter, calibrated, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint-*"))
            python(
                "inference.calibrate", "--adapter", calibrated, *base, "--dataset", folder / dataset, "--ground",
                "ocr", "--seed", seed,
            )  # fmt: skip
        model = ("--adapter", calibrated, *base, "--dataset", folder / dataset, "--split", "test")
        predict(folder / f"{name}.csv", *model)  # grounded, if the calibration says that it is better
        predict(folder / f"forced_{name}.csv", *model, "--ground", "ocr")
        rules = ("--reader", "ocr", "--dataset", folder / dataset, "--split", "test")
        predict(folder / ("ocr.csv" if dataset == "data" else "worse_ocr.csv"), *rules)
    predict(folder / "alone.csv", "--adapter", adapter, *base, "--dataset", folder / "data", "--ground", "none")


def predict(output: Path, *arguments: str | Path) -> None:
    if not output.is_file():
        python("inference.predict", *arguments, "--output", output)


def predict_hinted(folder: Path, *, seed: int) -> None:
    """The predictions of adapters that were trained with hints; `unexpectedly`: the OCR was better in training."""
    for trained, asked, name in zip(("data", "worse", "data"), ("data", "worse", "worse"), HINTED_WAYS, strict=True):
        adapter, output = folder / f"hinted_adapter_{trained}", folder / f"{name}.parquet"
        train(folder / trained, adapter, seed=seed, module="benchmarks.hinted_sft")
        if output.is_file():
            continue
        reader = AttributeReader.from_pretrained(str(adapter), base_model=str(BASE))
        batches = HintedBatches(
            load_split(Location(str(folder / asked)), "test"),
            processor=reader.processor,
            batch_size=BATCH_SIZE,
            schema=reader.schema,
            hints=Hints.of(folder / asked, "test", schema=reader.schema),
        )
        tables = predict_batches(reader, batches, range(len(batches)), num_workers=0, min_confidence=0.0)
        pq.write_table(pa.concat_tables(table for _, table in tables), output)


def measure_speed(folder: Path, *, repeats: int) -> dict[str, Any]:
    """Samples/s of predict's loop, alone and grounded in the texts of the dataset, which are found and weighed too."""
    reader = AttributeReader.from_pretrained(str(folder / "adapter_data"), base_model=str(BASE))
    location = Location(str(folder / "data"))
    dataset = load_split(location, "test")
    finder = make_finder(TextSource(load_texts(location, "test")), reader)

    def run(finder: CandidateFinder | None) -> float:
        batches = RowBatches(
            dataset, processor=reader.processor, batch_size=BATCH_SIZE, schema=reader.schema, finder=finder
        )
        start = time.perf_counter()
        for _ in predict_batches(reader, batches, range(len(batches)), num_workers=0, min_confidence=0.0):
            pass
        return len(dataset) / (time.perf_counter() - start)

    run(None)  # warms up
    rates = alternate({"alone": lambda: run(None), "grounded": lambda: run(finder)}, repeats=repeats)
    return {
        "rows": len(dataset),
        "samples_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "grounded_relative_to_alone": round(rates["grounded"] / rates["alone"], 3),
    }


def compare(folder: Path, *, ways: Sequence[str]) -> dict[str, Any]:
    """F1 in each way, and paired differences with 95 % intervals over resampled images."""
    schema = load_schema(Location(str(folder / "data")))
    references = str(folder / "labels" / "test_answers.csv")
    tables = {way: join(folder / f"{way}.parquet", references, schema=schema, layout=LONG) for way in ways}
    result: dict[str, Any] = {f"f1_{way}": score_table(table, schema=schema)["f1"] for way, table in tables.items()}
    pairs = [("grounded", "alone"), ("grounded", "ocr"), ("grounded_in_worse", "alone"), ("forced_grounded", "alone")]
    if "hinted" in ways:
        pairs += [("hinted", "alone"), ("grounded", "hinted"), ("hinted_in_worse", "alone")]
    for one, other in pairs:
        result[f"{one}_minus_{other}"] = paired_difference(tables[one], tables[other])
    for dataset in ("data", "worse"):
        content = json.loads((folder / f"adapter_{dataset}" / "calibration.json").read_text())
        result[f"validation_gain_{dataset}"] = content["grounding"]["gain"]
    return result


def paired_difference(one: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """Of the share of right rows: its mean, and a 95 % interval."""
    both = one.merge(other, on="index", suffixes=("", "_other"))
    difference = (both["prediction"] == both["reference"]).astype(float) - (
        both["prediction_other"] == both["reference_other"]
    ).astype(float)
    by_image = difference.groupby(both["image_link"]).agg(["sum", "size"]).to_numpy()
    sums = resample(by_image, resamples=RESAMPLES)
    low, high = interval(sums[:, 0] / sums[:, 1])
    return {"mean": round(float(difference.mean()), 4), "low": round(low, 4), "high": round(high, 4)}


if __name__ == "__main__":
    main()
