"""The probability that an image shows an attribute, worked out from the model's own logits."""

import pytest
import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.modeling.answer import Answer
from product_vqa.modeling.calibration import Calibration, Scaling
from product_vqa.modeling.collator import make_generation_batch, make_training_batch, normalize_images
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.generation import generate_answers
from product_vqa.modeling.silence import find_shown
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import CHALLENGE
from tests.product_vqa.modeling.schemas import ALL_KINDS
from tests.tiny import make_image

SILENT = CHALLENGE.with_not_shown(("width", "voltage"))


def answer(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    names: list[str],
    schema: Schema,
    *,
    num_beams: int = 1,
    constrain: bool = True,
    allow_empty: bool = False,
    seeds: list[int] | None = None,
) -> list[Answer]:
    rows = [
        {"image": make_image(seed), "entity_name": name}
        for seed, name in zip(seeds or range(len(names)), names, strict=True)
    ]
    batch = make_generation_batch(rows, processor=processor, schema=schema)
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema, allow_empty=allow_empty)
    return generate_answers(
        model, batch, entity_names=names, processor=processor, schema=schema, num_beams=num_beams,
        automaton=automaton if constrain else None, max_new_tokens=None if constrain else 4,
    )  # fmt: skip


def probability_of_an_end(
    model: PaliGemmaForConditionalGeneration, processor: PaliGemmaProcessor, name: str, seed: int, schema: Schema
) -> float:
    """Of the end token as the first one, among those that the automaton allows there: a forward pass by itself."""
    row = {"image": make_image(seed), "entity_name": name, "entity_value": ""}
    batch = make_training_batch([row], processor=processor, schema=schema)
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=model.dtype)
    with torch.inference_mode():
        logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits[0]
    (position,) = (batch["labels"][0] != -100).nonzero().flatten().tolist()  # the answer is its end token
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema)
    state = automaton.start_by_entity[name]
    allowed = {token for token in automaton.token_ids[state].tolist() if token >= 0}
    if automaton.text is not None and automaton.text.room[state] >= 0:
        allowed |= set(automaton.text.is_allowed(torch.tensor([state]))[0].nonzero().flatten().tolist())
    eos = processor.tokenizer.eos_token_id
    assert batch["labels"][0, position] == eos and eos in allowed
    ids = sorted(allowed)
    return float(logits[position - 1, ids].double().softmax(-1)[ids.index(eos)])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_shown_is_the_probability_of_every_answer_but_the_empty_one(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, num_beams: int
) -> None:
    names = list(ALL_KINDS.names)
    found = answer(model, processor, names, ALL_KINDS, num_beams=num_beams)
    compared = 0
    for seed, (name, one) in enumerate(zip(names, found, strict=True)):
        if not ALL_KINDS[name].not_shown:
            assert one.shown is None
            continue
        empty = probability_of_an_end(model, processor, name, seed, ALL_KINDS)
        assert one.shown == pytest.approx(1 - empty, abs=1e-5) and 0 < empty < 1
        for other in (one, *one.alternatives):
            assert other.shown == one.shown
            if other.text == "":
                assert other.confidence == pytest.approx(1 - one.shown, rel=1e-3)
            else:
                assert other.confidence <= one.shown + 1e-6
        compared += 1
    assert compared == 5


def test_it_depends_on_the_own_row_alone(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration
) -> None:
    names = ["width", "item_weight", "voltage", "width"]
    together = answer(model, processor, names, SILENT)
    for seed, (name, one) in enumerate(zip(names, together, strict=True)):
        (alone,) = answer(model, processor, [name], SILENT, seeds=[seed])
        assert alone.shown == (None if one.shown is None else pytest.approx(one.shown, abs=1e-5))
    assert [one.shown is None for one in together] == [False, True, False, False]


def test_an_adapter_that_was_not_trained_to_be_silent_says_nothing_about_it(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration
) -> None:
    assert [one.shown for one in answer(model, processor, ["width"] * 2, CHALLENGE, allow_empty=True)] == [None, None]
    assert [one.shown for one in answer(model, processor, ["width"], SILENT, constrain=False)] == [None]


def test_a_row_without_finite_logits_has_no_probability(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration
) -> None:
    def spoil(module: object, inputs: object, output: object) -> object:
        output.logits[:1] = float("nan")  # type: ignore[attr-defined]
        return output

    hook = model.register_forward_hook(spoil)
    spoilt, intact = answer(model, processor, ["width", "width"], SILENT)
    hook.remove()
    assert (spoilt.prediction, spoilt.confidence, spoilt.shown) == ("", 0.0, None)
    assert intact.shown is not None and 0 < intact.shown < 1


def test_it_is_precise_at_both_ends(processor: PaliGemmaProcessor) -> None:
    """1 - P in float32 would be 0 and 1: a calibration could not tell such rows apart."""
    eos = processor.tokenizer.eos_token_id
    for schema, name in ((SILENT, "width"), (ALL_KINDS, "slogan")):
        automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema)
        logits = torch.full((3, len(processor.tokenizer)), -200.0)
        logits[:, processor.tokenizer.convert_tokens_to_ids("7")] = 0.0
        logits[:, eos] = torch.tensor([30.0, -30.0, 0.0])
        start = automaton.start_states([name] * 3)
        sure, unsure, even = find_shown(logits, start, automaton=automaton, eos=eos).tolist()
        assert sure == pytest.approx(torch.tensor(-30.0, dtype=torch.float64).exp().item(), rel=1e-4)
        assert 0 < 1 - unsure < 1e-12 and even == pytest.approx(0.5)
    never = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=SILENT)
    assert find_shown(logits, never.start_states(["depth"] * 3), automaton=never, eos=eos).tolist() == [1.0] * 3


def test_the_confidence_of_an_empty_answer_follows_from_the_calibrated_probability() -> None:
    calibration = Calibration(answer=Scaling(3.0, 1.0), value=Scaling(0.2, -1.0), shown=Scaling(2.0, 0.5))
    empty = Answer("", "", 0.8, number_confidence=0.8, unit_confidence=1.0, allowed_probability=1.0, shown=0.2)
    calibrated = calibration.apply(empty)
    expected = 1 / (1 + 4**0.5 * 2.718281828459045**-0.5)  # log odds ln(1/4) / 2 + 0.5
    assert calibrated.shown == pytest.approx(expected)
    assert calibrated.confidence == pytest.approx(1 - expected)
    given = Answer("1 watt", "1.0 watt", 0.5, number_confidence=0.5, unit_confidence=1.0, allowed_probability=1.0)
    assert calibration.apply(given).shown is None
