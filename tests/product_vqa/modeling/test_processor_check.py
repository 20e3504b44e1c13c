"""Processors of strangers: settings out of range are named, and each must make a batch before it is used."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PaliGemmaProcessor

from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.loading import load_processor
from product_vqa.modeling.processor_check import check_image_settings, check_processor


def test_processors_of_both_families_pass(processor: PaliGemmaProcessor) -> None:
    check_processor(processor, name="x")
    settings = json.loads(json.dumps(processor.image_processor.to_dict()))
    check_image_settings({"processor_config.json": {"image_processor": settings}}, name="x")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", {"height": 10**6, "width": 10**6}), ("size", {"height": 28, "width": 29}), ("size", 28),
        ("image_seq_length", 10**9), ("do_resize", False), ("image_std", [0, 0, 0]), ("image_mean", ["a", 1, 1]),
        ("rescale_factor", 0), ("resample", 99), ("image_processor_type", "CLIPImageProcessor"),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_named(field: str, value: Any) -> None:
    for settings in (
        {"preprocessor_config.json": {field: value}},
        {"processor_config.json": {"image_processor": {field: value}}},
    ):
        with pytest.raises(InputError, match=rf"^x: `{field}` in its \w*processor_config\.json is "):
            check_image_settings(settings, name="x")


def test_a_tokenizer_that_drops_the_image_is_refused(tiny_base: Path) -> None:
    processor = load_processor(Location(str(tiny_base)))
    processor.image_seq_length = 10**9
    with pytest.raises(InputError, match="x: its processor cannot make a batch: 1000000000 tokens for an image"):
        check_processor(processor, name="x")
    processor.image_seq_length, processor.image_token = 4, "nothing"
    with pytest.raises(InputError, match="a prompt has 0 image tokens instead of 4"):
        check_processor(processor, name="x")
