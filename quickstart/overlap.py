"""Count what training and pretraining have already seen of the test split: images, and answers.

An answer is a pair of number and unit; for another schema than the challenge's, an attribute and its canonical answer.

python -m quickstart.overlap --labels runs/quickstart/labels --predictions runs/quickstart/submission.csv
"""

import csv
import hashlib
import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from product_vqa.cli import parse_options, run
from product_vqa.entity_f1.scoring import count, equal_as_quantities, equal_as_strings, normalize_quantity
from product_vqa.errors import InputError, argument
from product_vqa.paths import readable_file
from product_vqa.schemas import choose_schema
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import IntegerKind, LabelError, QuantityKind
from product_vqa.task.schema import CHALLENGE
from quickstart.rendering.printed_numbers import is_held_out


@dataclass
class OverlapOptions:
    """The rendered labels and, optionally, predictions about them."""

    labels: str = field(metadata={"help": "Folder that quickstart.rendering.render wrote."})
    predictions: str | None = field(
        default=None,
        metadata={"help": "CSV of predictions for test.csv, to compute their F1 on the pairs that were never seen."},
    )
    schema: str | None = field(
        default=None, metadata={"help": "schema.yaml that the labels were rendered for; default: the challenge's."}
    )
    json: bool = field(default=False, metadata={"help": "Print JSON."})


def measure_overlap(labels: Path, predictions: Path | None = None, *, schema: Schema) -> dict[str, Any]:
    """Count over the folder that `quickstart.rendering.render` wrote.

    Returns `test_pictures` and `pictures_in_both` (images with the same bytes in both splits); `test_pairs` (different
    answers), `pairs_in_training` and `pairs_in_pretraining` of them; `share_seen` (of the test rows); and with
    predictions `f1_quantity_unseen`, over the rows whose answer is in neither, or None if there are none. A number may
    have been seen in pretraining if it is not held out: held-out numbers are on none of its images.
    """
    with argument("labels"):
        train = _read(labels / "train.csv")
        references = _read(labels / "test_answers.csv")
        train_images, test_images = (_image_digests(labels, split) for split in ("train", "test"))
    pairs = {row["index"]: _pair(row.get("entity_name", ""), row["entity_value"], schema) for row in references}
    trained = {_pair(name, value, schema) for name, value in _labels(train, schema)}
    pretrained = {pair for pair in pairs.values() if _is_pretrained(pair, schema)}
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
        answers = [prediction_by_index.get(row["index"], "") for row in unseen]
        if schema != CHALLENGE:
            answers = [_canonical(row["entity_name"], text, schema) for row, text in zip(unseen, answers, strict=True)]
        equal = equal_as_quantities if schema == CHALLENGE else equal_as_strings
        f1 = count(answers, [row["entity_value"] for row in unseen], equal=equal).f1
        result["f1_quantity_unseen"] = f1 if unseen else None
    return result


def _labels(train: list[dict[str, str]], schema: Schema) -> Iterator[tuple[str, str]]:
    """(attribute, label) of each row, or of each row that a table with a column per attribute gives."""
    for row in train:
        if "entity_value" in row:
            yield row.get("entity_name", ""), row["entity_value"]
        else:
            for name, attribute in schema.attributes.items():
                if row[name] or attribute.missing_is_not_shown:
                    yield name, row[name]


def _pair(entity_name: str, label: str, schema: Schema) -> Hashable:
    return normalize_quantity(label) if schema == CHALLENGE else (entity_name, _canonical(entity_name, label, schema))


def _canonical(entity_name: str, text: str, schema: Schema) -> str:
    try:
        return schema[entity_name].normalize(text)
    except LabelError:
        return text


def _is_pretrained(pair: Any, schema: Schema) -> bool:
    """Whether images of pretraining may print the number. Its other texts are drawn from too many to count."""
    if schema == CHALLENGE:
        return not is_held_out(_printed_number(pair))
    entity_name, answer = pair
    kind = schema[entity_name].kind
    if not answer or not isinstance(kind, QuantityKind | IntegerKind):
        return False
    return not is_held_out(_printed_number((abs(Decimal(kind.split(answer)[0])), "")))


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
    with argument("schema"):
        schema = choose_schema(options.schema)
    predictions = Path(options.predictions) if options.predictions else None
    result = measure_overlap(Path(options.labels), predictions, schema=schema)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24}{value:>10.4f}" if isinstance(value, float) else f"{name:24}{value!s:>10}")


if __name__ == "__main__":
    run(main)
