"""Rendered labels of any schema as files: images, train.csv, test.csv and test_answers.csv."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

from product_vqa.task.attributes import Schema
from quickstart.rendering.levels import STANDARD, Level
from quickstart.rendering.schema_text import SchemaLabel, SchemaText
from quickstart.rendering.writer import GROUP_IDS, QUESTION_WEIGHTS, Row, write_csv, write_image, write_test_tables

_ABSENT_SHARE = 0.2  # of the questions about attributes that need not be shown; their answer is empty


@dataclass(frozen=True)
class _Pack:
    """An image with its label; `asked` are the attributes in question, with those that it does not show.

    `drawn` of them were drawn for this image; the others are asked about every image.
    """

    image_link: str
    group_id: int
    label: SchemaLabel
    asked: tuple[str, ...]
    drawn: int

    def rows(self, *, canonical: bool) -> list[Row]:
        return [
            Row(self.image_link, self.group_id, name, self.value(name, canonical=canonical)) for name in self.asked
        ]

    def cells(self, names: Sequence[str]) -> list[str]:
        """The labels of a wide table; those of attributes that nobody asks about are missing."""
        return [self.value(name) if name in self.asked else "" for name in names]

    def value(self, name: str, *, canonical: bool = False) -> str:
        printed = self.label.values.get(name)
        if printed is None:
            return ""
        return printed.entity_value if canonical else printed.label


def write_schema_labels(
    folder: Path,
    *,
    schema: Schema,
    train_rows: int,
    test_rows: int,
    seed: int = 0,
    level: Level = STANDARD,
    base_url: str,
    wide: bool = False,
) -> None:
    """Write `images/*.jpg`, `train.csv`, `test.csv` and `test_answers.csv` for a schema.

    They have the challenge's columns. With `wide`, train.csv has a row per image and a column per attribute instead,
    and `train_rows` counts its cells with a value. Attributes whose missing values mean "not shown" have a row for
    each image: these rows are not counted, so that the other attributes have as many as without them. Some labels of
    train.csv are as printed (`16 GB`); those of test_answers.csv are canonical. Attributes have equal shares in the
    rows that are counted. Raises InputError for an attribute that cannot be printed, with its name.
    """
    text = SchemaText(schema)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    # A wide table says that a label does not show an attribute only if its missing values mean that.
    may_be_absent = {
        name
        for name, attribute in schema.attributes.items()
        if (attribute.missing_is_not_shown if wide else attribute.not_shown)
    }
    always_asked = {name for name, attribute in schema.attributes.items() if wide and attribute.missing_is_not_shown}
    packs = {
        split: _make_packs(
            images,
            text,
            split=split,
            may_be_absent=may_be_absent,
            always_asked=always_asked if split == "train" else set(),
            seed=seed,
            level=level,
            base_url=base_url.rstrip("/"),
        )
        for split in ("train", "test")
    }
    header: tuple[str, ...]
    if wide:
        header = ("image_link", "group_id", *schema.names)
        train = [
            (
                pack.image_link,
                pack.group_id,
                *(pack.value(name) if name in pack.asked else "" for name in schema.names),
            )
            for pack in _until_rows(packs["train"], train_rows)
        ]
    else:
        header = ("image_link", "group_id", "entity_name", "entity_value")
        rows = chain.from_iterable(pack.rows(canonical=False) for pack in packs["train"])
        train = [(row.image_link, row.group_id, row.entity_name, row.entity_value) for row in islice(rows, train_rows)]
    random.Random(f"{seed}/order").shuffle(train)
    write_csv(folder / "train.csv", header, train)
    questions = chain.from_iterable(pack.rows(canonical=True) for pack in packs["test"])
    write_test_tables(folder, list(islice(questions, test_rows)), seed=seed)


def _until_rows(packs: Iterator[_Pack], count: int) -> Iterator[_Pack]:
    """Packs until at least so many rows were drawn for them; the last one may have a few more."""
    while count > 0:
        pack = next(packs)
        yield pack
        count -= pack.drawn


def _make_packs(
    folder: Path,
    text: SchemaText,
    *,
    split: str,
    may_be_absent: Set[str],
    always_asked: Set[str],
    seed: int,
    level: Level,
    base_url: str,
) -> Iterator[_Pack]:
    """Write the images of a split, one after the other, for as long as they are asked for.

    The questions about one are the rarest ones so far, and those about `always_asked`, which it may not show.
    """
    row_counts: Counter[str] = Counter()  # by entity
    names = text.schema.names
    for number in count():
        rng = random.Random(f"{seed}/{split}/{number}")  # one per image: images do not depend on each other
        rarest_first = sorted((row_counts[name], rng.random(), name) for name in names)
        question_count = rng.choices((1, 2, 3), QUESTION_WEIGHTS[split])[0]
        drawn = [name for _, _, name in rarest_first[:question_count]]
        candidates = drawn + [name for name in names if name in always_asked and name not in drawn]
        absent = [name for name in candidates if name in may_be_absent and rng.random() < _ABSENT_SHARE]
        present = [name for name in candidates if name not in absent]
        label = text.make_label(rng, level=level, entity_names=present, absent=absent, held_out=split == "test")
        file_name = write_image(folder, label.label, rng, level=level)
        asked = tuple(name for name in candidates if name in absent or name in label.values or name in always_asked)
        row_counts.update(asked)
        yield _Pack(
            f"{base_url}/{file_name}", rng.choice(GROUP_IDS), label, asked, drawn=sum(name in asked for name in drawn)
        )
