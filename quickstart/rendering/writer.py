"""Rendered labels as files: images, train.csv, test.csv and test_answers.csv in the challenge's format."""

import csv
import hashlib
import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from dataset_builder.labels import LabelForm
from product_vqa.task.numbers import format_number
from product_vqa.task.quantity import format_quantity
from product_vqa.task.schema import ENTITIES
from quickstart.rendering.drawing import draw, encode
from quickstart.rendering.label_text import KEYS_BY_ENTITY, SPELLINGS_BY_UNIT, Fact, Label, Line, make_label
from quickstart.rendering.levels import STANDARD, Level
from quickstart.rendering.printed_numbers import all_numbers, draw_number

# Labels of train.csv that are not a plain quantity, as shares of the rows. The challenge's train.csv has all of these
# forms, most of them in 0.1 % of its rows or fewer; here a thousand rows contain each form.
LABEL_SHARES = {
    LabelForm.RANGE_BRACKETS: 0.02,
    LabelForm.RANGE_TO: 0.005,
    LabelForm.UNIT_UNKNOWN: 0.01,
    LabelForm.EXPONENT: 0.003,
    LabelForm.BROKEN: 0.002,
}
# Shares of the integers that are written without decimals, `500 gram` for `500.0 gram`. As in the challenge's
# file, other entities have none.
SHORT_SHARES = {"item_weight": 0.24, "maximum_weight_recommendation": 0.54}
# How likely an image has one, two or three questions: 6 % (train) and 57 % (test) of the rows share their image, as in
# the challenge's files.
QUESTION_WEIGHTS = {"train": (97, 3, 0), "test": (62, 32, 6)}
# Units that the challenge does not allow: as printed, and as in the label.
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
GROUP_IDS = tuple(random.Random("groups").sample(range(100_000, 1_000_000), 40))


@dataclass(frozen=True)
class Row:
    image_link: str
    group_id: int
    entity_name: str
    entity_value: str


def _replace_value(label: Label, entity_name: str, value: str) -> Label:
    """The same label with another value for the entity, one that is not a quantity and so not a Fact."""
    key = KEYS_BY_ENTITY[entity_name][0]
    replacement = Line(f"{key} {value}", key=key)

    def is_about_entity(line: Line) -> bool:
        return any(fact.entity_name == entity_name for fact in line.facts)

    return Label(tuple(replacement if is_about_entity(line) else line for line in label.lines))


def _draw_irregular(rng: random.Random, form: LabelForm, entity_name: str, *, level: Level) -> tuple[str, Label, str]:
    """An entity, a label to print, and an entity value of this form, which a dataset builder has to convert or drop.

    `entity_name` is used where any entity has values of this form; otherwise the entity is a random one that has.
    """
    if form in (LabelForm.EXPONENT, LabelForm.BROKEN):
        label = make_label(rng, level=level, entity_names=[entity_name])
        quantity = label.facts[entity_name].quantity
        exponent = "e" if form is LabelForm.EXPONENT else " e"
        return entity_name, label, f"{quantity.number:e} {quantity.unit}".replace("e", exponent, 1)
    if form is LabelForm.UNIT_UNKNOWN:
        entity_name = rng.choice(list(_FOREIGN_UNITS))
        printed_unit, unit = _FOREIGN_UNITS[entity_name]
        number = draw_number(rng, ("9", "99"), held_out=False)
        printed = f"{number} {printed_unit}"
        value = f"{format_number(Decimal(number))} {unit}"
    else:
        entity_name = rng.choice(_RANGE_ENTITIES)
        unit = rng.choice(_RANGE_UNITS[entity_name])
        low, high = sorted(rng.sample(all_numbers(rng.choice(("99", "999", "9.9")), False), 2), key=Decimal)
        printed = f"{low}-{high} {SPELLINGS_BY_UNIT[unit][0]}"
        value = f"{low} {unit} to {high} {unit}"
        if form is LabelForm.RANGE_BRACKETS:
            value = f"[{format_number(Decimal(low))}, {format_number(Decimal(high))}] {unit}"
    label = make_label(rng, level=level, entity_names=[entity_name])
    return entity_name, _replace_value(label, entity_name, printed), value


def _train_value(rng: random.Random, fact: Fact) -> str:
    value = format_quantity(fact.quantity)
    is_short = rng.random() < SHORT_SHARES.get(fact.entity_name, 0)
    return value.replace(".0 ", " ") if is_short else value


def find_not_shown(label: Label, asked: Collection[str]) -> list[str]:
    """The entities that a label does not show. What it is asked for it shows, in whatever form."""
    return [name for name in ENTITIES if name not in label.facts and name not in asked]


def _make_rows(
    folder: Path, *, split: str, row_count: int, seed: int, level: Level, base_url: str, unanswered: float = 0.0
) -> list[Row]:
    """Write the images of a split; returns its rows, those of one image after the other.

    With `unanswered`, about this share of all rows is added to the `row_count`: questions with an empty value.
    """
    rows: list[Row] = []
    empty: list[Row] = []
    row_counts: Counter[str] = Counter()  # by entity
    irregular_forms: list[LabelForm] = []
    if split == "train":
        irregular_forms = [form for form, share in LABEL_SHARES.items() for _ in range(round(share * row_count))]

    def rarest_entities(count: int, rng: random.Random) -> list[str]:
        return sorted(ENTITIES, key=lambda name: (row_counts[name], rng.random()))[:count]

    image_number = 0
    while len(rows) < row_count:
        rng = random.Random(f"{seed}/{split}/{image_number}")  # one per image: images do not depend on each other
        image_number += 1
        if irregular_forms:
            (rarest,) = rarest_entities(1, rng)
            name, label, value = _draw_irregular(rng, irregular_forms.pop(), rarest, level=level)
            values = {name: value}
        else:
            count = rng.choices((1, 2, 3), QUESTION_WEIGHTS[split])[0]
            names = rarest_entities(min(count, max(level.line_counts), row_count - len(rows)), rng)
            label = make_label(rng, level=level, entity_names=names, held_out=split == "test")
            facts = [label.facts[name] for name in names]
            if split == "train":
                values = {fact.entity_name: _train_value(rng, fact) for fact in facts}
            else:
                values = {fact.entity_name: format_quantity(fact.quantity) for fact in facts}
        file_name = write_image(folder, label, rng, level=level)
        row_counts.update(list(values))
        group_id = rng.choice(GROUP_IDS)
        # From a generator of its own, so that the images are the same with and without.
        more = random.Random(f"{seed}/{split}/{image_number}/unanswered")
        not_shown = find_not_shown(label, values)
        wanted = unanswered / (1 - unanswered) * len(values)
        number = min(int(wanted) + (more.random() < wanted % 1), len(not_shown))
        empty += [Row(f"{base_url}/{file_name}", group_id, name, "") for name in more.sample(not_shown, number)]
        rows += [Row(f"{base_url}/{file_name}", group_id, name, value) for name, value in values.items()]
    return [*rows, *empty]


def write_image(folder: Path, label: Label, rng: random.Random, *, level: Level) -> str:
    """Draw and write a label; returns the file's name, a digest of its content."""
    image, _ = draw(label, rng, level=level)
    content = encode(image, rng, level=level)
    file_name = f"{hashlib.sha256(content).hexdigest()[:16]}.jpg"
    (folder / file_name).write_bytes(content)
    return file_name


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_labels(
    folder: Path,
    *,
    train_rows: int,
    test_rows: int,
    seed: int = 0,
    level: Level = STANDARD,
    base_url: str,
    unanswered: float = 0.0,
) -> None:
    """Write `images/*.jpg`, `train.csv`, `test.csv` and `test_answers.csv`, in the format of the challenge's files.

    train.csv has no index column, and `LABEL_SHARES` of its labels are ranges, units that are not allowed, exponents
    and broken numbers. test.csv is ordered by URL like the challenge's; its index has gaps. test_answers.csv (index,
    entity_name, entity_value) has canonical quantities only. The eight entities have equal shares, except in the
    irregular labels. `unanswered` is the share of further rows of train.csv, whose value is empty because the image
    does not show the entity; `build --unanswered` reads them. Image URLs are `{base_url}/{name}.jpg`, where the name
    is a digest of the file's content.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    base_url = base_url.rstrip("/")
    train = _make_rows(
        images, split="train", row_count=train_rows, seed=seed, level=level, base_url=base_url, unanswered=unanswered
    )
    test = _make_rows(images, split="test", row_count=test_rows, seed=seed, level=level, base_url=base_url)

    random.Random(f"{seed}/order").shuffle(train)
    write_csv(
        folder / "train.csv",
        ("image_link", "group_id", "entity_name", "entity_value"),
        [(row.image_link, row.group_id, row.entity_name, row.entity_value) for row in train],
    )
    write_test_tables(folder, test, seed=seed)


def write_test_tables(folder: Path, rows: Sequence[Row], *, seed: int) -> None:
    """Write the questions, test.csv, and their answers, test_answers.csv."""
    rows = sorted(rows, key=lambda row: (row.image_link, row.entity_name))
    count = len(rows)
    indexes = sorted(random.Random(f"{seed}/index").sample(range(count + 1 + count // 50), count))
    write_csv(
        folder / "test.csv",
        ("index", "image_link", "group_id", "entity_name"),
        [(i, row.image_link, row.group_id, row.entity_name) for i, row in zip(indexes, rows, strict=True)],
    )
    write_csv(
        folder / "test_answers.csv",
        ("index", "entity_name", "entity_value"),
        [(i, row.entity_name, row.entity_value) for i, row in zip(indexes, rows, strict=True)],
    )
