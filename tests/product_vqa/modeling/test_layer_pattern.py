import re
import time
from pathlib import Path

import pytest
import yaml

from product_vqa.errors import InputError
from product_vqa.modeling.layer_pattern import check_layer_pattern
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS
from tests.commands import ROOT

NAME = "model.language_model.layers.17.self_attn.q_proj.lora_A.default"


@pytest.mark.parametrize(
    "pattern",
    [
        LANGUAGE_MODEL_LINEARS,
        yaml.safe_load(Path(ROOT, "training/configs/quickstart.yaml").read_text())["lora_target_modules"],
        "all-linear",
        r".*\.(\d+)\.self_attn\.[qv]_proj",
        r"(model\.)?language_model.*\.layers\.(1|2|3)\..*",
        r"(?!.*vision).*_proj",
    ],
)
def test_a_pattern_for_layers_is_accepted_and_matched_at_once(pattern: str) -> None:
    check_layer_pattern(pattern)
    began = time.monotonic()
    re.fullmatch(pattern, NAME + "!")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(([a-z._0-9])+)+!", "not a group"),
        ("(a|a)*!", "not a group"),
        ("(?:a?){30}a{30}", "not a group"),
        ("(?=(.+)+!)x", "not a group"),
        ("(?>.+)+!", "not a group"),
        ("(.*)(.*)(.*)(.*)(.*)!", "ways to match"),
        (".?" * 40 + "!", "ways to match"),
        ("(.|.)" * 40 + "!", "ways to match"),
        ("(?:(?:.?.?)?(?:.?.?)?)?" * 10, "ways to match"),
        (r"(.+)\1!", "references"),
        ("[", "is not a regular expression"),
        ("(" * 500, "is not a regular expression"),
        ("a{99999999999999999999}", "is not a regular expression"),
        ("(?P<a>x)(?P<a>y)", "is not a regular expression"),
        ("", "an empty pattern"),
        ("a" * 1001, "a pattern of 1001 characters"),
    ],
)
def test_a_pattern_that_could_take_for_ever_is_refused(pattern: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=message) as raised:
        check_layer_pattern(pattern)
    assert time.monotonic() - began < 1
    assert "\n" not in str(raised.value)
