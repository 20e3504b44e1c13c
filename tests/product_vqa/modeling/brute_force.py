"""The probability of an answer, worked out a step at a time; and a schema that has few enough answers to try all."""

from typing import Any

import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.modeling.collator import normalize_images
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.task.schema_file import parse_schema
from tests.product_vqa.modeling.challenge import make_training_batch

FEW_ANSWERS = parse_schema(
    """
version: 1
units: {power: {watt: {size: 1}, kilowatt: {size: 1000}}}
attributes:
  wattage: {kind: quantity, units: power, integer_digits: 1, decimals: 1}
""",
    name="few answers",
)
ALL_WATTAGES = tuple(
    f"{whole}.{tenth} {unit}" for whole in range(10) for tenth in range(10) for unit in ("watt", "kilowatt")
)


def log_probability(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    automaton: AnswerAutomaton,
    row: dict[str, Any],
    text: str,
) -> tuple[float, float, float]:
    """(answer, number, the model's own of the answer): teacher-forced, a step at a time.

    The first two are normalized at each step over what may come there, the third over the whole vocabulary.
    """
    batch = make_training_batch([row | {"entity_value": text}], processor=processor)
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=model.dtype)
    with torch.inference_mode():
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[0]
    labels = batch["labels"][0]
    state, answer, number, in_number = automaton.start_by_entity[row["entity_name"]], 0.0, 0.0, True
    own = 0.0
    for position in (labels != -100).nonzero().flatten().tolist():
        ids = automaton.token_ids[state]
        ids = ids[ids >= 0]
        log_p = logits[position - 1, ids].log_softmax(-1)
        place = int((ids == labels[position]).nonzero()[0, 0])
        answer += float(log_p[place])
        own += float(logits[position - 1].log_softmax(-1)[labels[position]])
        if in_number:
            units = automaton.begins_unit[state, : len(ids)]
            begins = bool(units[place])
            number += float(log_p[units].logsumexp(-1)) if begins else float(log_p[place])
            in_number = not begins
        state = int(automaton.next_states[state, place])
    return answer, number, own
