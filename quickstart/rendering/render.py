"""Render product labels: images, train.csv and test.csv in the challenge's format, and the reference answers.

    python -m quickstart.rendering.render --output_dir labels --train_rows 2000 --test_rows 400 --level standard

The levels of difficulty are defined in quickstart.rendering.levels, the printed texts in
quickstart.rendering.label_text, and how they are drawn in quickstart.rendering.drawing.
"""

from dataclasses import dataclass, field

from product_vqa.cli import parse_options, run
from product_vqa.errors import argument
from product_vqa.paths import writable_folder
from quickstart.rendering.levels import LEVELS
from quickstart.rendering.writer import write_labels


@dataclass
class RenderOptions:
    """What to render and where to write it."""

    output_dir: str = field(metadata={"help": "Folder for images/, train.csv, test.csv and test_answers.csv."})
    train_rows: int = field(default=2000, metadata={"help": "Number of rows of train.csv."})
    test_rows: int = field(default=400, metadata={"help": "Number of rows of test.csv."})
    seed: int = field(default=0, metadata={"help": "Random seed; the same seed gives the same files."})
    level: str = field(default="standard", metadata={"help": f"Difficulty of the labels: {', '.join(LEVELS)}."})
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


def main(argv: list[str] | None = None) -> None:
    description = "Render product labels, with train.csv, test.csv and test_answers.csv in the challenge's format."
    (options,) = parse_options(RenderOptions, description=description, argv=argv)
    with argument("output_dir"):
        folder = writable_folder(options.output_dir)
    write_labels(
        folder,
        train_rows=options.train_rows,
        test_rows=options.test_rows,
        seed=options.seed,
        level=LEVELS[options.level],
        base_url=options.base_url,
    )


if __name__ == "__main__":
    run(main)
