"""Measure how well a small PaliGemma reads: its accuracy in each pretraining task, on unseen images.

python -m quickstart.pretraining.evaluate --base quickstart/base --rows 400
"""

from dataclasses import dataclass, field

from product_vqa.cli import parse_options, run
from product_vqa.errors import argument
from quickstart.rendering.levels import LEVELS


@dataclass
class EvaluateOptions:
    """Which model to evaluate, and on how many images."""

    base: str = field(default="quickstart/base", metadata={"help": "Base model: a repo (user/name) or a folder."})
    rows: int = field(default=400, metadata={"help": "Questions per task, each about an image of its own."})
    level: str = field(default="standard", metadata={"help": "Difficulty of the images.", "choices": [*LEVELS]})
    seed: int = field(default=0, metadata={"help": "Random seed of the images."})

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"`rows` must be at least 1, got {self.rows}")


def main() -> None:
    (options,) = parse_options(EvaluateOptions, description="Measure how well a small PaliGemma reads.")

    import torch  # after parsing, as --help does not need it

    from product_vqa.hub import locate
    from product_vqa.modeling.loading import load_base_model, load_processor
    from quickstart.pretraining.accuracy import measure_accuracy

    with argument("base"):
        location = locate(options.base)
        model = load_base_model(location, dtype=torch.float32)
        processor = load_processor(location)
    accuracy = measure_accuracy(
        model,
        processor=processor,
        rows=options.rows,
        level=LEVELS[options.level],
        seed=options.seed,
    )
    print(f"| question | share correct (of {options.rows}) |\n|---|---|")
    for kind, share in accuracy.items():
        print(f"| {kind} | {share:.3f} |")


if __name__ == "__main__":
    run(main)
