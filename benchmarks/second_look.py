"""Does it help to ask again about the part of the image where OCR found candidates? On rendered labels.

    python -m benchmarks.grounding --level hard --seeds 0 --output_dir runs/grounding
    cd runs/grounding/hard_0
    python -m benchmarks.second_look --dataset data --adapter adapter_data --references labels/test_answers.csv

Where the adapter alone is not certain, the image is cut at its own size around each of the first candidates, and the
adapter is asked about the cuts too. The answer with the highest confidence counts. Grounded predictions of the same
rows are next to it: they need no further look.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.commands import BASE
from benchmarks.results import print_result, stdout_to_stderr
from product_vqa.dataset import load_split
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.images import as_image
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.ocr.candidate import Candidate
from product_vqa.ocr.image_text import Box
from product_vqa.ocr.stored_texts import load_texts

BATCH_SIZE = 32
LOOKS = 3  # candidates of a row, at most
MARGIN = 1.5  # of the box's longer side, on each side
CERTAIN = (0.8, 0.9, 0.95, 0.99)  # thresholds below which a row is asked again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="folder of a dataset with the texts of its split test")
    parser.add_argument("--adapter", required=True, help="folder of an adapter that was calibrated with OCR")
    parser.add_argument("--references", required=True, help="CSV of the labels: index, entity_value")
    parser.add_argument("--base_model", default=str(BASE))
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    with stdout_to_stderr():
        result = compare(options)
    print_result(result, as_json=options.json)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """The share of right rows: alone, with a second look, and grounded."""
    reader = AttributeReader.from_pretrained(options.adapter, base_model=options.base_model)
    location = Location(options.dataset)
    texts = load_texts(location, "test")
    if texts is None:
        raise InputError(f"{options.dataset}: has no texts of the split test")
    with Path(options.references).open(newline="") as lines:
        labels = {int(row["index"]): row["entity_value"] for row in csv.DictReader(lines)}
    rows = [
        row | {"image": as_image(row["image"])} for row in load_split(location, "test") if row["image"] is not None
    ]
    read = [texts.find(row["image_link"]) for row in rows]
    images, names = [row["image"] for row in rows], [row["entity_name"] for row in rows]
    alone = ask(reader, images, names)
    found = [
        [] if text is None else reader.find_candidates(text, name) or []
        for text, name in zip(read, names, strict=True)
    ]
    looks = [(number, cut(images[number], one.box)) for number, row in enumerate(found) for one in first(row)]
    second = ask(reader, [image for _, image in looks], [names[number] for number, _ in looks])
    grounded = ask(reader, images, names, candidates=found)
    by_row: dict[int, list[Answer]] = {number: [] for number in range(len(rows))}
    for (number, _), answer in zip(looks, second, strict=True):
        by_row[number].append(answer)

    def share(answers: list[Answer]) -> float:
        pairs = zip(rows, answers, strict=True)
        return round(sum(answer.prediction == labels[row["index"]] for row, answer in pairs) / len(rows), 4)

    return {
        "rows": len(rows),
        "right_alone": share(alone),
        "right_grounded": share(grounded),
        "second_look": {
            str(certain): {
                "asked_again": sum(answer.confidence < certain for answer in alone),
                "right": share([choose(answer, by_row[number], certain) for number, answer in enumerate(alone)]),
            }
            for certain in CERTAIN
        },
    }


def first(candidates: list[Candidate]) -> list[Candidate]:
    """One candidate for each of the first boxes."""
    return list({one.box: one for one in reversed(candidates[:LOOKS])}.values())


def cut(image: Image.Image, box: Box) -> Image.Image:
    """The square around a box with its surroundings, as far as the image goes."""
    left, top, right, bottom = (value * side for value, side in zip(box, image.size * 2, strict=True))
    half = max(right - left, bottom - top) * (0.5 + MARGIN)
    x, y = (left + right) / 2, (top + bottom) / 2
    return image.crop((
        max(0, round(x - half)), max(0, round(y - half)),
        min(image.width, round(x + half)), min(image.height, round(y + half)),
    ))  # fmt: skip


def choose(answer: Answer, others: list[Answer], certain: float) -> Answer:
    if answer.confidence >= certain:
        return answer
    return max([answer, *others], key=lambda one: one.confidence)


def ask(
    reader: AttributeReader,
    images: list[Image.Image],
    names: list[str],
    *,
    candidates: list[list[Candidate]] | None = None,
) -> list[Answer]:
    answers = []
    for start in range(0, len(images), BATCH_SIZE):
        part = slice(start, start + BATCH_SIZE)
        rows = [{"image": image, "entity_name": name} for image, name in zip(images[part], names[part], strict=True)]
        own = None if candidates is None else candidates[part]
        answers += reader.answer(reader.make_batch(rows), names[part], candidates=own)
    return answers


if __name__ == "__main__":
    main()
