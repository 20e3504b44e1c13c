"""What a reader is loaded from, of a base model alone; adapters are in test_attribute_reader.py."""

from pathlib import Path

from product_vqa.hub import Location
from product_vqa.modeling.reader_loading import (
    choose_schema,
    dequantizes_base,
    describe_reader,
    find_calibration,
    trained_dtype,
)
from product_vqa.task.schema import CHALLENGE
from tests.product_vqa.modeling.brute_force import FEW_ANSWERS


def test_a_base_model_alone_has_no_calibration_and_the_schema_that_is_asked_for(base: Path) -> None:
    location = Location(str(base))
    assert find_calibration(None, location) is None and trained_dtype(None, location) is None
    assert choose_schema(None, location, None) == CHALLENGE
    assert choose_schema(None, location, FEW_ANSWERS) == FEW_ANSWERS
    assert not dequantizes_base(None, load_in_4bit=None)


def test_a_reader_is_described_without_loading_it(base: Path) -> None:
    location = Location(str(base))
    described = describe_reader(None, location, dtype="torch.float32", load_in_4bit=None, schema=FEW_ANSWERS)
    assert (described["adapter"], described["base_model"]) == ("None", str(location))
    assert described["dtype"] == "torch.float32" and described["schema_sha256"] == FEW_ANSWERS.sha256
