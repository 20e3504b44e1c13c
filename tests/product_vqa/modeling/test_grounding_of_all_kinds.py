"""Grounded answers to attributes of every kind are valid, whatever the weights, the model and the texts."""

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import PaliGemmaProcessor

from product_vqa.hub import Location
from product_vqa.modeling.calibration import Calibration, Grounding
from product_vqa.modeling.collator import make_generation_batch
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.generation import generate_answers
from product_vqa.modeling.grounding import FEATURES, calibrate_answers, weigh_rows
from product_vqa.modeling.loading import load_base_model
from product_vqa.ocr.candidates import find_candidates, has_rules
from product_vqa.ocr.image_text import ImageText
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import CHALLENGE
from tests.example_schemas import SCHEMAS
from tests.hostile.image_texts import hostile_texts
from tests.product_vqa.modeling.schemas import ALL_KINDS, draw_answer
from tests.tiny import make_image

ALL_SCHEMAS = {"all_kinds": ALL_KINDS, "challenge": CHALLENGE, **SCHEMAS}
HOSTILE_TEXTS = hostile_texts()
ROWS_IN_BATCH = 50
FEW_ANSWERS = [("all_kinds", 2), ("challenge", 2)]
MANY_ANSWERS = [  # 20,000, with two base models
    pytest.param(name, 40, marks=[pytest.mark.faults, pytest.mark.timeout(1800)]) for name in ALL_SCHEMAS
]


def draw_text(schema: Schema, asked: str, rng: random.Random) -> ImageText:
    """What answers, often to the question that is asked, look like in print, and what strangers print."""
    texts = []
    for _ in range(rng.choice([0, 1, 3, 8])):
        answer = draw_answer(schema[rng.choice([asked, *schema.names])], rng)
        texts.append(rng.choice([answer, answer.replace(" ", ""), answer.split(" ")[0], rng.choice(HOSTILE_TEXTS)]))
    boxes = []
    for text in texts:
        left, top = rng.random() * 0.8, rng.random() * 0.9
        corners = (left, top, left + 0.2, top, left + 0.2, top + 0.1, left, top + 0.1)
        boxes.append({"text": text, "score": rng.uniform(0.5, 1), "corners": corners})
    return ImageText.from_dict({"width": 400, "height": 300, "texts": boxes})


@pytest.fixture(scope="module", params=["tiny_base", "tiny_paligemma2"])
def base(request: pytest.FixtureRequest) -> Path:
    """Not with the real tokenizers: each of their schemas takes a minute."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batches"), [*FEW_ANSWERS, *MANY_ANSWERS])
def test_every_grounded_answer_is_valid(base: Path, processor: PaliGemmaProcessor, name: str, batches: int) -> None:
    schema, rng = ALL_SCHEMAS[name], random.Random(name)
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema)
    seen: Counter[str] = Counter()
    for number in range(batches):
        if number % 10 == 0:
            model = load_base_model(Location(str(base)), dtype=torch.float32).eval()
            torch.manual_seed(number)
            for parameter in model.model.language_model.parameters():
                parameter.data.add_(torch.randn_like(parameter) * parameter.data.std() * 2)
        names = rng.choices(schema.names, k=ROWS_IN_BATCH)
        rows = [{"image": make_image(rng.randrange(100)), "entity_name": asked} for asked in names]
        candidates = [
            find_candidates(draw_text(schema, asked, rng), schema[asked], unit_shares={})
            if has_rules(schema[asked])
            else None
            for asked in names
        ]
        trust = 30 * (number % 2)  # without it, a model with random weights has its way
        grounding = Grounding({feature: rng.uniform(-10, 10) + trust for feature in FEATURES})
        found = generate_answers(
            model,
            make_generation_batch(rows, processor=processor, schema=schema),
            entity_names=names,
            processor=processor,
            automaton=automaton,
            schema=schema,
            num_beams=1 + 3 * (number % 2),
            candidates=weigh_rows(candidates, grounding.weights, entity_names=names, schema=schema),
        )
        grounded = calibrate_answers(found, candidates, Calibration(grounding=grounding))
        for asked, own, answer in zip(names, candidates, grounded, strict=True):
            everything = [answer, *answer.alternatives]
            for one in everything:
                assert schema[asked].is_valid(one.prediction) and not schema[asked].excess(one.prediction), (
                    asked,
                    one,
                )
                assert one.text == one.prediction and 0 <= one.confidence <= 1
                assert one.box in {None, *(candidate.box for candidate in own or ())}
            assert sum(one.confidence for one in everything) <= 1 + 1e-6
            assert len({one.prediction for one in everything}) == len(everything)
            seen["read" if answer.box else "not read" if own else "nothing to read"] += 1
    assert set(seen) == {"read", "not read", "nothing to read"}
