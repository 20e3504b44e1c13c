"""Answers: valid by construction, their probabilities worked out by brute force, decoding equal to the library's."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.hub import Location
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.collator import normalize_images
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.generation import is_not_finite, normalize_answer
from product_vqa.modeling.loading import load_base_model, load_processor
from product_vqa.task.quantity import format_quantity, parse_quantity
from product_vqa.task.schema import CHALLENGE, ENTITIES, UNITS_BY_ENTITY
from tests.inference.challenge import check_submission
from tests.product_vqa.modeling.brute_force import ALL_WATTAGES, FEW_ANSWERS, log_probability
from tests.product_vqa.modeling.challenge import generate_answers, make_generation_batch, max_answer_tokens
from tests.tiny import make_image, make_rows, save_letters_base


def answer_rows(
    model: PaliGemmaForConditionalGeneration,
    rows: list[dict[str, Any]],
    *,
    processor: PaliGemmaProcessor,
    **options: Any,
) -> list[Answer]:
    return generate_answers(
        model,
        make_generation_batch(rows, processor=processor),
        entity_names=[row["entity_name"] for row in rows],
        processor=processor,
        **options,
    )


def rows_of(entity_names: list[str]) -> list[dict[str, Any]]:
    return [{"image": make_image(seed), "entity_name": name} for seed, name in enumerate(entity_names)]


@pytest.mark.slow
@pytest.mark.parametrize("models", [2, pytest.param(10, marks=pytest.mark.faults)])
def test_thousands_of_answers_of_random_weights_are_all_valid(
    base: Path, processor, automaton: AnswerAutomaton, tmp_path: Path, models: int
) -> None:
    """500 answers of each of many random models, all entities; whatever the weights say, nothing invalid."""
    rows = [{"image": make_image(n // 5), "entity_name": ENTITIES[n % len(ENTITIES)]} for n in range(500)]
    rows = [row | {"image": rows[n - n % 5]["image"]} for n, row in enumerate(rows)]
    batch = make_generation_batch(rows, processor=processor)
    predictions = []
    for seed in range(models):
        torch.manual_seed(seed)
        model = load_base_model(Location(str(base)), dtype=torch.float32).eval()
        for parameter in model.model.language_model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * parameter.data.std() * 2)
        answers = generate_answers(
            model, batch, entity_names=[row["entity_name"] for row in rows], processor=processor,
            automaton=automaton, num_beams=1 if seed else 2,
        )  # fmt: skip
        for answer, row in zip(answers, rows, strict=True):
            for one in (answer, *answer.alternatives):
                assert one.unit in UNITS_BY_ENTITY[row["entity_name"]]
                assert format_quantity(parse_quantity(one.text)) == one.text == one.prediction
        predictions += [answer.prediction for answer in answers]
    assert len(predictions) == 500 * models
    assert len(set(predictions)) > 20 * models
    with (tmp_path / "test.csv").open("w") as test, (tmp_path / "submission.csv").open("w") as submission:
        test.write("index,image_link,group_id,entity_name\n")
        submission.write("index,prediction\n")
        for index, prediction in enumerate(predictions):
            test.write(f"{index},https://example.com/1.jpg,1,{rows[index % 500]['entity_name']}\n")
            submission.write(f"{index},{prediction}\n")
    for official in (False, True):
        verdict = check_submission(tmp_path / "submission.csv", tmp_path / "test.csv", official=official)
        assert (verdict.ok, verdict.answered) == (True, 500 * models)


def test_free_greedy_answers_are_what_generate_says(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration
) -> None:
    rows = make_rows(5)
    batch = make_generation_batch(rows, processor=processor)
    del batch["image_index"]  # each row has its own
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=model.dtype)
    length = max_answer_tokens(processor.tokenizer)
    tokens = model.generate(**batch, max_new_tokens=length, do_sample=False)
    expected = processor.tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    answers = answer_rows(model, rows, processor=processor, automaton=None)
    assert [answer.text for answer in answers] == expected
    for answer in answers:
        assert (answer.number_confidence, answer.unit_confidence, answer.allowed_probability) == (None, None, None)


def test_probabilities_are_those_worked_out_step_by_step(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, automaton: AnswerAutomaton
) -> None:
    rows = make_rows(4)
    answers = answer_rows(model, rows, processor=processor, automaton=automaton, num_beams=3)
    for row, best in zip(rows, answers, strict=True):
        assert len(best.alternatives) == 2
        for answer in (best, *best.alternatives):
            total, number, own = log_probability(model, processor, automaton, row, answer.text)
            assert answer.confidence == pytest.approx(math.exp(total), rel=1e-3)
            assert answer.number_confidence == pytest.approx(math.exp(number), rel=1e-3)
            assert answer.unit_confidence == pytest.approx(math.exp(total - number), rel=1e-3)
            # What the mask took away is next to it: together they are the model's own probability of this answer.
            assert answer.confidence * answer.allowed_probability == pytest.approx(math.exp(own), rel=1e-3)
            assert 0 < answer.allowed_probability < 1
        confidences = [answer.confidence for answer in (best, *best.alternatives)]
        assert confidences == sorted(confidences, reverse=True)


@pytest.mark.slow
def test_enough_beams_find_the_likeliest_of_all_answers(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration
) -> None:
    """Over a vocabulary small enough to try every answer: one digit before the point, one after it, two units."""
    small = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=FEW_ANSWERS)
    row = make_rows(1)[0] | {"entity_name": "wattage"}
    tried = {text: log_probability(model, processor, small, row, text)[0] for text in ALL_WATTAGES}
    assert sum(map(math.exp, tried.values())) == pytest.approx(1.0, abs=1e-4)
    ranked = sorted(tried, key=lambda text: -tried[text])
    (answer,) = answer_rows(model, [row], processor=processor, automaton=small, num_beams=10)
    assert [answer.text, *(other.text for other in answer.alternatives)][:3] == ranked[:3]


def test_an_answer_does_not_depend_on_its_batch(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, automaton: AnswerAutomaton
) -> None:
    rows = make_rows(6)
    together = answer_rows(model, rows, processor=processor, automaton=automaton, num_beams=2)
    for row, answer in zip(rows, together, strict=True):
        (alone,) = answer_rows(model, [row], processor=processor, automaton=automaton, num_beams=2)
        assert alone.text == answer.text
        assert alone.confidence == pytest.approx(answer.confidence, rel=1e-4)


def test_an_image_of_several_rows_is_encoded_once_and_gives_the_same_answers(
    processor, model, automaton: AnswerAutomaton, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [make_image(seed) for seed in range(3)]
    rows = [
        {"image": images[seed], "entity_name": name}
        for name, seed in zip(ENTITIES, (0, 0, 1, 2, 2, 2, 1, 0), strict=True)
    ]
    apart = [row | {"image": row["image"].copy()} for row in rows]
    expected = answer_rows(model, apart, processor=processor, automaton=automaton, num_beams=2)
    encoded, get_image_features = [], model.model.get_image_features

    def count(pixel_values: torch.Tensor, **options: Any) -> Any:
        encoded.append(len(pixel_values))
        return get_image_features(pixel_values, **options)

    monkeypatch.setattr(model.model, "get_image_features", count)
    answers = answer_rows(model, rows, processor=processor, automaton=automaton, num_beams=2)
    assert encoded == [3]
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    for answer, other in zip(answers, expected, strict=True):
        assert answer.confidence == pytest.approx(other.confidence, rel=1e-4)


def test_an_answer_in_a_unit_of_another_entity_goes_out_empty() -> None:
    assert normalize_answer("10 gram", CHALLENGE["item_weight"]) == "10.0 gram"
    assert normalize_answer("10 gram", CHALLENGE["voltage"]) == ""
    assert normalize_answer("about 10 gram", CHALLENGE["item_weight"]) == ""


@pytest.fixture(scope="module")
def letters_base(tmp_path_factory: pytest.TempPathFactory) -> Path:

    return save_letters_base(tmp_path_factory.mktemp("bases") / "letters")


@pytest.mark.slow
@pytest.mark.parametrize("models", [4, pytest.param(10, marks=pytest.mark.faults)])
def test_hundreds_of_answers_spelled_by_letters_are_complete_and_valid(
    letters_base: Path, tmp_path: Path, models: int
) -> None:
    """A tokenizer that knows no unit as a word: `666666.3333 imperial gallon` has 28 tokens with its end."""
    processor = load_processor(Location(str(letters_base)))
    pieces = processor.tokenizer.tokenize("666666.3333 imperial gallon")
    assert len(pieces) == 27 and all(len(piece) == 1 for piece in pieces)
    automaton = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=CHALLENGE)
    assert automaton.max_tokens == max_answer_tokens(processor.tokenizer) == 28
    rows = rows_of([ENTITIES[n % len(ENTITIES)] for n in range(100)])
    predictions = []
    for seed in range(models):
        torch.manual_seed(seed)
        model = load_base_model(Location(str(letters_base)), dtype=torch.float32).eval()
        for parameter in model.model.language_model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * parameter.data.std() * 2)
        answers = answer_rows(model, rows, processor=processor, automaton=automaton, num_beams=1 + seed % 2)
        predictions += [answer.prediction for answer in answers]
    assert max(len(processor.tokenizer.tokenize(text)) for text in predictions) > 20
    with (tmp_path / "test.csv").open("w") as test, (tmp_path / "submission.csv").open("w") as submission:
        test.write("index,image_link,group_id,entity_name\n")
        submission.write("index,prediction\n")
        for index, prediction in enumerate(predictions):
            test.write(f"{index},https://example.com/1.jpg,1,{rows[index % 100]['entity_name']}\n")
            submission.write(f"{index},{prediction}\n")
    for official in (False, True):
        verdict = check_submission(tmp_path / "submission.csv", tmp_path / "test.csv", official=official)
        assert (verdict.ok, verdict.answered) == (True, 100 * models)


def test_without_constraint_too_an_answer_may_be_as_long_as_the_longest_valid_one(letters_base: Path) -> None:
    processor = load_processor(Location(str(letters_base)))
    model = load_base_model(Location(str(letters_base)), dtype=torch.float32).eval()
    letter = processor.tokenizer.convert_tokens_to_ids("x")
    model.lm_head.register_forward_hook(lambda module, inputs, out: out.index_fill(-1, torch.tensor(letter), 1e4))
    (answer,) = answer_rows(model, rows_of(["width"]), processor=processor, automaton=None)
    assert answer.text == "x" * 28
    (answer,) = answer_rows(model, rows_of(["width"]), processor=processor, automaton=None, max_new_tokens=5)
    assert answer.text == "x" * 5


@contextmanager
def spoiled(
    model: PaliGemmaForConditionalGeneration,
    *,
    row: int,
    from_step: int = 0,
    value: float,
    token: int | slice = slice(None),
) -> Iterator[None]:
    """The logits of one row (of all its beams) are not numbers, from a step on."""
    sizes = []

    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        sizes.append(len(output.logits))
        beams = sizes[-1] // sizes[0]
        if len(sizes) > from_step:
            output.logits[row * beams : (row + 1) * beams, :, token] = value
        return output

    hook = model.register_forward_hook(spoil)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("is_constrained", [True, False], ids=["constrained", "free"])
@pytest.mark.parametrize("from_step", [0, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_row_whose_logits_are_not_finite_is_answered_with_nothing_and_the_others_as_ever(
    processor, model, automaton: AnswerAutomaton, num_beams: int, is_constrained: bool, from_step: int, value: float
) -> None:
    rows = make_rows(4)
    options = {"automaton": automaton if is_constrained else None, "num_beams": num_beams}
    expected = answer_rows(model, rows, processor=processor, **options)
    with spoiled(model, row=1, from_step=from_step, value=value):
        answers = answer_rows(model, rows, processor=processor, **options)
    assert (answers[1].text, answers[1].prediction, answers[1].confidence) == ("", "", 0.0)
    assert answers[1].alternatives == ()
    assert is_not_finite(answers[1].text, answers[1].confidence)
    for place in (0, 2, 3):
        assert answers[place] == expected[place]
        assert not is_not_finite(answers[place].text, answers[place].confidence)


def test_a_single_logit_that_is_not_a_number_is_enough(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, automaton: AnswerAutomaton
) -> None:
    digit = processor.tokenizer.convert_tokens_to_ids("7")
    for options in ({"automaton": automaton}, {"automaton": None}):
        with spoiled(model, row=0, value=float("nan"), token=digit):
            first, second = answer_rows(model, make_rows(2), processor=processor, **options)
        assert (first.text, first.confidence) == ("", 0.0)
        assert second.confidence > 0


def test_lm_head_is_given_a_contiguous_tensor(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration, automaton: AnswerAutomaton
) -> None:
    """For a strided one, a CPU copies the matrix once per row."""
    given: list[bool] = []
    hook = model.lm_head.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].is_contiguous()))
    answer_rows(model, make_rows(3), processor=processor, automaton=automaton, num_beams=2)
    hook.remove()
    assert len(given) > 2 and all(given)
