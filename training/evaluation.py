"""The task's own score: rows answered by the code that predicts, compared as the challenge compares."""

from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.entities import ENTITIES
from product_vqa.entity_f1.scoring import count, equal_as_quantities, score
from product_vqa.generation import generate_answers
from product_vqa.processes import join_processes


def evaluate_answers(
    model: PaliGemmaForConditionalGeneration, dataset: Dataset, *, processor: PaliGemmaProcessor, batch_size: int
) -> dict[str, Any]:
    """F1 of the model's answers to `dataset`, on all processes together.

    Returns `rows`, `f1` (exact string against entity_value_raw), `f1_quantity`, and `f1_quantity_by_entity`.
    """
    was_training = model.training
    model.eval()
    state = join_processes()
    starts = range(0, len(dataset), batch_size)[state.process_index :: state.num_processes]
    answered = []
    for start in starts:
        rows = list(dataset.select(range(start, min(start + batch_size, len(dataset)))))
        answers = generate_answers(model, rows, processor=processor)
        answered += [
            (row["entity_name"], answer.prediction, row["entity_value_raw"])
            for row, answer in zip(rows, answers, strict=True)
        ]
    model.train(was_training)
    answered = gather_object(answered)
    scores = score([prediction for _, prediction, _ in answered], [reference for _, _, reference in answered])
    by_entity = {}
    for entity in ENTITIES:
        pairs = [(prediction, reference) for name, prediction, reference in answered if name == entity]
        if pairs:
            by_entity[entity] = count(*zip(*pairs, strict=True), equal=equal_as_quantities).f1
    return {
        "rows": len(answered),
        "f1": scores["f1"],
        "f1_quantity": scores["f1_quantity"],
        "f1_quantity_by_entity": by_entity,
    }
