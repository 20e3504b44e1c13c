"""Evaluation by the task's own scores: rows answered by the code that predicts, compared as the challenge does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor, TrainerState

from product_vqa import bootstrap
from product_vqa.distributed import init_distributed
from product_vqa.entity_f1.scoring import count, equal_as_strings
from product_vqa.modeling.collator import make_generation_batch
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.generation import generate_answers, normalize_answer
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import QuantityKind

RESAMPLES = 1000  # of the bootstrap


def sample_rows(dataset: Dataset, number: int, *, seed: int) -> Dataset:
    """Draw at most `number` rows, the same ones for the same seed, each entity in proportion to its rows."""
    return split_rows(dataset, number, seed=seed)[0]


def split_rows(dataset: Dataset, number: int, *, seed: int) -> tuple[Dataset, Dataset]:
    """Return `sample_rows` and all other rows. Questions about one image may be on both sides."""
    shuffled = dataset.shuffle(seed=seed)
    entities = shuffled.select_columns("entity_name")["entity_name"][:]
    # Every n-th row, of the rows sorted by entity, takes from each entity its share. Sorting is stable: within an
    # entity the rows stay shuffled.
    by_entity = sorted(range(len(shuffled)), key=lambda row: entities[row])
    number = min(number, len(shuffled))
    chosen = {by_entity[position * len(shuffled) // number] for position in range(number)}
    others = [row for row in range(len(shuffled)) if row not in chosen]
    return shuffled.select(sorted(chosen)), shuffled.select(others)


@dataclass(frozen=True)
class Answered:
    """A row of the sample and the model's answer to it."""

    row: int  # its position in the sample
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
    schema: Schema,
    before_batch: Callable[[], None] = lambda: None,
) -> list[Answered]:
    """Answer the rows of `dataset`, in their order. Each process answers a share, and all get all answers.

    `before_batch` may raise, on all processes at once, to stop the evaluation.
    """
    was_training = model.training
    model.eval()
    state = init_distributed()
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema)
    starts = list(range(0, len(dataset), batch_size))
    # Where parameters are sharded, all processes must generate together: each gets the same number of batches, some
    # of them the last one again.
    rounds = -(-len(starts) // state.num_processes)
    answered = []
    for batch in range(state.process_index, rounds * state.num_processes, state.num_processes):
        before_batch()
        start = starts[min(batch, len(starts) - 1)]
        rows = list(dataset.select(range(start, min(start + batch_size, len(dataset)))))
        answers = generate_answers(
            model,
            make_generation_batch(rows, processor=processor, schema=schema),
            entity_names=[row["entity_name"] for row in rows],
            processor=processor,
            automaton=automaton,
            schema=schema,
            synced_gpus=state.num_processes > 1,
        )
        if batch < len(starts):
            answered += [
                Answered(
                    row=number,
                    image_link=row["image_link"],
                    entity_name=row["entity_name"],
                    prediction=answer.prediction,
                    reference=row["entity_value_raw"],
                )
                for number, (row, answer) in enumerate(zip(rows, answers, strict=True), start=start)
            ]
    model.train(was_training)
    return sorted(gather_object(answered), key=lambda answer: answer.row)


def score(answered: Sequence[Answered], *, schema: Schema) -> dict[str, float]:
    """Compute the task's scores.

    Returns `f1` (exact string against entity_value_raw, the challenge's score) and `f1_quantity` (number and unit, or
    the meaning of another kind of answer), each with its 95 % bootstrap interval over images (`f1_low`, `f1_high`);
    `exact_ENTITY`, the share of rows that are right in the second sense, for each entity that occurs; `not_finite`,
    the number of rows whose logits were not finite; and `samples`, the number of rows.
    """
    images = [one.image_link for one in answered]
    predictions, references = [one.prediction for one in answered], [one.reference for one in answered]
    meant = [_reword_reference(one, schema[one.entity_name]) for one in answered]
    scores: dict[str, float] = {}
    for name, compared in (("f1", references), ("f1_quantity", meant)):
        scores[name] = count(predictions, compared, equal=equal_as_strings).f1
        outcomes = bootstrap.count_by_image(images, predictions, compared, equal=equal_as_strings)
        low, high = bootstrap.interval(bootstrap.f1(bootstrap.resample(outcomes, resamples=RESAMPLES)))
        scores |= {f"{name}_low": low, f"{name}_high": high}
    for entity in schema.names:
        right = [
            one.prediction == reference
            for one, reference in zip(answered, meant, strict=True)
            if one.entity_name == entity
        ]
        if right:
            scores[f"exact_{entity}"] = sum(right) / len(right)
    # Answers are constrained, so that none is empty for another reason.
    not_finite = sum(not one.prediction and not schema[one.entity_name].not_shown for one in answered)
    return scores | {"not_finite": not_finite, "samples": len(answered)}


def _reword_reference(one: Answered, attribute: Attribute) -> str:
    """The reference, in the words of the prediction if that means the same. Units are not converted."""
    prediction, reference = (normalize_answer(text, attribute) for text in (one.prediction, one.reference))
    is_equal = prediction == reference
    if not isinstance(attribute.kind, QuantityKind):
        is_equal = attribute.is_same(prediction, reference)
    return one.prediction if prediction and is_equal else one.reference


def format_scores(scores: Mapping[str, float]) -> str:
    """Format the scores of an evaluation: `F1 0.8310 (number and unit), 0.8200 (exact string)`."""
    return f"F1 {scores['eval_f1_quantity']:.4f} (number and unit), {scores['eval_f1']:.4f} (exact string)"


def scores_at(step: int | None, state: TrainerState) -> dict[str, float] | None:
    """Return the scores of the evaluation at a step; None if there was none."""
    for entry in reversed(state.log_history):
        if "eval_f1" in entry and entry["step"] == step:
            return entry
    return None
