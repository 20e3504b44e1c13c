"""Count what training and pretraining have already seen of the test split: images, and pairs of number and unit.

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
from product_vqa.errors import InputError, argument
from product_vqa.paths import readable_file
from quickstart.rendering.printed_numbers import is_held_out


@dataclass
class OverlapOptions:
    """The rendered labels and, optionally, predictions about them."""

    labels: str = field(metadata={"help": "Folder that quickstart.rendering.render wrote."})
    predictions: str | None = field(
        default=None,
        metadata={"help": "CSV of predictions for test.csv, to compute their F1 on the pairs that were never seen."},
    )
    json: bool = field(default=False, metadata={"help": "Print JSON."})


def measure_overlap(labels: Path, predictions: Path | None = None) -> dict[str, Any]:
    """Count over the folder that `quickstart.rendering.render` wrote.

    Returns `test_pictures` and `pictures_in_both` (images with the same bytes in both splits); `test_pairs` (different
    pairs of number and unit), `pairs_in_training` and `pairs_in_pretraining` of them; `share_seen` (of the test rows);
    and with predictions `f1_quantity_unseen`, over the rows whose pair is in neither. A pair may have been seen in
    pretraining if its number is not held out: held-out numbers are on none of its images.
    """
    with argument("labels"):
        train = _read(labels / "train.csv")
        references = _read(labels / "test_answers.csv")
        train_images, test_images = (_image_digests(labels, split) for split in ("train", "test"))
    pairs = {row["index"]: normalize_quantity(row["entity_value"]) for row in references}
    trained = {normalize_quantity(row["entity_value"]) for row in train}
    pretrained = {pair for pair in pairs.values() if not is_held_out(_printed_number(pair))}
    seen = trained | pretrained
    result: dict[str, Any] = {
        "test_pictures": len(test_images),
        "pictures_in_both": len(train_images & test_images),
        "test_pairs": len(set(pairs.values())),
        "pairs_in_training": len(set(pairs.values()) & trained),
        "pairs_in_pretraining": len(pretrained),
        "share_seen": sum(pair in seen for pair in pairs.values()) / len(pairs),
    }
    if predictions is not None:
        with argument("predictions"):
            prediction_by_index = {row["index"]: row["prediction"] for row in _read(predictions)}
        unseen = [row for row in references if pairs[row["index"]] not in seen]
        result["f1_quantity_unseen"] = count(
            [prediction_by_index.get(row["index"], "") for row in unseen],
            [row["entity_value"] for row in unseen],
            equal=equal_as_quantities,
        ).f1
    return result


def _read(file: Path) -> list[dict[str, str]]:
    with readable_file(file).open(newline="") as lines:
        return list(csv.DictReader(lines))


def _image_digests(labels: Path, split: str) -> set[str]:
    names = {row["image_link"].rpartition("/")[2] for row in _read(labels / f"{split}.csv")}
    return {hashlib.sha256((labels / "images" / name).read_bytes()).hexdigest() for name in names}


def _printed_number(pair: Any) -> str:
    """The number as labels print it: `34`, not `34.0`."""
    if isinstance(pair, str):
        raise InputError(f"test_answers.csv: {pair!r} is not a quantity")
    return f"{pair[0].normalize():f}"


def main() -> None:
    (options,) = parse_options(OverlapOptions, description="Count what training has already seen of the test split.")
    result = measure_overlap(Path(options.labels), Path(options.predictions) if options.predictions else None)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24}{value:>10.4f}" if isinstance(value, float) else f"{name:24}{value:>10}")


if __name__ == "__main__":
    run(main)
