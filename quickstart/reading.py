"""How well a small PaliGemma reads: every kind of question that it was pretrained on, about pictures never seen.

    python -m quickstart.reading --base quickstart/base --rows 400

All numbers of several digits on the pictures are held out (see quickstart.printing). An answer counts if every token
of it is the likeliest one, the end included; that is when greedy generation gives exactly this answer.
"""

import io
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from quickstart.drawing import draw, encode
from quickstart.printing import LEVELS, Level, make_label
from quickstart.reading_tasks import KINDS, Question, ask

if TYPE_CHECKING:
    from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor


@dataclass
class ReadingOptions:
    """What is to read, and how much."""

    base: str = field(default="quickstart/base", metadata={"help": "The base: a repo (user/name) or a folder."})
    rows: int = field(default=400, metadata={"help": "Questions of each kind, each about a picture of its own."})
    level: str = field(default="standard", metadata={"help": "How difficult the pictures are.", "choices": [*LEVELS]})
    seed: int = field(default=0, metadata={"help": "Of the pictures."})

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InputError(f"--rows must be at least 1, got {self.rows}")


def make_questions(kind: str, *, rows: int, level: Level, seed: int) -> list[tuple[Image.Image, Question]]:
    """`rows` pictures with a question of this kind; no number of several digits on them is on any of pretraining."""
    questions, picture = [], 0
    while len(questions) < rows:
        rng = random.Random(f"reading/{seed}/{kind}/{picture}")
        picture += 1
        label = make_label(rng, level=level, held_out=True)
        question = ask(kind, label, rng, held_out=True)
        if question is not None:
            image, _ = draw(label, rng, level=level)
            questions.append((Image.open(io.BytesIO(encode(image, rng, level=level))), question))
    return questions


def count_right(
    model: "PaliGemmaForConditionalGeneration",
    questions: list[tuple[Image.Image, Question]],
    *,
    processor: "PaliGemmaProcessor",
    batch_size: int = 50,
) -> int:
    """How many of these the model answers without a mistake."""
    import torch

    from product_vqa.modeling.collator import IGNORED

    right = 0
    for start in range(0, len(questions), batch_size):
        part = questions[start : start + batch_size]
        batch = processor(
            images=[image for image, _ in part],
            text=[f"<image>{question.prompt}" for _, question in part],
            suffix=[question.answer for _, question in part],
            return_tensors="pt",
            padding=True,
            padding_side="right",
        ).to(model.device)
        labels = batch.pop("labels").masked_fill(batch["attention_mask"] == 0, IGNORED)[:, 1:]
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
        with torch.inference_mode():
            said = model(**batch, use_cache=False).logits[:, :-1].argmax(-1)
        right += int(((said == labels) | (labels == IGNORED)).all(dim=1).sum())
    return right


def measure(
    model: "PaliGemmaForConditionalGeneration",
    *,
    processor: "PaliGemmaProcessor",
    rows: int,
    level: Level,
    seed: int = 0,
) -> dict[str, float]:
    """The share of right answers, by kind of question."""
    was_training = model.training
    model.eval()
    shares = {
        kind: count_right(model, make_questions(kind, rows=rows, level=level, seed=seed), processor=processor) / rows
        for kind in KINDS
    }
    model.train(was_training)
    return shares


def main() -> None:
    (options,) = parse_options(ReadingOptions, description="How well a small PaliGemma reads.")

    import torch

    from product_vqa.hub import locate
    from product_vqa.modeling.loading import load_base, load_processor

    with argument("base"):
        location = locate(options.base)
    with argument("base"):
        model = load_base(location, dtype=torch.float32)
    processor = load_processor(location)
    shares = measure(model, processor=processor, rows=options.rows, level=LEVELS[options.level], seed=options.seed)
    print(f"| question | right of {options.rows} |\n|---|---|")
    for kind, share in shares.items():
        print(f"| {kind} | {share:.3f} |")


if __name__ == "__main__":
    run(main)
