"""Nothing of the test was seen before: pictures, and number-unit pairs, counted.

python -m quickstart.overlap --labels runs/quickstart/labels --predictions runs/quickstart/submission.csv
"""

import csv
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from product_vqa.cli import parse_options, run
from product_vqa.entity_f1.scoring import count, equal_as_quantities, normalize_quantity
from product_vqa.errors import InputError
from product_vqa.paths import readable_file
from quickstart.printing import is_held_out


@dataclass
class OverlapOptions:
    """Where the labels and the answers lie."""

    labels: str = field(metadata={"help": "Folder that quickstart.labels wrote."})
    predictions: str | None = field(
        default=None, metadata={"help": "CSV of answers to test.csv: their F1 on the pairs never seen is given apart."}
    )
    json: bool = field(default=False, metadata={"help": "Print JSON."})


def measure_overlap(labels: Path, predictions: Path | None = None) -> dict[str, Any]:
    """Counts over the folder that `quickstart.labels` wrote.

    Returns `test_pictures` and `pictures_in_both` (equal bytes); `test_pairs` (different answers number + unit),
    `pairs_in_training` and `pairs_in_pretraining` of them, `share_seen` of the test's rows; and `f1_quantity_unseen`
    over the rows whose pair stands in neither, if there are predictions. A pair can have been seen in pretraining if
    its number is not of the held-out class: what is, is printed on none of its pictures.
    """
    train = _read(labels / "train.csv")
    test = _read(labels / "test_answers.csv")
    pictures = {split: _pictures(labels, split) for split in ("train", "test")}
    trained = {normalize_quantity(row["entity_value"]) for row in train}
    pairs = {row["index"]: normalize_quantity(row["entity_value"]) for row in test}
    pretrained = {pair for pair in pairs.values() if not is_held_out(_printed(pair))}
    seen = trained | pretrained
    result: dict[str, Any] = {
        "test_pictures": len(pictures["test"]),
        "pictures_in_both": len(pictures["train"] & pictures["test"]),
        "test_pairs": len(set(pairs.values())),
        "pairs_in_training": len(set(pairs.values()) & trained),
        "pairs_in_pretraining": len(pretrained),
        "share_seen": sum(pair in seen for pair in pairs.values()) / len(pairs),
    }
    if predictions is not None:
        answers = {row["index"]: row["prediction"] for row in _read(predictions)}
        unseen = [row for row in test if pairs[row["index"]] not in seen]
        result["f1_quantity_unseen"] = count(
            [answers.get(row["index"], "") for row in unseen],
            [row["entity_value"] for row in unseen],
            equal=equal_as_quantities,
        ).f1
    return result


def _read(file: Path) -> list[dict[str, str]]:
    with readable_file(file).open(newline="") as lines:
        return list(csv.DictReader(lines))


def _pictures(labels: Path, split: str) -> set[str]:
    names = {row["image_link"].rpartition("/")[2] for row in _read(labels / f"{split}.csv")}
    return {hashlib.sha256((labels / "images" / name).read_bytes()).hexdigest() for name in names}


def _printed(pair: Any) -> str:
    """The number as it is printed on a pack: `34`, not `34.0`."""
    if isinstance(pair, str):
        raise InputError(f"test_answers.csv holds {pair!r}, which is no quantity")
    return f"{pair[0].normalize():f}"


def main() -> None:
    (options,) = parse_options(OverlapOptions, description="Count what of the test was seen before.")
    result = measure_overlap(Path(options.labels), Path(options.predictions) if options.predictions else None)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24}{value:>10.4f}" if isinstance(value, float) else f"{name:24}{value:>10}")


if __name__ == "__main__":
    run(main)
