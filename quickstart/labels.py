"""Rendered product labels as files: pictures, train.csv and test.csv in the form of the challenge's, and the answers.

    python -m quickstart.labels --output_dir labels --train_rows 2000 --test_rows 400 --level standard

What is printed, and the levels of difficulty: quickstart.printing. How it is drawn: quickstart.drawing.
"""

import csv
import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from dataset_builder.labels import LabelForm
from product_vqa.errors import argument
from product_vqa.task.quantity import format_number, format_quantity
from product_vqa.task.schema import ENTITIES
from quickstart.drawing import draw, encode
from quickstart.printing import (
    KEYS_BY_ENTITY,
    LEVELS,
    SPELLINGS_BY_UNIT,
    STANDARD,
    Fact,
    Label,
    Level,
    Line,
    all_numbers,
    draw_number,
    make_label,
)

# Train labels that are no plain quantity, as shares of the rows (rounded to whole rows). The real train.csv has all of
# them, but 0.1 % and less of most; a thousand rows shall hold each.
LABEL_SHARES = {
    LabelForm.RANGE_BRACKETS: 0.02,
    LabelForm.RANGE_TO: 0.005,
    LabelForm.UNIT_UNKNOWN: 0.01,
    LabelForm.EXPONENT: 0.003,
    LabelForm.BROKEN: 0.002,
}
# Of the whole numbers: `500 gram` for `500.0 gram`. Elsewhere there are none, as in the real file.
SHORT_SHARES = {"item_weight": 0.24, "maximum_weight_recommendation": 0.54}
# Pictures with one, two, three questions: 6 % (train) and 57 % (test) of the rows share one, as in the real files.
_QUESTION_WEIGHTS = {"train": (97, 3, 0), "test": (62, 32, 6)}
# The printed unit, and the one in the label, of facts that no allowed unit can tell.
_FOREIGN_UNITS = {
    "wattage": ("HP", "horsepower"),
    "item_weight": ("ct", "carat"),
    "maximum_weight_recommendation": ("persons", "person"),
}
_RANGE_ENTITIES = ("voltage", "voltage", "voltage", "item_weight", "item_weight", "item_volume", "wattage")
_RANGE_UNITS = {
    "voltage": ("volt",),
    "item_weight": ("gram", "kilogram"),
    "item_volume": ("millilitre", "litre"),
    "wattage": ("watt",),
}
_GROUP_IDS = tuple(random.Random("groups").sample(range(100_000, 1_000_000), 40))


@dataclass(frozen=True)
class Row:
    image_link: str
    group_id: int
    entity_name: str
    entity_value: str


def _replace_value(label: Label, entity_name: str, value: str) -> Label:
    """The same label with another value for the entity: one that is no Fact."""
    key = KEYS_BY_ENTITY[entity_name][0]
    odd = Line(f"{key} {value}", key=key)
    return Label(
        tuple(odd if any(fact.entity_name == entity_name for fact in line.facts) else line for line in label.lines)
    )


def _odd_label(rng: random.Random, form: LabelForm, entity_name: str, *, level: Level) -> tuple[str, Label, str]:
    """An entity, what is printed, and the label: one that a dataset's builder has to make sense of or leave out."""
    if form in (LabelForm.EXPONENT, LabelForm.BROKEN):
        label = make_label(rng, level=level, entity_names=[entity_name])
        quantity = label.facts[entity_name].quantity
        exponent = "e" if form is LabelForm.EXPONENT else " e"
        return entity_name, label, f"{quantity.number:e} {quantity.unit}".replace("e", exponent, 1)
    if form is LabelForm.UNIT_UNKNOWN:
        entity_name = rng.choice(list(_FOREIGN_UNITS))
        printed, unit = _FOREIGN_UNITS[entity_name]
        number = draw_number(rng, ("9", "99"), held_out=False)
        value, answer = f"{number} {printed}", f"{format_number(Decimal(number))} {unit}"
    else:
        entity_name = rng.choice(_RANGE_ENTITIES)
        unit = rng.choice(_RANGE_UNITS[entity_name])
        low, high = sorted(rng.sample(all_numbers(rng.choice(("99", "999", "9.9")), False), 2), key=Decimal)
        value = f"{low}-{high} {SPELLINGS_BY_UNIT[unit][0]}"
        answer = f"{low} {unit} to {high} {unit}"
        if form is LabelForm.RANGE_BRACKETS:
            answer = f"[{format_number(Decimal(low))}, {format_number(Decimal(high))}] {unit}"
    label = make_label(rng, level=level, entity_names=[entity_name])
    return entity_name, _replace_value(label, entity_name, value), answer


def _train_answer(rng: random.Random, fact: Fact) -> str:
    answer = format_quantity(fact.quantity)
    return answer.replace(".0 ", " ") if rng.random() < SHORT_SHARES.get(fact.entity_name, 0) else answer


def _make_rows(folder: Path, *, split: str, row_count: int, seed: int, level: Level, base_url: str) -> list[Row]:
    """Write the pictures of a split; return its rows, picture after picture."""
    rows: list[Row] = []
    asked: Counter[str] = Counter()
    odd_forms = [form for form, share in LABEL_SHARES.items() for _ in range(round(share * row_count))]
    if split == "test":
        odd_forms = []

    def least_asked(count: int, rng: random.Random) -> list[str]:
        return sorted(ENTITIES, key=lambda name: (asked[name], rng.random()))[:count]

    picture = 0
    while len(rows) < row_count:
        rng = random.Random(f"{seed}/{split}/{picture}")  # of its own: a picture depends on no other's drawing
        picture += 1
        if odd_forms:
            name, label, odd_answer = _odd_label(rng, odd_forms.pop(), least_asked(1, rng)[0], level=level)
            answers = {name: odd_answer}
        else:
            count = rng.choices((1, 2, 3), _QUESTION_WEIGHTS[split])[0]
            names = least_asked(min(count, max(level.line_counts), row_count - len(rows)), rng)
            label = make_label(rng, level=level, entity_names=names, held_out=split == "test")
            facts = [label.facts[name] for name in names]
            if split == "train":
                answers = {fact.entity_name: _train_answer(rng, fact) for fact in facts}
            else:
                answers = {fact.entity_name: format_quantity(fact.quantity) for fact in facts}
        image, _ = draw(label, rng, level=level)
        content = encode(image, rng, level=level)
        file_name = f"{hashlib.sha256(content).hexdigest()[:16]}.jpg"
        (folder / file_name).write_bytes(content)
        asked.update(list(answers))
        group_id = rng.choice(_GROUP_IDS)
        rows += [Row(f"{base_url}/{file_name}", group_id, name, answer) for name, answer in answers.items()]
    return rows


def _write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_labels(
    folder: Path, *, train_rows: int, test_rows: int, seed: int = 0, level: Level = STANDARD, base_url: str
) -> None:
    """Write `images/*.jpg`, `train.csv`, `test.csv` and `test_answers.csv`, in the form of the challenge's files.

    train.csv has no index column, and `LABEL_SHARES` of its labels are ranges, foreign units and exponents. test.csv
    is ordered by link, as the real one; its index has gaps. test_answers.csv (index, entity_name, entity_value) holds
    canonical quantities only. The eight entities have equal shares but for the odd labels. Links are
    `{base_url}/{name}.jpg`; a name is a digest of the file's content.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    base_url = base_url.rstrip("/")
    train = _make_rows(images, split="train", row_count=train_rows, seed=seed, level=level, base_url=base_url)
    test = _make_rows(images, split="test", row_count=test_rows, seed=seed, level=level, base_url=base_url)

    random.Random(f"{seed}/order").shuffle(train)
    test.sort(key=lambda row: (row.image_link, row.entity_name))
    indexes = sorted(random.Random(f"{seed}/index").sample(range(test_rows + 1 + test_rows // 50), test_rows))
    _write_csv(
        folder / "train.csv",
        ("image_link", "group_id", "entity_name", "entity_value"),
        [(row.image_link, row.group_id, row.entity_name, row.entity_value) for row in train],
    )
    _write_csv(
        folder / "test.csv",
        ("index", "image_link", "group_id", "entity_name"),
        [(i, row.image_link, row.group_id, row.entity_name) for i, row in zip(indexes, test, strict=True)],
    )
    _write_csv(
        folder / "test_answers.csv",
        ("index", "entity_name", "entity_value"),
        [(i, row.entity_name, row.entity_value) for i, row in zip(indexes, test, strict=True)],
    )


@dataclass
class LabelOptions:
    output_dir: str = field(metadata={"help": "folder for images/, train.csv, test.csv and test_answers.csv"})
    train_rows: int = field(default=2000, metadata={"help": "rows of train.csv"})
    test_rows: int = field(default=400, metadata={"help": "rows of test.csv"})
    seed: int = field(default=0, metadata={"help": "the same seed gives the same files"})
    level: str = field(default="standard", metadata={"help": f"difficulty: {', '.join(LEVELS)}"})
    base_url: str = field(
        default="http://127.0.0.1:8000",
        metadata={"help": "where the links point to; as it stands: `python -m http.server` in images/"},
    )

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {self.level!r}")
        for name in ("train_rows", "test_rows"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


def main(argv: list[str] | None = None) -> None:
    from product_vqa.cli import parse_options
    from product_vqa.paths import writable_folder

    description = "Render product labels, with train.csv, test.csv and test_answers.csv in the challenge's form."
    (options,) = parse_options(LabelOptions, description=description, argv=argv)
    with argument("output_dir"):
        write_labels(
            writable_folder(options.output_dir),
            train_rows=options.train_rows,
            test_rows=options.test_rows,
            seed=options.seed,
            level=LEVELS[options.level],
            base_url=options.base_url,
        )


if __name__ == "__main__":
    from product_vqa.cli import run

    run(main)
