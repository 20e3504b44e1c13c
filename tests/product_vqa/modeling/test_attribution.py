"""Heat maps of answers, and the boxes around their hottest parts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from product_vqa.images import ImageError
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.attribution import (
    REGION_SHARE,
    AnswerRegion,
    answer_log_odds,
    find_box,
    image_grid,
    make_answer_batch,
    make_heat_map,
    sum_per_patch,
)
from product_vqa.task.schema import CHALLENGE
from tests.product_vqa.modeling.schemas import ALL_KINDS
from tests.tiny import make_image, make_rows


@pytest.fixture(scope="module")
def reader(base: Path) -> AttributeReader:
    return AttributeReader.from_pretrained(None, base_model=str(base), dtype="float32")


def log_odds(reader: AttributeReader, image: Image.Image) -> float:
    row = make_rows(1)[0] | {"image": image}
    batch, labels = make_answer_batch(reader.model, row, processor=reader.processor, schema=CHALLENGE)
    with torch.no_grad():
        return float(answer_log_odds(reader.model, batch, labels))


def test_the_score_is_the_sum_of_the_log_odds_of_the_answers_tokens(reader: AttributeReader) -> None:
    (row,) = make_rows(1)
    batch, labels = make_answer_batch(reader.model, row, processor=reader.processor, schema=CHALLENGE)
    with torch.no_grad():
        logits = reader.model(**batch).logits[0].double()
    expected = 0.0
    tokens = [(position, int(label)) for position, label in enumerate(labels) if label >= 0]
    assert reader.processor.tokenizer.decode([token for _, token in tokens[:-1]]) == "500.0 gram"
    assert tokens[-1][1] == reader.processor.tokenizer.eos_token_id
    for position, token in tokens[:-1]:
        probability = float(logits[position - 1].softmax(-1)[token])
        expected += float(np.log(probability / (1 - probability)))
    assert log_odds(reader, row["image"]) == pytest.approx(expected, rel=1e-4)


def test_a_heat_map_is_the_slope_of_the_score(reader: AttributeReader) -> None:
    """Moving all pixels of a patch along their gradient changes the score by the heat times the step."""
    (row,) = make_rows(1)
    heat = make_heat_map(reader.model, row, processor=reader.processor, schema=CHALLENGE)
    grid, patch = image_grid(reader.model)
    assert heat is not None and heat.shape == (grid, grid) and heat.dtype == np.float32
    assert heat.min() >= 0 and heat.sum() == pytest.approx(1, rel=1e-5)

    batch, labels = make_answer_batch(reader.model, row, processor=reader.processor, schema=CHALLENGE)
    pixels = batch.pop("pixel_values")

    def score(values: torch.Tensor) -> torch.Tensor:
        return answer_log_odds(reader.model, batch | {"pixel_values": values}, labels)[0]

    leaf = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(leaf), leaf)
    slopes = np.zeros((grid, grid))
    for cell in range(grid * grid):
        top, left = (patch * number for number in divmod(cell, grid))
        direction = torch.zeros_like(pixels)
        direction[:, :, top : top + patch, left : left + patch] = gradient[
            :, :, top : top + patch, left : left + patch
        ]
        direction /= direction.norm()
        with torch.no_grad():
            slopes.flat[cell] = float(score(pixels + 0.05 * direction) - score(pixels - 0.05 * direction)) / 0.1
    assert np.allclose(slopes / slopes.sum(), heat, rtol=0.1, atol=0.01)


def test_weights_take_no_gradient_and_stay_as_they_were(reader: AttributeReader) -> None:
    asked = [weight.requires_grad for weight in reader.model.parameters()]
    assert any(asked)
    reader.locate(make_image(0), "item_weight", prediction="500.0 gram")
    assert [weight.requires_grad for weight in reader.model.parameters()] == asked
    assert all(weight.grad is None for weight in reader.model.parameters())


def test_it_works_where_gradients_are_turned_off(reader: AttributeReader) -> None:
    expected = reader.locate(make_image(0), "item_weight", prediction="500.0 gram")
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            found = reader.locate(make_image(0), "item_weight", prediction="500.0 gram")
        assert found.heat_map is not None and np.array_equal(found.heat_map, expected.heat_map)


def test_the_answer_of_the_reader_is_located(reader: AttributeReader) -> None:
    image = make_image(3)
    found = reader.locate(image, "voltage")
    answer = reader.read(image, "voltage")
    assert found.prediction == answer.prediction != ""
    again = reader.locate(image, "voltage", prediction=answer.prediction)
    assert found.box == again.box and np.array_equal(found.heat_map, again.heat_map)
    other = reader.locate(image, "voltage", prediction="7.0 kilovolt")
    assert not np.array_equal(found.heat_map, other.heat_map)


def test_the_box_is_in_pixels_of_the_image_as_it_was_given(reader: AttributeReader) -> None:
    image = make_image(3)
    small = reader.locate(image, "voltage", prediction="7.0 volt").box
    large = reader.locate(image.resize((600, 400), Image.Resampling.NEAREST), "voltage", prediction="7.0 volt").box
    assert image.size == (60, 40) and small is not None and large is not None
    assert 0 <= small[0] < small[2] <= 60 and 0 <= small[1] < small[3] <= 40
    assert 0 <= large[0] < large[2] <= 600 and 0 <= large[1] < large[3] <= 400


@pytest.mark.parametrize("name", ALL_KINDS.names)
def test_answers_of_every_kind_are_located(tiny_base: Path, name: str) -> None:
    reader = AttributeReader.from_pretrained(None, base_model=str(tiny_base), dtype="float32", schema=ALL_KINDS)
    answer = reader.read(make_image(0), name)
    found = reader.locate(make_image(0), name)
    assert found.prediction == answer.prediction
    assert (found.heat_map is None) == (found.box is None) == (answer.prediction == "")


def test_an_empty_answer_was_read_from_nowhere(reader: AttributeReader) -> None:
    assert reader.locate(make_image(0), "voltage", prediction="") == AnswerRegion("")


def test_gradients_that_are_not_finite_give_no_heat_map(tiny_base: Path) -> None:
    reader = AttributeReader.from_pretrained(None, base_model=str(tiny_base), dtype="float32")
    with torch.no_grad():
        reader.model.model.multi_modal_projector.linear.weight.fill_(float("inf"))
    assert reader.locate(make_image(0), "voltage", prediction="7.0 volt") == AnswerRegion("7.0 volt")


def test_what_cannot_be_located_is_refused_by_its_name(reader: AttributeReader) -> None:
    with pytest.raises(ValueError, match=r"entity_names\[0\]: unknown entity_name 'colour'"):
        reader.locate(make_image(0), "colour")
    with pytest.raises(ImageError, match=r"images\[0\]: not_a_picture"):
        reader.locate(b"<html>", "voltage")
    with pytest.raises(ValueError, match="`prediction` '230' is not a valid voltage"):
        reader.locate(make_image(0), "voltage", prediction="230")


def test_pixels_are_summed_per_patch_without_those_beyond_the_last_one(reader: AttributeReader) -> None:
    grid, patch = image_grid(reader.model)
    pixels = torch.zeros(grid * patch + 1, grid * patch + 1)
    pixels[patch, 0] = pixels[2 * patch - 1, patch - 1] = 1.5  # the second row's first patch
    pixels[-1, -1] = 7
    expected = np.zeros((grid, grid))
    expected[1, 0] = 3
    assert np.array_equal(sum_per_patch(pixels.bfloat16(), reader.model), expected)


def test_a_box_encloses_what_is_connected_with_the_hottest_cell() -> None:
    heat = np.array([
        [0.0, 0.0, 0.0, 0.0, 0.9],
        [0.0, 0.3, 0.1, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ])  # fmt: skip
    assert REGION_SHARE == 0.2
    assert find_box(heat, size=(50, 40)) == (10, 10, 30, 30)  # two cells, across a corner, and not the one at 0.9
    assert find_box(heat, size=(24, 7)) == (4, 1, 15, 6)  # rounded outwards
    assert find_box(np.ones((2, 2)), size=(9, 9)) == (0, 0, 9, 9)
