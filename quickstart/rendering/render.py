"""Render product labels: images, train.csv and test.csv in the challenge's format, and the reference answers.

    python -m quickstart.rendering.render --output_dir labels --train_rows 2000 --test_rows 400 --level standard

The levels of difficulty are defined in quickstart.rendering.levels, the printed texts in
quickstart.rendering.label_text, and how they are drawn in quickstart.rendering.drawing. With another schema than the
challenge's, `--schema FILE`, the labels print its attributes (quickstart.rendering.schema_text).
"""

from dataclasses import dataclass, field
from typing import Any

from product_vqa.cli import parse_options, run
from product_vqa.errors import argument
from product_vqa.paths import writable_folder
from product_vqa.schemas import choose_schema
from product_vqa.task.schema import CHALLENGE
from quickstart.rendering.levels import LEVELS
from quickstart.rendering.schema_writer import write_schema_labels
from quickstart.rendering.writer import write_labels


@dataclass
class RenderOptions:
    """What to render and where to write it."""

    output_dir: str = field(metadata={"help": "Folder for images/, train.csv, test.csv and test_answers.csv."})
    train_rows: int = field(
        default=2000,
        metadata={
            "help": (
                "Number of rows of train.csv; with --wide, of its cells with a value. Rows about attributes that are "
                "asked of every product (missing_is_not_shown) come on top."
            )
        },
    )
    test_rows: int = field(default=400, metadata={"help": "Number of rows of test.csv."})
    seed: int = field(default=0, metadata={"help": "Random seed; the same seed gives the same files."})
    level: str = field(default="standard", metadata={"help": f"Difficulty of the labels: {', '.join(LEVELS)}."})
    schema: str | None = field(
        default=None, metadata={"help": "schema.yaml of the attributes to print; default: the challenge's."}
    )
    wide: bool = field(
        default=False,
        metadata={
            "help": "Write train.csv with a row per image and a column per attribute, instead of a row per question."
        },
    )
    unanswered: float = field(
        default=0.0,
        metadata={
            "help": "Share of further rows of train.csv with an empty value: the label does not show the attribute. "
            "For the challenge's attributes; `build --unanswered` reads them."
        },
    )
    base_url: str = field(
        default="http://127.0.0.1:8000",
        metadata={"help": "Base of the image URLs; the default suits `python -m http.server` in images/."},
    )

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"`level` must be one of {', '.join(LEVELS)}, got {self.level!r}")
        for name in ("train_rows", "test_rows"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}")
        if not 0 <= self.unanswered <= 0.8:
            raise ValueError(f"`unanswered` must be at least 0 and at most 0.8, got {self.unanswered}")
        if self.unanswered and (self.schema or self.wide):
            raise ValueError("`unanswered` is for the challenge's attributes; a schema says `not_shown` itself")


def main(argv: list[str] | None = None) -> None:
    description = "Render product labels, with train.csv, test.csv and test_answers.csv in the challenge's format."
    (options,) = parse_options(RenderOptions, description=description, argv=argv)
    with argument("output_dir"):
        folder = writable_folder(options.output_dir)
    shared: dict[str, Any] = {
        "train_rows": options.train_rows,
        "test_rows": options.test_rows,
        "seed": options.seed,
        "level": LEVELS[options.level],
        "base_url": options.base_url,
    }
    with argument("schema"):
        schema = choose_schema(options.schema)
        if schema == CHALLENGE and not options.wide:
            write_labels(folder, **shared, unanswered=options.unanswered)
        else:
            write_schema_labels(folder, schema=schema, wide=options.wide, **shared)


if __name__ == "__main__":
    run(main)
