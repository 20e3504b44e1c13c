"""The base model: its dtype, its quantization, and what LoRA adapts; errors of others are one line."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration

from benchmarks.base_models import PALIGEMMA2_3B, PALIGEMMA_3B, make_base_config
from product_vqa.errors import InputError, argument
from product_vqa.hub import Location
from product_vqa.modeling.loading import (
    LANGUAGE_MODEL_LINEARS,
    PROJECTOR_LINEAR,
    VISION_ATTENTION,
    check_image_size,
    load_base_model,
    load_processor,
    resolve_dtype,
)
from quickstart.pretraining.small_paligemma import make_processor


def test_a_gpu_that_emulates_bfloat16_computes_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A T4 says that it supports bfloat16, unless it is asked for its own."""
    for is_native, expected in ((False, torch.float16), (True, torch.bfloat16)):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, own=is_native: including_emulation or own
        )
        assert resolve_dtype("auto", device="cuda") == expected
        assert resolve_dtype("auto", device="cuda", trained="bfloat16") == expected
        assert resolve_dtype("auto", device="cuda", trained="float16") == torch.float16
        assert resolve_dtype("auto", device="cuda", trained="float32") == torch.float32


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_computes_in_bfloat16_where_it_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch, fast: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": fast, "avx512_bf16": True})
    assert resolve_dtype("auto", device="cpu") == dtype
    assert resolve_dtype("float16", device="cpu") == torch.float16


def test_nf4_quantizes_the_language_model_and_nothing_else(tiny_base: Path) -> None:
    with argument("base_model"):
        model = load_base_model(Location(str(tiny_base)), dtype=torch.float32, load_in_4bit=True)
    quantized = {name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"}
    assert len(quantized) == 2 * 7
    assert all(name.startswith("model.language_model.layers.") for name in quantized)
    layer = model.model.language_model.layers[0].mlp.up_proj
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.weight.quant_state.nested
    assert layer.compute_dtype == torch.bfloat16
    assert layer.weight.dtype == torch.bfloat16  # FSDP shards by storage type: bytes (uint8) it could not


def count_trainable(config: PaliGemmaConfig, target: str | list[str]) -> int:
    with torch.device("meta"):
        model = PaliGemmaForConditionalGeneration(config)
        adapted = get_peft_model(model, LoraConfig(r=8, target_modules=target))
    return adapted.get_nb_trainable_parameters()[0]


@pytest.mark.slow
def test_lora_on_the_real_3b_shape_has_the_known_number_of_parameters() -> None:
    config = make_base_config(PALIGEMMA_3B)
    # By hand, r x (in + out) a layer: q, o 2048+2048; k, v 2048+256; gate, up, down 2048+16384.
    layer = 8 * (2 * 4096 + 2 * 2304 + 3 * 18432)
    assert count_trainable(config, LANGUAGE_MODEL_LINEARS) == 18 * layer == 9_805_824
    assert count_trainable(config, f"{LANGUAGE_MODEL_LINEARS}|{PROJECTOR_LINEAR}") == 9_805_824 + 8 * (1152 + 2048)
    seeing = f"{LANGUAGE_MODEL_LINEARS}|{PROJECTOR_LINEAR}|{VISION_ATTENTION}"
    assert count_trainable(config, seeing) == 9_805_824 + 8 * (1152 + 2048) + 27 * 3 * 8 * 2304 == 11_324_416
    # What suffixes would have done: SigLIP's q, k, v too.
    suffixes = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert count_trainable(config, suffixes) == 11_298_816


def test_lora_on_the_real_paligemma2_shape_has_the_number_of_parameters_worked_out_by_hand() -> None:
    # Gemma 2 2B: 26 layers, 8 heads and 4 key-value heads of 256. r x (in + out) a layer: q 2304+2048, o 2048+2304;
    # k, v 2304+1024; gate, up, down 2304+9216.
    layer = 8 * (2 * 4352 + 2 * 3328 + 3 * 11520)
    assert count_trainable(make_base_config(PALIGEMMA2_3B), LANGUAGE_MODEL_LINEARS) == 26 * layer == 10_383_360


def test_a_processor_of_another_size_is_refused(model: PaliGemmaForConditionalGeneration, tiny_base: Path) -> None:
    with pytest.raises(InputError, match="takes images of 28 px"):
        check_image_size(
            model.config, make_processor(image_size=56, patch_size=14), base_model=Location(str(tiny_base))
        )


def test_a_processor_knows_where_its_files_are(tiny_base: Path) -> None:
    assert load_processor(Location(str(tiny_base))).tokenizer.name_or_path == str(tiny_base)


def test_a_folder_that_holds_no_paligemma_is_refused_with_the_flag(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`base_model` .* has no model"), argument("base_model"):
        load_base_model(Location(str(tmp_path)), dtype=torch.float32)
    GemmaConfig(hidden_size=64).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a gemma model; a PaliGemma is needed"), argument("base_model"):
        load_base_model(Location(str(tmp_path)), dtype=torch.float32)
    with pytest.raises(InputError, match=r"has no processor: it has no processor_config\.json or preprocessor_config"):
        load_processor(Location(str(tmp_path)))
