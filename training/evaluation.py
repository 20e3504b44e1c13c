"""The task's own score: rows answered by the code that predicts, compared as the challenge compares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import (
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from product_vqa import bootstrap
from product_vqa.distributed import init_distributed
from product_vqa.entity_f1.scoring import count, equal_as_quantities, equal_as_strings
from product_vqa.modeling.collator import make_generation_batch
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.generation import generate_answers
from product_vqa.task.schema import ENTITIES

RESAMPLES = 1000  # of the bootstrap


def scores_at(step: int | None, state: TrainerState) -> dict[str, float] | None:
    """What was measured at a step, if it was."""
    for entry in reversed(state.log_history):
        if "eval_f1" in entry and entry["step"] == step:
            return entry
    return None


class StopEarly(TrainerCallback):
    """Stops after `patience` evaluations without a better one, counted over restarts (transformers' begins anew)."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def is_due(self, args: TrainingArguments, state: TrainerState) -> bool:
        name = "eval_" + args.metric_for_best_model.removeprefix("eval_")
        values = [entry[name] for entry in state.log_history if name in entry]
        if not values:
            return False
        best = max(values) if args.greater_is_better else min(values)
        return len(values) - 1 - values.index(best) >= self.patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.is_due(args, state):
            control.should_training_stop = True


def sample_rows(dataset: Dataset, number: int, *, seed: int) -> Dataset:
    """`number` rows at most, always the same, each entity with its share of the whole."""
    return split_rows(dataset, number, seed=seed)[0]


def split_rows(dataset: Dataset, number: int, *, seed: int) -> tuple[Dataset, Dataset]:
    """`sample_rows`, and all other rows; questions about one image may be on both sides."""
    shuffled = dataset.shuffle(seed=seed)
    entities = shuffled.select_columns("entity_name")["entity_name"][:]
    by_entity = sorted(range(len(shuffled)), key=lambda row: entities[row])  # stable: shuffled within an entity
    number = min(number, len(shuffled))
    chosen = {by_entity[row * len(shuffled) // number] for row in range(number)}
    return shuffled.select(sorted(chosen)), shuffled.select([row for row in range(len(shuffled)) if row not in chosen])


@dataclass(frozen=True)
class Answered:
    """One row of the sample, answered."""

    row: int  # its place in the sample
    image_link: str
    entity_name: str
    prediction: str
    reference: str  # as in train.csv


def answer_sample(
    model: PaliGemmaForConditionalGeneration,
    dataset: Dataset,
    *,
    processor: PaliGemmaProcessor,
    batch_size: int,
    before_batch: Callable[[], None] = lambda: None,
) -> list[Answered]:
    """What the model answers to `dataset`, in its order. All processes answer a share and get the whole.

    `before_batch` may raise, on all processes together, to stop it.
    """
    was_training = model.training
    model.eval()
    state = init_distributed()
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer)
    starts = list(range(0, len(dataset), batch_size))
    # Where parameters are sharded, processes generate together or not at all: all get the same number of batches.
    rounds = -(-len(starts) // state.num_processes)
    answered = []
    for batch in range(state.process_index, rounds * state.num_processes, state.num_processes):
        before_batch()
        start = starts[min(batch, len(starts) - 1)]
        rows = list(dataset.select(range(start, min(start + batch_size, len(dataset)))))
        answers = generate_answers(
            model,
            make_generation_batch(rows, processor=processor),
            entity_names=[row["entity_name"] for row in rows],
            processor=processor,
            automaton=automaton,
            synced_gpus=state.num_processes > 1,
        )
        if batch < len(starts):
            answered += [
                Answered(
                    start + place, row["image_link"], row["entity_name"], answer.prediction, row["entity_value_raw"]
                )
                for place, (row, answer) in enumerate(zip(rows, answers, strict=True))
            ]
    model.train(was_training)
    return sorted(gather_object(answered), key=lambda one: one.row)


def score(answered: Sequence[Answered]) -> dict[str, float]:
    """`f1` (exact string against entity_value_raw, the challenge's) and `f1_quantity` (number and unit), each with the
    ends of its 95 % bootstrap interval over images (`f1_low`, `f1_high`); `exact_ENTITY`, the share of rows whose
    number and unit are right, for each entity that occurs; and `samples`, the number of rows."""
    images = [one.image_link for one in answered]
    predictions, references = [one.prediction for one in answered], [one.reference for one in answered]
    scores: dict[str, float] = {}
    for name, equal in (("f1", equal_as_strings), ("f1_quantity", equal_as_quantities)):
        scores[name] = count(predictions, references, equal=equal).f1
        outcomes = bootstrap.count_by_image(images, predictions, references, equal=equal)
        low, high = bootstrap.interval(bootstrap.f1(bootstrap.resample(outcomes, resamples=RESAMPLES)))
        scores |= {f"{name}_low": low, f"{name}_high": high}
    for entity in ENTITIES:
        right = [equal_as_quantities(one.prediction, one.reference) for one in answered if one.entity_name == entity]
        if right:
            scores[f"exact_{entity}"] = sum(right) / len(right)
    return scores | {"samples": len(answered)}
