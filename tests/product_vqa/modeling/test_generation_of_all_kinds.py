"""Answers to attributes of every kind: valid by construction, with probabilities worked out by brute force."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.hub import Location
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.collator import make_generation_batch, make_training_batch, normalize_images
from product_vqa.modeling.constrained_decoding import AnswerAutomaton, max_answer_tokens
from product_vqa.modeling.generation import generate_answers
from product_vqa.modeling.loading import load_base_model, load_processor
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import QuantityKind
from product_vqa.task.schema_file import parse_schema
from tests.product_vqa.modeling.schemas import ALL_KINDS
from tests.tiny import make_image, save_letters_base


def answer(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    names: list[str],
    schema: Schema,
    **options: Any,
) -> list[Answer]:
    rows = [{"image": make_image(seed), "entity_name": name} for seed, name in enumerate(names)]
    batch = make_generation_batch(rows, processor=processor, schema=schema)
    return generate_answers(model, batch, entity_names=names, processor=processor, schema=schema, **options)


def scramble(model: PaliGemmaForConditionalGeneration, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in model.model.language_model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * parameter.data.std() * 2)


@pytest.mark.slow
def test_every_answer_of_random_weights_is_valid(base: Path, processor: PaliGemmaProcessor) -> None:
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=ALL_KINDS)
    names = list(ALL_KINDS.names) * 10
    texts = set()
    for seed in range(3):
        model = load_base_model(Location(str(base)), dtype=torch.float32).eval()
        scramble(model, seed)
        found = answer(model, processor, names, ALL_KINDS, automaton=automaton, num_beams=1 + 2 * (seed % 2))
        for name, best in zip(names, found, strict=True):
            for one in (best, *best.alternatives):
                check(one, name)
                texts.add((name, one.text))
    assert len(texts) > 60
    assert {name for name, _ in texts} == set(ALL_KINDS.names)


def check(answer: Answer, name: str) -> None:
    """An answer is valid, its text is the prediction, and only quantities have units and confidences of them."""
    attribute = ALL_KINDS[name]
    assert attribute.is_valid(answer.prediction), (name, answer)
    assert answer.text == answer.prediction
    assert 0 < answer.confidence <= 1 and answer.allowed_probability is not None
    if isinstance(attribute.kind, QuantityKind):
        assert f"{answer.value} {answer.unit}".strip() == answer.prediction
        assert answer.unit in attribute.kind.units or not answer.prediction
        assert answer.number_confidence is not None and answer.unit_confidence is not None
        assert answer.confidence == pytest.approx(answer.number_confidence * answer.unit_confidence, rel=1e-3)
    else:
        assert (answer.value, answer.unit) == (answer.prediction, "")
        assert (answer.number_confidence, answer.unit_confidence) == (None, None)


SMALL = parse_schema(
    """
version: 1
attributes:
  colour: {kind: choice, values: [red, navy, navy blue, blue], not_shown: true}
  organic: {kind: yes_no}
  material: {kind: multi_choice, values: [cotton, wool, cotton blend]}
  model: {kind: pattern, pattern: '[AB]{1,2}-?[12]'}
  level: {kind: integer, digits: 1, signed: true}
""",
    name="small",
)
LETTERS = ("".join(letters) for length in (1, 2) for letters in itertools.product("AB", repeat=length))
ANSWERS = {
    "colour": ["", "red", "navy", "navy blue", "blue"],
    "organic": ["yes", "no"],
    "material": ["cotton", "wool", "cotton blend", "cotton, wool", "cotton, cotton blend", "wool, cotton blend",
                 "cotton, wool, cotton blend"],
    "model": [f"{letters}{dash}{digit}" for letters in LETTERS for dash in ("", "-") for digit in "12"],
    "level": [*"0123456789", *(f"-{digit}" for digit in "123456789")],
}  # fmt: skip


def log_probability(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    automaton: AnswerAutomaton,
    row: dict[str, Any],
    schema: Schema,
) -> float:
    """Teacher-forced with the tokens of a training batch, normalized at each step over what may come there."""
    batch = make_training_batch([row], processor=processor, schema=schema)
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=model.dtype)
    with torch.inference_mode():
        logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[0]
    labels, state, total = batch["labels"][0], automaton.start_by_entity[row["entity_name"]], 0.0
    for position in (labels != -100).nonzero().flatten().tolist():
        text = automaton.text
        if text is not None and text.room[state] >= 0:
            ids = text.is_allowed(torch.tensor([state]))[0].nonzero().flatten()
            state = int(text.follow(torch.tensor([state]), labels[position].view(1, 1)))
        else:
            ids = automaton.token_ids[state]
            ids = ids[ids >= 0]
            state = int(automaton.next_states[state, int((ids == labels[position]).nonzero()[0, 0])])
        log_p = logits[position - 1, ids].log_softmax(-1)
        total += float(log_p[int((ids == labels[position]).nonzero()[0, 0])])
    assert state == automaton.end_state
    return total


@pytest.mark.parametrize("name", SMALL.names)
def test_confidences_are_those_of_all_answers_tried_one_by_one(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, name: str
) -> None:
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=SMALL)
    row = {"image": make_image(0), "entity_name": name}
    tried = {
        text: log_probability(model, processor, automaton, row | {"entity_value": text}, SMALL)
        for text in ANSWERS[name]
    }
    assert sum(map(math.exp, tried.values())) == pytest.approx(1.0, abs=1e-4)
    (best,) = answer(model, processor, [name], SMALL, automaton=automaton, num_beams=8)
    assert len(best.alternatives) == min(len(tried), 8) - 1 or name == "model"
    for one in (best, *best.alternatives):
        assert one.confidence == pytest.approx(math.exp(tried[one.text]), rel=1e-3)


def test_the_confidence_of_a_text_is_normalized_over_the_allowed_vocabulary(
    processor: PaliGemmaProcessor, tmp_path: Path
) -> None:
    """With letters as tokens, a text has one tokenization, so that all texts of two characters can be tried."""
    processor = load_processor(Location(str(save_letters_base(tmp_path / "letters"))))
    model = load_base_model(Location(str(tmp_path / "letters")), dtype=torch.float32).eval()
    schema = parse_schema("version: 1\nattributes: {brand: {kind: text, max_length: 2}}", name="s")
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema)
    (best,) = answer(model, processor, ["brand"], schema, automaton=automaton, num_beams=5)
    row = {"image": make_image(0), "entity_name": "brand"}
    answers = (best, *best.alternatives)
    assert len({one.text for one in answers}) == 5
    for one in answers:
        assert schema["brand"].is_valid(one.text) and len(one.text) <= 2
        expected = log_probability(model, processor, automaton, row | {"entity_value": one.text}, schema)
        assert one.confidence == pytest.approx(math.exp(expected), rel=1e-3)
    assert automaton.max_tokens == max_answer_tokens(processor.tokenizer, schema=schema) == 3


def test_a_text_ends_before_it_is_too_long_and_never_with_a_space(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration
) -> None:
    """Whatever the model prefers."""
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=ALL_KINDS)
    for piece in ("▁", "▁the", "<eos>", "<unk>", "\n", "9"):
        token = processor.tokenizer.convert_tokens_to_ids(piece)
        hook = model.lm_head.register_forward_hook(
            lambda module, inputs, out, token=token: out.index_fill(-1, torch.tensor(token), 30.0)
        )
        found = answer(model, processor, ["brand", "slogan"], ALL_KINDS, automaton=automaton, num_beams=2)
        hook.remove()
        for name, one in zip(("brand", "slogan"), found, strict=True):
            check(one, name)
        if piece == "9":
            assert [one.text for one in found] == ["9" * 12, "9" * 40]


def test_a_row_without_finite_logits_is_answered_with_nothing_in_a_text_too(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration
) -> None:
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=ALL_KINDS)
    names = ["brand", "colour", "brand"]
    expected = answer(model, processor, names, ALL_KINDS, automaton=automaton, num_beams=2)

    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        beams = len(output.logits) // 3
        output.logits[:beams] = float("nan")
        return output

    hook = model.register_forward_hook(spoil)
    found = answer(model, processor, names, ALL_KINDS, automaton=automaton, num_beams=2)
    hook.remove()
    assert (found[0].text, found[0].prediction, found[0].confidence, found[0].alternatives) == ("", "", 0.0, ())
    assert found[1:] == expected[1:]
