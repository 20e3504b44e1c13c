"""Base models with random weights have the files of the published ones, and load like them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PaliGemmaForConditionalGeneration

from benchmarks import base_models
from benchmarks.base_models import ARCHITECTURES, PALIGEMMA2_3B, PALIGEMMA_3B, make_base_config, save_base_model
from product_vqa.hub import Location
from product_vqa.modeling.loading import check_image_size, load_base_model, load_processor
from tests.commands import call


@pytest.mark.parametrize(
    ("name", "parameters"), [("paligemma-3b-pt-224", 2_923_466_480), ("paligemma2-3b-pt-224", 3_032_242_416)]
)
def test_a_real_architecture_has_the_published_number_of_parameters_in_two_shards(name: str, parameters: int) -> None:
    shapes = base_models._published_shapes(make_base_config(ARCHITECTURES[name]))
    assert sum(shape.numel() for shape in shapes.values()) == parameters
    assert len(list(base_models._split(shapes))) == 2
    assert "language_model.model.layers.17.mlp.down_proj.weight" in shapes
    assert "vision_tower.vision_model.encoder.layers.26.self_attn.q_proj.bias" in shapes
    assert "multi_modal_projector.linear.weight" in shapes


@pytest.mark.parametrize("architecture", [PALIGEMMA_3B, PALIGEMMA2_3B], ids=["paligemma", "paligemma2"])
def test_a_saved_model_loads_as_it_was_made(
    architecture: base_models.Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_models, "SHARD_BYTES", 10**6)
    monkeypatch.setenv("REAL_TOKENIZER", str(tmp_path))  # none is there
    save_base_model(tmp_path, replace(architecture.shrink(), image_size=28))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) == len(set(index["weight_map"].values())) > 2
    assert shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"

    location = Location(str(tmp_path))
    model = load_base_model(location, dtype=torch.bfloat16)
    assert index["metadata"]["total_size"] == 2 * model.num_parameters()
    check_image_size(model.config, load_processor(location), base_model=location)
    plain, report = PaliGemmaForConditionalGeneration.from_pretrained(
        tmp_path, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, plain.state_dict()[name])
        if weight.dim() > 1:
            assert weight.float().std() * weight[0].numel() ** 0.5 == pytest.approx(1, rel=0.2)


def test_a_folder_with_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(SystemExit) as ended:
        call(base_models.main, monkeypatch, "--output_dir", tmp_path)
    assert ended.value.code == f"error: --output_dir {tmp_path} is not empty; choose another folder"
