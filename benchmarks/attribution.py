"""Do heat maps show where an answer was read? On rendered labels, whose values have known boxes.

    python -m benchmarks.attribution --json
    python -m benchmarks.attribution --adapter runs/quickstart/adapter --answers 200

Fresh labels are asked one attribute that they show, and each method makes a heat map of each right answer. The top
10 % are the hottest tenth of the image tokens. The measures are shares of the right answers:

- box_in_top: at least half of the value's box is in the top 10 %
- box_touches_top: at least one pixel of it is
- maximum_in_box: the middle of the hottest token is in the box

`..._chance` is the same with the box at every position in the image, and `..._other_lines` with the boxes of the
label's other lines: a method that finds any text has a high one. `region` compares the box that the reader gives.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attribution_methods import METHODS
from benchmarks.commands import BASE, CONFIG_FILE, launch, python
from benchmarks.results import print_result
from product_vqa.cli import run
from product_vqa.errors import InputError
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.attribution import find_box
from product_vqa.modeling.collator import Row
from product_vqa.task.quantity import format_quantity
from quickstart.__main__ import computes_bfloat16
from quickstart.rendering.drawing import SIZE, draw, encode
from quickstart.rendering.label_text import make_label
from quickstart.rendering.levels import LEVELS
from quickstart.rendering.text_boxes import Box, find_line_boxes, find_value_box

TOP_SHARE = 0.1


@dataclass(frozen=True)
class Sample:
    """A question that was answered right."""

    row: Row  # with the answer as entity_value
    box: Box  # of the value
    other_lines: list[Box]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", help="repo (user/name) or folder; default: one is trained on rendered labels")
    parser.add_argument("--base_model", default=str(BASE), help="base model; default: the quickstart's")
    parser.add_argument("--train_rows", type=int, default=7200, help="rows to train on, without --adapter")
    parser.add_argument("--answers", type=int, default=150, help="right answers to make heat maps of")
    parser.add_argument("--level", default="standard", choices=LEVELS, help="difficulty of the labels")
    parser.add_argument("--methods", default=",".join(METHODS), help="methods to compare, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", help="folder to keep the adapter in; the same command resumes in it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    methods = options.methods.split(",")
    if unknown := set(methods) - METHODS.keys():
        parser.error(f"--methods: unknown {', '.join(sorted(unknown))}; known are {', '.join(METHODS)}")
    with tempfile.TemporaryDirectory() if options.output_dir is None else nullcontext(options.output_dir) as name:
        adapter = options.adapter or train_adapter(Path(name), options)
        reader = AttributeReader.from_pretrained(adapter, base_model=options.base_model, device="cpu")
    reader.model.requires_grad_(False)
    samples, asked = find_samples(reader, number=options.answers, level=options.level, seed=options.seed)
    if not samples:
        raise InputError(f"--adapter {adapter}: none of {asked} answers about rendered labels is right")
    result: dict[str, Any] = {
        "level": options.level,
        "dtype": str(reader.model.dtype).removeprefix("torch."),
        "asked": asked,
        "right": len(samples),
        "box_area": round(float(np.mean([area(sample.box) for sample in samples])) / SIZE**2, 4),
    }
    print_result(result | measure(reader, samples, methods=methods), as_json=options.json)


def train_adapter(folder: Path, options: argparse.Namespace) -> str:
    """Train an adapter on rendered labels by the public commands, unless the folder has it."""
    labels, dataset, adapter = folder / "labels", folder / "dataset", folder / "adapter"
    if not (dataset / "build.json").is_file():
        python(
            "quickstart.rendering.render", "--output_dir", labels, "--train_rows", options.train_rows,
            "--test_rows", 0, "--seed", options.seed, "--level", options.level,
        )  # fmt: skip
        python(
            "dataset_builder.build", "--train_csv", labels / "train.csv", "--image_dir", labels / "images",
            "--output_dir", dataset, "--validation_size", 0,
        )  # fmt: skip
    if not (adapter / "adapter_model.safetensors").is_file():
        launch(
            "training.sft", "--config", CONFIG_FILE, "--dataset_name", dataset, "--model_name_or_path", BASE,
            "--base_model_id", "local/small-paligemma", "--output_dir", adapter, "--seed", options.seed,
            "--max_eval_samples", 0, "--eval_strategy", "no", "--bf16", str(computes_bfloat16()).lower(),
        )  # fmt: skip
    return str(adapter)


def find_samples(reader: AttributeReader, *, number: int, level: str, seed: int) -> tuple[list[Sample], int]:
    """Ask each of as many fresh labels as necessary one attribute that it shows. Returns the right ones of `asked`."""
    samples: list[Sample] = []
    asked = 0
    while len(samples) < number and asked < 10 * number:
        rng = random.Random(f"{seed}/attribution/{asked}")
        asked += 1
        label = make_label(rng, level=LEVELS[level], held_out=True)
        image, characters = draw(label, rng, level=LEVELS[level])
        content = encode(image, rng, level=LEVELS[level])
        name = rng.choice(sorted(label.facts))
        answer = reader.read(content, name)
        if answer.prediction != format_quantity(label.facts[name].quantity):
            continue
        line = next(line for line, one in enumerate(label.lines) if label.facts[name] in one.facts)
        boxes = find_line_boxes(characters)
        row = {"image": content, "entity_name": name, "entity_value": answer.prediction}
        samples.append(Sample(row, find_value_box(label, characters, name), boxes[:line] + boxes[line + 1 :]))
    return samples, asked


def measure(
    reader: AttributeReader, samples: Sequence[Sample], *, methods: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The measures of each method, and of the reader's region, as shares of the samples."""
    result: dict[str, dict[str, float]] = {}
    regions = []
    for name in methods:
        start = time.perf_counter()
        heats = [METHODS[name](reader, sample.row) for sample in samples]
        seconds = (time.perf_counter() - start) / len(samples)
        values, chances, others = [], [], []
        for heat, sample in zip(heats, samples, strict=True):
            values.append(compare(heat, sample.box))
            chances.append(compare_everywhere(heat, sample.box))
            others += [compare(heat, box) for box in sample.other_lines]
        result[name] = {
            **average(values),
            **{f"{measure}_chance": value for measure, value in average(chances).items()},
            **{f"{measure}_other_lines": value for measure, value in average(others).items()},
            "seconds": round(seconds, 3),
        }
        if name == "pixel_gradient":
            boxes = [find_box(heat, size=(SIZE, SIZE)) for heat in heats]
            regions = [compare_region(box, sample.box) for box, sample in zip(boxes, samples, strict=True)]
    return result | ({"region": average(regions)} if regions else {})


def compare(heat: np.ndarray, box: Box) -> dict[str, float]:
    """The measures of a heat map for one box, as 0 or 1."""
    left, top, right, bottom = (round(side) for side in box)
    is_top, hottest = _pixels(heat)
    share = is_top[top:bottom, left:right].mean()
    y, x = hottest
    return {
        "box_in_top": float(share >= 0.5),
        "box_touches_top": float(share > 0),
        "maximum_in_box": float(left <= x < right and top <= y < bottom),
    }


def compare_everywhere(heat: np.ndarray, box: Box) -> dict[str, float]:
    """The mean of the measures for a box of this size at every position in the image."""
    left, top, right, bottom = (round(side) for side in box)
    width, height = right - left, bottom - top
    is_top, (y, x) = _pixels(heat)
    sums = np.pad(is_top.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    covered = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    share = covered / (width * height)
    tops, lefts = (np.arange(length) for length in share.shape)
    has_y, has_x = (tops <= y) & (y < tops + height), (lefts <= x) & (x < lefts + width)
    return {
        "box_in_top": float((share >= 0.5).mean()),
        "box_touches_top": float((share > 0).mean()),
        "maximum_in_box": float(np.outer(has_y, has_x).mean()),
    }


def compare_region(region: Box, box: Box) -> dict[str, float]:
    """How a region and the value's box overlap, in shares; and the region's share of the image."""
    width = min(region[2], box[2]) - max(region[0], box[0])
    height = min(region[3], box[3]) - max(region[1], box[1])
    both = max(0.0, width) * max(0.0, height)
    return {
        "overlap": both / (area(region) + area(box) - both),  # intersection over union
        "box_in_region": both / area(box),
        "has_box": float(both >= area(box) / 2),
        "region_area": area(region) / SIZE**2,
    }


def average(measures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([one[name] for one in measures])), 4) for name in measures[0]}


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _pixels(heat: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Whether each pixel is in the top 10 %, and the pixel in the middle of the hottest token."""
    order = heat.argsort(axis=None, kind="stable")[::-1]
    is_top = np.zeros(heat.size, bool)
    is_top[order[: int(TOP_SHARE * heat.size)]] = True
    rows, columns = (np.arange(SIZE) * length // SIZE for length in heat.shape)
    row, column = divmod(int(order[0]), heat.shape[1])
    middle = int((row + 0.5) * SIZE / heat.shape[0]), int((column + 0.5) * SIZE / heat.shape[1])
    return is_top.reshape(heat.shape)[np.ix_(rows, columns)], middle


if __name__ == "__main__":
    run(main)
