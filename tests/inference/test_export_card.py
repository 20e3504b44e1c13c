"""The license in the card of an exported model: what the adapter's card states, or nothing."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from inference.export_card import make_card, read_license
from inference.merged_model import Comparison
from product_vqa.hub import Location
from product_vqa.modeling.exported_model import Export
from product_vqa.task.schema import CHALLENGE
from tests.inference.schemas import SCHEMAS

EXPORT = Export("user/adapter@" + "1" * 40, "a" * 64, "user/base@" + "2" * 40, "nf4, dequantized", "bfloat16", 2e-4, 8)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [("license: gemma", "gemma"), ("license: [gemma, mit]", ["gemma", "mit"]), ("language: en", None),
     ("license: 5", None), ("license: {a: b}", None), (f"license: {'x' * 101}", None), ("license: [", None)],
)  # fmt: skip
def test_the_license_is_read_within_limits(tmp_path: Path, metadata: str, expected: object) -> None:
    (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n# An adapter\n")
    assert read_license(Location(str(tmp_path))) == expected
    (tmp_path / "README.md").unlink()
    assert read_license(Location(str(tmp_path))) is None


@pytest.mark.parametrize("schema", [CHALLENGE, *SCHEMAS.values()])
def test_the_card_is_valid_for_each_schema(schema: object) -> None:
    text = make_card(
        "user/merged", EXPORT, Comparison(8, 2e-4, 7), adapter=Location("user/adapter", "1" * 40),
        base_model=Location("user/base", "2" * 40), license_names="gemma", schema=schema, max_new_tokens=15,
    )  # type: ignore[arg-type]  # fmt: skip
    card = ModelCard(text)
    assert card.data.base_model == ["user/base", "user/adapter"] and card.data.license == "gemma"
    assert "weights nf4, dequantized" in text and "in 7 of 8" in text and "0.0002 nats" in text
    assert "{{" not in text and "{%" not in text
