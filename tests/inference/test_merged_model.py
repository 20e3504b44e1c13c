"""The comparison of a merged model with its adapter, by hand."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inference.merged_model import choose_dtype, compare, hash_parameters, make_rows
from product_vqa.task.prompt import BaseSettings
from product_vqa.task.schema import CHALLENGE


def test_the_divergence_is_the_mean_over_rows() -> None:
    expected = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    found = torch.tensor([[0.5, 0.5], [0.2, 0.8]]).log()
    comparison = compare(expected, found)
    assert comparison.rows == 2 and comparison.agreeing == 1
    divergence = (0.9 * math.log(0.9 / 0.2) + 0.1 * math.log(0.1 / 0.8)) / 2
    assert comparison.divergence == pytest.approx(divergence, rel=1e-5)
    assert compare(expected, expected).divergence == 0.0


def test_logits_that_are_not_finite_never_agree() -> None:
    expected = torch.tensor([[0.5, 0.5]]).log()
    assert compare(expected, torch.full((1, 2), torch.nan)).divergence == math.inf


@pytest.mark.parametrize(
    ("settings", "asked", "expected"),
    [
        (BaseSettings("float32", load_in_4bit=False), "auto", "float32"),
        (BaseSettings("float16", load_in_4bit=True), "auto", "float16"),
        (None, "auto", "bfloat16"),
        (BaseSettings("bfloat16", load_in_4bit=False), "float32", "float32"),
    ],
)
def test_the_dtype_is_that_of_the_training_unless_asked_for(settings: Any, asked: str, expected: str) -> None:
    adapter: Any = SimpleNamespace(base_settings=settings)
    assert choose_dtype(adapter, asked) == expected


def test_the_rows_ask_for_all_attributes_about_different_images() -> None:
    rows = make_rows(CHALLENGE)
    assert [row["entity_name"] for row in rows] == list(CHALLENGE.names)
    assert len({row["image"].tobytes() for row in rows}) == len(rows)
    assert [row["image"].tobytes() for row in make_rows(CHALLENGE)] == [row["image"].tobytes() for row in rows]


def test_a_hash_is_of_dtype_shape_and_values() -> None:
    def hashed(tensor: torch.Tensor) -> str:
        model: Any = torch.nn.Module()
        model.weight = torch.nn.Parameter(tensor)
        return hash_parameters(model)["weight"]

    ones = torch.ones(2, 3)
    assert hashed(ones) == hashed(torch.ones(2, 3))
    for other in (ones.bfloat16(), torch.ones(3, 2), torch.full((2, 3), 1.0000001), ones.double()):
        assert hashed(other) != hashed(ones)
