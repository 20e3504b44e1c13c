"""The tiny base, loaded: each file has a model of its own, since some change it."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def processor(tiny_base: Path) -> "PaliGemmaProcessor":  # noqa: F821
    from product_vqa.hub import Location
    from product_vqa.paligemma import load_processor

    return load_processor(Location(str(tiny_base)))


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> "PaliGemmaForConditionalGeneration":  # noqa: F821
    import torch

    from product_vqa.hub import Location
    from product_vqa.paligemma import load_base

    return load_base(Location(str(tiny_base)), flag="--base_model", dtype=torch.float32).eval()
