import torch

from product_vqa.hub import Location
from product_vqa.modeling.loading import load_base_model, load_processor
from tests.commands import ROOT

BASE = ROOT / "quickstart" / "base"


def test_the_shipped_base_model_is_small_and_complete() -> None:
    base = Location(str(BASE))
    model = load_base_model(base, dtype=torch.float32)
    processor = load_processor(base)
    assert (BASE / "model.safetensors").stat().st_size <= 6_000_000
    tokens = processor.tokenizer.tokenize("1234.5 kilogram")
    assert tokens == ["1", "2", "3", "4", ".", "5", "▁kilogram"]
    sizes = {
        module.out_features for module in model.model.language_model.modules() if isinstance(module, torch.nn.Linear)
    }
    assert all(size % 64 == 0 for size in sizes)
    assert "license: apache-2.0" in (BASE / "README.md").read_text()
