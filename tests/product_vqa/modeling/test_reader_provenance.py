"""What predictions record about a model without an adapter. Those of adapters are in test_attribute_reader.py."""

import pytest

from product_vqa.hub import Location
from product_vqa.modeling.reader_provenance import make_provenance
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import CHALLENGE
from tests.product_vqa.modeling.schemas import ALL_KINDS


@pytest.mark.parametrize(
    ("in_4bit", "dequantized", "precision"),
    [(None, False, "not quantized"), (True, False, "nf4"), (None, True, "nf4, dequantized")],
)
def test_the_precision_of_the_weights_is_recorded(in_4bit: bool | None, dequantized: bool, precision: str) -> None:
    recorded = make_provenance(
        None, Location("base"), None, dtype="torch.float32", in_4bit=in_4bit, dequantized=dequantized, schema=CHALLENGE
    )
    assert recorded["base_precision"] == precision
    assert (recorded["adapter"], recorded["base_model"], recorded["dtype"]) == ("None", "base", "torch.float32")
    assert recorded["calibration"] == "answer 1 +0, number 1 +0, unit 1 +0"


@pytest.mark.parametrize(("schema", "digest"), [(CHALLENGE, None), (ALL_KINDS, ALL_KINDS.sha256)])
def test_the_schema_is_recorded_unless_it_is_the_challenges(schema: Schema, digest: str | None) -> None:
    recorded = make_provenance(
        None, Location("base"), None, dtype="torch.float32", in_4bit=None, dequantized=False, schema=schema
    )
    assert recorded.get("schema_sha256") == digest
