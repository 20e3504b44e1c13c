"""Tiny base models of both families. Each test file loads its own, because some tests change them."""

from pathlib import Path

import pytest
import torch
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.hub import Location
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.loading import load_base_model, load_processor
from product_vqa.task.schema import CHALLENGE

BASES = [
    "paligemma",
    "paligemma2",
    # Seconds each to load, in every test file.
    pytest.param("real-paligemma", marks=pytest.mark.faults),
    pytest.param("real-paligemma2", marks=pytest.mark.faults),
]


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest) -> Path:
    """PaliGemma with the quickstart's tokenizer, or PaliGemma 2, which caps logits, with one of Gemma's class.

    The last two have the real tokenizers, of 256,000 pieces, and are skipped if those were not fetched; `make faults`
    runs them. `tests/benchmarks/test_real_tokenizer.py` says how they differ.
    """
    fixture = {"paligemma": "tiny_base", "paligemma2": "tiny_paligemma2"}.get(request.param)
    return request.getfixturevalue(fixture or request.param.replace("-", "_"))


@pytest.fixture(scope="module")
def processor(base: Path) -> PaliGemmaProcessor:
    return load_processor(Location(str(base)))


@pytest.fixture(scope="module")
def model(base: Path) -> PaliGemmaForConditionalGeneration:
    return load_base_model(Location(str(base)), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def automaton(processor: PaliGemmaProcessor) -> AnswerAutomaton:
    return AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=CHALLENGE)
