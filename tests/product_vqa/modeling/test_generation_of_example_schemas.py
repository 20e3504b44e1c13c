"""The challenge's schema and those of docs/schemas: every answer has tokens, and whatever the weights say is valid."""

import random
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import PaliGemmaProcessor

from product_vqa.hub import Location
from product_vqa.modeling.answer_tokens import spell_answer
from product_vqa.modeling.collator import make_generation_batch
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.generation import generate_answers
from product_vqa.modeling.loading import load_base_model
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import ChoiceKind, MultiChoiceKind, PatternKind, QuantityKind
from product_vqa.task.schema import CHALLENGE
from tests.example_schemas import SCHEMAS as EXAMPLES
from tests.product_vqa.modeling.schemas import accepts_tokens, draw_answer
from tests.tiny import make_image

# Up to four minutes each with the real tokenizers; `test_generation_of_all_kinds` has the same in small.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

SCHEMAS = {"challenge": CHALLENGE} | EXAMPLES
ANSWERS_PER_SCHEMA = 2_500


@pytest.fixture(params=SCHEMAS)
def schema(request: pytest.FixtureRequest) -> Schema:
    return SCHEMAS[request.param]


def canonical_answers(attribute: Attribute, rng: random.Random) -> set[str]:
    """Answers with every unit, every value and every pair of values, and random ones of all other kinds."""
    match attribute.kind:
        case PatternKind(pattern):
            return {pattern.draw(rng) for _ in range(200)}
    answers = {draw_answer(attribute, rng) for _ in range(100)}
    match attribute.kind:
        case QuantityKind(units=units):
            answers |= {attribute.normalize(f"{number} {unit}") for unit in units for number in ("7", "12")}
        case ChoiceKind(values):
            answers |= set(values)
        case MultiChoiceKind(values):
            answers |= {attribute.normalize(f"{one}, {other}") for one in values for other in values if one != other}
    return answers


def test_every_answer_is_accepted(processor: PaliGemmaProcessor, schema: Schema) -> None:
    tokenizer = processor.tokenizer
    automaton = AnswerAutomaton.from_tokenizer(tokenizer, schema=schema)
    rng = random.Random(0)
    for name, attribute in schema.attributes.items():
        for text in canonical_answers(attribute, rng):
            tokens = spell_answer(tokenizer, text, attribute)
            tokens = tokenizer.encode(text, add_special_tokens=False) if tokens is None else tokens
            assert tokenizer.decode(tokens) == text
            assert accepts_tokens(automaton, name, [*tokens, tokenizer.eos_token_id]), (name, text)


def test_whatever_random_weights_answer_is_valid(base: Path, processor: PaliGemmaProcessor, schema: Schema) -> None:
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema)
    names = list(islice((name for _ in range(250) for name in schema.names), 250))
    rows = [{"image": make_image(number // 5), "entity_name": name} for number, name in enumerate(names)]
    batch = make_generation_batch(rows, processor=processor, schema=schema)
    predictions = []
    for seed in range(ANSWERS_PER_SCHEMA // len(names)):
        torch.manual_seed(seed)
        model = load_base_model(Location(str(base)), dtype=torch.float32).eval()
        for parameter in model.model.language_model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * parameter.data.std() * 2)
        answers = generate_answers(
            model, batch, entity_names=names, processor=processor, schema=schema, automaton=automaton,
            num_beams=1 if seed else 2,
        )  # fmt: skip
        for name, answer in zip(names, answers, strict=True):
            for one in (answer, *answer.alternatives):
                assert schema[name].is_valid(one.prediction), (name, one.prediction)
        predictions += [answer.prediction for answer in answers]
    assert len(predictions) == ANSWERS_PER_SCHEMA
    assert len(set(predictions)) > 50
