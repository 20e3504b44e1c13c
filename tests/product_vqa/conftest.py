"""Tiny bases of both families, loaded: each file has models of its own, since some change them."""

from pathlib import Path

import pytest

from product_vqa.errors import argument


@pytest.fixture(scope="module", params=["paligemma", "paligemma2"])
def base(request: pytest.FixtureRequest, tiny_base: Path, tiny_paligemma2: Path) -> Path:
    """PaliGemma with the quickstart's tokenizer; PaliGemma 2, whose logits are capped, with Gemma's."""
    return {"paligemma": tiny_base, "paligemma2": tiny_paligemma2}[request.param]


@pytest.fixture(scope="module")
def processor(base: Path) -> "PaliGemmaProcessor":  # noqa: F821
    from product_vqa.hub import Location
    from product_vqa.modeling.loading import load_processor

    return load_processor(Location(str(base)))


@pytest.fixture(scope="module")
def model(base: Path) -> "PaliGemmaForConditionalGeneration":  # noqa: F821
    import torch

    from product_vqa.hub import Location
    from product_vqa.modeling.loading import load_base_model

    with argument("base_model"):
        return load_base_model(Location(str(base)), dtype=torch.float32).eval()
