"""Adapters of strangers on their base model: what peft would do, without its regular expressions and allocations."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PaliGemmaForConditionalGeneration

from benchmarks.base_models import PALIGEMMA_3B, make_base_config
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.adapter import download_adapter
from product_vqa.modeling.adapter_config import check_config, check_weights
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, load_base_model
from product_vqa.modeling.lora import apply_adapter, make_lora_config
from product_vqa.modeling.model_files import Tensor
from product_vqa.provenance import ADAPTER_WEIGHTS
from tests.product_vqa.modeling.adapters import save_adapter

WEIGHTS = {"x.lora_A.weight": Tensor("F32", (8, 2_000_000)), "x.lora_B.weight": Tensor("F32", (2_000_000, 8))}


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "adapter", tiny_base)


@pytest.mark.slow
def test_a_merged_adapter_computes_what_the_separate_one_does(folder: Path, tiny_base: Path) -> None:
    base_model = Location(str(tiny_base))
    adapter = download_adapter(Location(str(folder)))
    ids = torch.arange(5, 15)[None]
    logits = {}
    for merge in (True, False, None):
        model = load_base_model(base_model, dtype=torch.float32).eval()
        if merge is not None:
            model = apply_adapter(model, adapter, base_model=base_model, merge=merge).eval()
        assert any("lora" in name for name, _ in model.named_parameters()) is (merge is False)
        with torch.inference_mode():
            logits[merge] = model.model.language_model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(logits[True], logits[False], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits[True], logits[None], atol=1e-2)


@pytest.mark.slow
def test_weights_that_do_not_fit_or_are_damaged_are_refused(folder: Path, tiny_base: Path) -> None:
    base_model = Location(str(tiny_base))
    adapter = download_adapter(Location(str(folder)))
    tensors = load_file(folder / ADAPTER_WEIGHTS)

    def refusal() -> str:
        model = load_base_model(base_model, dtype=torch.float32)
        with pytest.raises(InputError) as raised:
            apply_adapter(model, adapter, base_model=base_model, merge=True)
        return str(raised.value)

    save_file({name: tensor[..., :-1].contiguous() for name, tensor in tensors.items()}, folder / ADAPTER_WEIGHTS)
    assert f"{folder} does not fit base model {tiny_base}: size mismatch" in refusal()
    save_file({name: tensors[name] for name in sorted(tensors)[2:]}, folder / ADAPTER_WEIGHTS)
    assert "does not fit base model" in refusal() and "Found missing adapter keys" in refusal()
    (folder / ADAPTER_WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "adapter_model.safetensors is damaged" in refusal() and "git lfs pull" in refusal()


@pytest.fixture(scope="module")
def model() -> PaliGemmaForConditionalGeneration:
    config = make_base_config(PALIGEMMA_3B)
    config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers = 3, 2
    with torch.device("meta"):
        return PaliGemmaForConditionalGeneration(config)


def adapted(model: PaliGemmaForConditionalGeneration, config: LoraConfig) -> dict[str, tuple[int, float]]:
    """Rank and scaling of each module that peft adapts; the model is as before."""
    peft_model = get_peft_model(model, config)
    found = {
        name: (module.r["default"], module.scaling["default"])
        for name, module in peft_model.base_model.model.named_modules()
        if hasattr(module, "lora_A")
    }
    peft_model.unload()
    return found


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": LANGUAGE_MODEL_LINEARS},
        {"target_modules": ["q_proj", "up_proj"]},
        {"target_modules": ["layers.1.self_attn.q_proj"]},
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj"], "layers_to_transform": [0, 2]},
        {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
        {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ".*vision_tower.*"},
        {"target_modules": ["q_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]},
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2, "layers.1.self_attn.q_proj": 4}},
        {"target_modules": ["q_proj"], "alpha_pattern": {".*language_model.*q_proj": 64}, "use_rslora": True},
        {"target_modules": r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:k_proj|v_proj).*?)"},
    ],
    ids=str,
)
def test_it_adapts_what_peft_adapts(model: PaliGemmaForConditionalGeneration, fields: dict[str, Any]) -> None:
    expected = adapted(model, LoraConfig(r=8, lora_alpha=16, **fields))
    content = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, **fields}
    check_config(content, name="x")
    assert adapted(model, make_lora_config(content, model, WEIGHTS, name="x")) == expected
    assert expected


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules", "rank_pattern"])
@pytest.mark.parametrize("regex", ["(([a-z._0-9])+)+!", "(.*)*x", "(a|a)*b", "([a-z.]*)*\\d!", "(?:.*?.*?.*?)+!"])
def test_no_regular_expression_takes_long(model: PaliGemmaForConditionalGeneration, field: str, regex: str) -> None:
    content: dict[str, Any] = {"peft_type": "LORA", "target_modules": ["q_proj"]}
    content[field] = {regex: 4} if field == "rank_pattern" else regex
    check_config(content, name="x")
    start = time.monotonic()
    if field == "target_modules":
        with pytest.raises(InputError, match=r"Target modules .* not found in the base model"):
            make_lora_config(content, model, WEIGHTS, name="x")
    else:
        assert len(make_lora_config(content, model, WEIGHTS, name="x").target_modules) == 5  # type: ignore[arg-type]
    assert time.monotonic() - start < 10


def test_weights_that_are_too_few_for_the_modules_are_refused(model: PaliGemmaForConditionalGeneration) -> None:
    content = {"peft_type": "LORA", "target_modules": "all-linear", "r": 4000}
    few = {"x.lora_A.weight": Tensor("F32", (4000, 1))}
    check_weights(content, few, name="x")
    with pytest.raises(InputError, match=r"size mismatch: its adapter_model\.safetensors holds 4000 numbers, but"):
        make_lora_config(content, model, few, name="x")


def test_only_layers_and_the_projector_can_be_saved_as_a_whole(model: PaliGemmaForConditionalGeneration) -> None:
    content = {"peft_type": "LORA", "target_modules": ["q_proj"]}
    for wanted in (["multi_modal_projector"], "lm_head"):
        config = make_lora_config(content | {"modules_to_save": wanted}, model, WEIGHTS | {
            "lm_head": Tensor("F32", (257_216, 2048))
        }, name="x")  # fmt: skip
        assert config.modules_to_save in (["model.multi_modal_projector"], ["lm_head"])
    for wanted in (["language_model"], ["none"]):
        with pytest.raises(InputError, match="`modules_to_save`"):
            make_lora_config(content | {"modules_to_save": wanted}, model, WEIGHTS, name="x")
