"""How many wrong labels does `dataset_builder.audit` put first? On rendered labels, or on rows of one's own.

    python -m benchmarks.audit --json                        # rendered labels, 5 % of them corrupted; OCR only
    python -m benchmarks.audit --train --rows 4800           # and predictions, each by a model that had the other half
    python -m benchmarks.audit --train --retrain             # and the F1 after the first labels were corrected
    python -m benchmarks.audit --train_csv train.csv --image_dir images --wrong_csv wrong.csv --first 30

A corrupted label has another number, another unit, or is that of another row. Counted is how many of them are in the
first 7 % of the list. `--wrong_csv` says which labels of one's own rows are wrong: its columns `image_link` and
`entity_name`. Everything goes through the public commands; with `--output_dir`, the same command resumes.
"""

import argparse
import csv
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.commands import BASE, CONFIG_FILE, Word, launch, python
from benchmarks.results import print_result
from dataset_builder.labels import judge_label
from product_vqa.task.schema import CHALLENGE, UNITS_BY_ENTITY
from quickstart.__main__ import computes_bfloat16
from quickstart.rendering.levels import LEVELS
from quickstart.rendering.writer import write_labels

COLUMNS = ("image_link", "group_id", "entity_name", "entity_value")
KINDS = ("number", "unit", "other row")
FOLDS = 2


class Corrupted(NamedTuple):
    """A row of train.csv, which has no column `index`: it is the number of the row."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    kind: str
    label: str  # the right one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400, help="rendered rows")
    parser.add_argument("--test_rows", type=int, default=640, help="rendered rows to score trained models on")
    parser.add_argument("--level", default="standard", choices=LEVELS, help="difficulty of the rendered labels")
    parser.add_argument("--share", type=float, default=0.05, help="share of the labels to corrupt")
    parser.add_argument(
        "--first", type=float, default=0.07, help="share (below 1) or number of rows that are looked at"
    )
    parser.add_argument("--train", action="store_true", help="train two models for the predictions")
    parser.add_argument("--retrain", action="store_true", help="train on right, corrupted and corrected labels")
    parser.add_argument("--predictions", type=Path, nargs="+", default=[], help="of inference.predict, of these rows")
    parser.add_argument("--reader", default="ocr", choices=("ocr", "none"))
    parser.add_argument("--train_csv", type=Path, help="labelled rows of one's own")
    parser.add_argument("--image_dir", type=Path, help="their images")
    parser.add_argument("--wrong_csv", type=Path, help="which of their labels are wrong")
    parser.add_argument("--image_size", type=int, default=448, help="of the dataset that is built")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", help="folder to keep everything in; the same command resumes in it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    own = (options.train_csv, options.image_dir, options.wrong_csv)
    if any(own) and not all(own):
        parser.error("--train_csv, --image_dir and --wrong_csv must be used together")
    if all(own) and (options.train or options.retrain):
        parser.error("--train and --retrain are for rendered labels")
    with tempfile.TemporaryDirectory() if options.output_dir is None else nullcontext(options.output_dir) as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure_own(folder, options) if all(own) else measure_rendered(folder, options)
    print_result(result, as_json=options.json)


def measure_own(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    if not options.train_csv.is_file() or not options.image_dir.is_dir():
        return {"skipped": f"{options.train_csv} or {options.image_dir} is not there"}
    build(options.train_csv, options.image_dir, folder / "dataset", "--image_size", options.image_size)
    ranking, seconds = audit(folder, options.predictions, reader=options.reader)
    with options.wrong_csv.open(newline="", encoding="utf-8-sig") as lines:
        wrong = {(row["image_link"], row["entity_name"]) for row in csv.DictReader(lines)}
    ranks = [rank for rank, row in enumerate(ranking) if (row["image_link"], row["entity_name"]) in wrong]
    return summarize(ranks, ranking, first=options.first) | {"seconds": seconds}


def measure_rendered(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    if not (folder / "train.csv").is_file():
        write_labels(
            folder, train_rows=options.rows, test_rows=options.test_rows, seed=options.seed,
            level=LEVELS[options.level], base_url="http://x/i",
        )  # fmt: skip
    rows = read_rows(folder / "train.csv")
    corrupted = corrupt(rows, share=options.share, seed=options.seed)
    write_rows(folder / "corrupted.csv", rows)
    size = ("--image_size", options.image_size)
    build(folder / "corrupted.csv", folder / "images", folder / "dataset", *size)
    if options.reader == "ocr" and not (folder / "dataset" / "ocr").is_dir():
        python("dataset_builder.ocr", "--dataset", folder / "dataset")  # half a second an image, so it is kept
    predictions = list(options.predictions)
    if options.train:
        predictions += predict_folds(folder, rows, seed=options.seed)
    kinds = {one.index: one.kind for one in corrupted}
    ranking, seconds = audit(folder, predictions, reader=options.reader)
    ranks = [rank for rank, row in enumerate(ranking) if int(row["index"]) in kinds]
    result = summarize(ranks, ranking, first=options.first)
    found = Counter(kinds[int(row["index"])] for row in ranking[: result["first"]] if int(row["index"]) in kinds)
    asked = Counter(kinds.values())
    result |= {
        "level": options.level,
        "found_by_kind": {kind: f"{found[kind]} of {asked[kind]}" for kind in KINDS},
        "predictions": len(predictions),
        "reader": options.reader,
        "seconds": seconds,
    }
    if options.retrain:
        write_corrections(folder / "corrections.csv", ranking[: result["first"]], corrupted)
        result["f1"] = compare_trainings(folder, options, size=size)
    return result


def summarize(ranks: Sequence[int], ranking: Sequence[Any], *, first: float) -> dict[str, Any]:
    number = round(first * len(ranking)) if first < 1 else int(first)
    found = sum(rank < number for rank in ranks)
    return {
        "rows": len(ranking),
        "wrong": len(ranks),
        "first": number,
        "found": found,
        "found_share": round(found / len(ranks), 4) if ranks else None,
        "found_in_twice_as_many": sum(rank < 2 * number for rank in ranks),
        "by_chance": round(len(ranks) * number / len(ranking), 1),
    }


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def write_rows(file: Path, rows: Iterable[dict[str, str]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def corrupt(rows: list[dict[str, str]], *, share: float, seed: int) -> list[Corrupted]:
    """Replace the labels of a share of the rows that have a usable one, in place; the kinds take turns."""
    rng = random.Random(f"{seed}/corrupt")
    labels = {}
    for index, row in enumerate(rows):
        label, reason = judge_label(row["entity_name"], row["entity_value"])
        if not reason:
            labels[index] = label
    corrupted = []
    for number, index in enumerate(rng.sample(sorted(labels), round(share * len(labels)))):
        kind, name = KINDS[number % len(KINDS)], rows[index]["entity_name"]
        attribute, right = CHALLENGE[name], labels[index]
        others = [label for other, label in labels.items() if rows[other]["entity_name"] == name]
        value, unit = right.split(" ", 1)
        match kind:
            case "number":
                possible = [f"{other.split(' ', 1)[0]} {unit}" for other in others]
            case "unit":
                possible = [f"{value} {other}" for other in UNITS_BY_ENTITY[name]]
            case _:
                possible = others
        wrong = rng.choice([one for one in possible if not attribute.is_same(one, right)])
        rows[index]["entity_value"] = wrong
        corrupted.append(Corrupted(index, kind, right))
    return corrupted


def build(train_csv: Path, images: Path, output: Path, *more: Word) -> None:
    if not (output / "build.json").is_file():
        python(
            "dataset_builder.build", "--train_csv", train_csv, "--image_dir", images, "--output_dir", output,
            "--validation_size", 0, *more,
        )  # fmt: skip


def audit(folder: Path, predictions: Sequence[Path], *, reader: str) -> tuple[list[dict[str, str]], float]:
    """The ranking, most suspicious first, and the seconds that it took."""
    start = time.monotonic()
    given: tuple[Word, ...] = ("--predictions", *predictions) if predictions else ()
    python(
        "dataset_builder.audit", "--dataset", folder / "dataset", "--reader", reader, *given,
        "--output", folder / "audit.html", "--ranking", folder / "audit.csv",
    )  # fmt: skip
    return read_rows(folder / "audit.csv"), round(time.monotonic() - start, 1)


def train(dataset: Path, adapter: Path, *, seed: int) -> None:
    if not (adapter / "adapter_model.safetensors").is_file():
        launch(
            "training.sft", "--config", CONFIG_FILE, "--dataset_name", dataset, "--model_name_or_path", BASE,
            "--base_model_id", "local/small-paligemma", "--output_dir", adapter, "--seed", seed,
            "--max_eval_samples", 0, "--eval_strategy", "no", "--bf16", str(computes_bfloat16()).lower(),
        )  # fmt: skip


def predict(adapter: Path, dataset: Path, output: Path, *, split: str) -> Path:
    if not output.is_file():
        launch(
            "inference.predict", "--adapter", adapter, "--base_model", BASE, "--dataset", dataset, "--split", split,
            "--output", output,
        )  # fmt: skip
    return output.with_suffix(".parquet")


def predict_folds(folder: Path, rows: Sequence[dict[str, str]], *, seed: int) -> list[Path]:
    """Predictions of each half of the images, by a model that was trained on the other half."""
    links = sorted({row["image_link"] for row in rows})
    random.Random(f"{seed}/folds").shuffle(links)
    fold_of = {link: number % FOLDS for number, link in enumerate(links)}
    for fold in range(FOLDS):
        indexes = [str(index) for index, row in enumerate(rows) if fold_of[row["image_link"]] == fold]
        (folder / f"fold{fold}.txt").write_text("\n".join(indexes) + "\n")
        build(
            folder / "corrupted.csv", folder / "images", folder / f"fold{fold}", "--rows", folder / f"fold{fold}.txt"
        )
        train(folder / f"fold{fold}", folder / f"adapter{fold}", seed=seed)
    return [
        predict(folder / f"adapter{1 - fold}", folder / f"fold{fold}", folder / f"fold{fold}.csv", split="train")
        for fold in range(FOLDS)
    ]


def write_corrections(file: Path, looked_at: Iterable[dict[str, str]], corrupted: Sequence[Corrupted]) -> None:
    """What somebody who sees the right labels decides about these rows of the ranking."""
    right = {one.index: one.label for one in corrupted}
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["index", "image_link", "entity_name", "entity_value", "decision", "new_value"])
        for row in looked_at:
            label = right.get(int(row["index"]), "")
            given = [row[name] for name in ("index", "image_link", "entity_name", "entity_value")]
            writer.writerow([*given, "correct" if label else "keep", label])


def compare_trainings(folder: Path, options: argparse.Namespace, *, size: tuple[Word, ...]) -> dict[str, float]:
    """The F1 on test labels of models that were trained on the right, the corrupted and the corrected labels."""
    images, scores = folder / "images", {}
    build(folder / "train.csv", images, folder / "clean", *size)
    build(folder / "corrupted.csv", images, folder / "corrected", "--corrections", folder / "corrections.csv", *size)
    if not (folder / "test" / "build.json").is_file():
        python(
            "dataset_builder.build", "--test_csv", folder / "test.csv", "--image_dir", images, "--output_dir",
            folder / "test", *size,
        )  # fmt: skip
    for name, dataset in (("clean", "clean"), ("corrupted", "dataset"), ("corrected", "corrected")):
        train(folder / dataset, folder / f"adapter_{name}", seed=options.seed)
        output = folder / f"test_{name}.csv"
        predict(folder / f"adapter_{name}", folder / "test", output, split="test")
        printed = python(
            "inference.evaluate", "--predictions", output, "--references", folder / "test_answers.csv", "--json"
        )
        scores[name] = round(json.loads(printed)["f1_quantity"], 4)
    return scores


if __name__ == "__main__":
    main()
