"""The batch, the mask, quantization, and what LoRA adapts: what is silently wrong elsewhere."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration

from product_vqa.errors import InputError, argument
from product_vqa.hub import Location
from product_vqa.modeling.collator import make_generation_batch, make_training_batch, normalize_images, take_rows
from product_vqa.modeling.loading import (
    LANGUAGE_MODEL_LINEARS,
    PROJECTOR_LINEAR,
    check_image_size,
    load_base_model,
    load_processor,
    resolve_dtype,
)
from product_vqa.task.prompt import format_prompt
from quickstart.pretraining.small_paligemma import make_processor
from tests.real_shape import paligemma2_3b_config, paligemma_3b_config
from tests.tiny import make_rows

of_paligemma = pytest.mark.parametrize("base", ["paligemma"], indirect=True)  # its tokens stand in the test


@of_paligemma
def test_the_golden_training_batch(processor) -> None:
    batch = make_training_batch(make_rows(3), processor=processor)  # item_weight, voltage, maximum_weight_...
    img, pad = ["<image>"] * 4, "<pad>"
    ask = ["<bos>", "What", "▁is", "▁the"]
    first = [*img, *ask, "▁item", "▁weight", "?", "\n", "5", "0", "0", ".", "0", "▁gram", "<eos>"]
    second = [*img, *ask, "▁voltage", "?", "\n", "2", "3", "0", ".", "0", "▁volt", "<eos>", pad]
    third = [*img, *ask, "▁maximum", "▁weight", "▁recommendation", "?", "\n", "1", ".", "5", "▁kilogram", "<eos>", pad]
    third, first, second = third[:18], [*first], [*second]
    length = 19
    tokens = [row + [pad] * (length - len(row)) for row in (first, second, third)]
    ids = [processor.tokenizer.convert_tokens_to_ids(row) for row in tokens]
    assert batch["input_ids"].tolist() == ids
    prompts, answers = (12, 11, 13), (7, 7, 5)
    for row in range(3):
        end = prompts[row] + answers[row]
        assert batch["token_type_ids"][row].tolist() == [0] * prompts[row] + [1] * answers[row] + [0] * (length - end)
        assert batch["attention_mask"][row].tolist() == [1] * end + [0] * (length - end)
        assert batch["labels"][row].tolist() == (
            [-100] * prompts[row] + ids[row][prompts[row] : end] + [-100] * (length - end)
        )
    assert batch["pixel_values"].shape == (3, 3, 28, 28)
    assert batch["pixel_values"].dtype == torch.uint8
    normalized = normalize_images(batch["pixel_values"], processor=processor, dtype=torch.float32)
    assert 0.8 < normalized.abs().max() <= 1


@of_paligemma
def test_a_generation_batch_is_the_prompt_padded_on_the_left(processor) -> None:
    batch = make_generation_batch(make_rows(2), processor=processor)
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "pixel_values", "image_index"}
    assert batch["attention_mask"].tolist() == [[1] * 12, [0] + [1] * 11]
    assert batch["token_type_ids"].tolist() == [[0] * 12] * 2
    assert processor.tokenizer.decode(batch["input_ids"][1]) == "<pad>" + "<image>" * 4 + "<bos>What is the voltage?\n"


def test_an_image_token_in_the_words_of_nobody_changes_nothing(processor) -> None:
    """Question and answer come from fixed words and labels: every row holds exactly its own image's tokens."""
    batch = make_training_batch(make_rows(8), processor=processor)
    assert ((batch["input_ids"] == processor.image_token_id).sum(dim=1) == 4).all()


def test_a_row_without_an_answer_is_refused(processor) -> None:
    rows = make_rows(2)
    rows[1]["entity_value"] = ""
    with pytest.raises(ValueError, match="row 1 of the batch has an empty entity_value"):
        make_training_batch(rows, processor=processor)


def test_a_picture_of_any_mode_is_read_as_rgb(processor) -> None:
    rows = make_rows(4)
    for row, mode in zip(rows, ("L", "RGBA", "CMYK", "P"), strict=True):
        row["image"] = row["image"].convert(mode)
    assert make_generation_batch(rows, processor=processor)["pixel_values"].shape == (4, 3, 28, 28)


def inputs(batch: dict, processor) -> dict:
    """What the model takes in."""
    pixels = normalize_images(batch["pixel_values"], processor=processor, dtype=torch.float32)
    kept = {name: tensor for name, tensor in batch.items() if name not in ("labels", "image_index")}
    return kept | {"pixel_values": pixels}


def test_a_batch_to_be_answered_is_the_processors_own(processor) -> None:
    rows = make_rows(5)
    batch = make_generation_batch(rows, processor=processor)
    expected = processor(
        images=[row["image"] for row in rows],
        text=[f"<image>{format_prompt(row['entity_name'])}" for row in rows],
        padding=True, padding_side="left", return_tensors="pt",
    )  # fmt: skip
    assert batch["image_index"].tolist() == [0, 1, 2, 3, 4]
    made = inputs(batch, processor)
    assert made.keys() == expected.keys() - {"labels"}
    for name, tensor in made.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.7]},
        {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    ],
    ids=lambda settings: "-".join(settings) or "paligemma",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_images_normalized_on_the_device_are_the_processors_to_the_bit(settings: dict, dtype: torch.dtype) -> None:
    """All 256 values in each channel, and pictures that are resized."""
    processor = make_processor(image_size=28, patch_size=14)
    for name, value in settings.items():
        setattr(processor.image_processor, name, value)
    levels = np.arange(28 * 28 * 3).reshape(28, 28, 3) // 3 % 256 + np.array([0, 85, 170])
    rows = [row | {"image": Image.fromarray((levels % 256).astype(np.uint8))} for row in make_rows(1)] + make_rows(3)
    expected = processor.image_processor([row["image"] for row in rows], return_tensors="pt")["pixel_values"]
    for make in (make_training_batch, make_generation_batch):
        pixels = make(rows, processor=processor)["pixel_values"]
        assert pixels.dtype == torch.uint8
        assert torch.equal(normalize_images(pixels, processor=processor, dtype=dtype), expected.to(dtype))
    assert len(set(pixels[0].flatten().tolist())) == 256


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


def test_rows_of_one_picture_share_it_and_can_be_taken_apart(processor) -> None:
    rows = make_rows(6)
    for row, other in ((1, 0), (4, 3), (5, 0)):
        rows[row]["image"] = rows[other]["image"]
    batch = make_generation_batch(rows, processor=processor)
    assert batch["pixel_values"].shape == (3, 3, 28, 28)
    assert batch["image_index"].tolist() == [0, 0, 1, 2, 2, 0]
    part = take_rows(batch, slice(3, 6))
    assert part["image_index"].tolist() == [1, 1, 0]
    assert torch.equal(part["pixel_values"], batch["pixel_values"][[0, 2]])
    assert torch.equal(part["input_ids"], batch["input_ids"][3:])


def test_a_row_alone_and_in_a_padded_batch_gives_the_same_logits(processor, model) -> None:
    rows = make_rows(4)
    together = make_training_batch(rows, processor=processor)
    with torch.inference_mode():
        logits = model(**inputs(together, processor)).logits
        for index, row in enumerate(rows):
            alone = make_training_batch([row], processor=processor)
            length = alone["input_ids"].shape[1]
            single = model(**inputs(alone, processor)).logits[0]
            torch.testing.assert_close(logits[index, :length], single, atol=1e-5, rtol=0)
        # And on the left, as generation pads.
        left = model(**inputs(make_generation_batch(rows, processor=processor), processor)).logits[:, -1]
        for index, row in enumerate(rows):
            single = model(**inputs(make_generation_batch([row], processor=processor), processor)).logits[0, -1]
            torch.testing.assert_close(left[index], single, atol=1e-5, rtol=0)


@of_paligemma
def test_the_prefix_sees_itself_in_both_directions_and_the_answer_only_backwards(processor, model) -> None:
    batch = make_training_batch(make_rows(1), processor=processor)
    taken = inputs(batch, processor)

    def logits_with(position: int, token: str) -> torch.Tensor:
        ids = taken["input_ids"].clone()
        ids[0, position] = processor.tokenizer.convert_tokens_to_ids(token)
        with torch.inference_mode():
            return model(**(taken | {"input_ids": ids})).logits[0]

    with torch.inference_mode():
        plain = model(**taken).logits[0]
    newline, first_digit, last = 11, 12, 18
    # Another last word of the prompt is seen at its first word...
    assert not torch.allclose(plain[4], logits_with(newline - 1, "x")[4], atol=1e-5)
    # ...another answer token is not seen before it: the answer is causal.
    changed = logits_with(first_digit + 2, "9")
    torch.testing.assert_close(plain[: first_digit + 2], changed[: first_digit + 2], atol=1e-5, rtol=0)
    assert not torch.allclose(plain[last], changed[last], atol=1e-5)


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
    config = paligemma_3b_config()
    # By hand, r x (in + out) a layer: q, o 2048+2048; k, v 2048+256; gate, up, down 2048+16384.
    layer = 8 * (2 * 4096 + 2 * 2304 + 3 * 18432)
    assert count_trainable(config, LANGUAGE_MODEL_LINEARS) == 18 * layer == 9_805_824
    assert count_trainable(config, f"{LANGUAGE_MODEL_LINEARS}|{PROJECTOR_LINEAR}") == 9_805_824 + 8 * (1152 + 2048)
    # What suffixes would have done: SigLIP's q, k, v too.
    suffixes = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert count_trainable(config, suffixes) == 11_298_816


def test_lora_on_the_real_paligemma2_shape_has_the_number_of_parameters_worked_out_by_hand() -> None:
    # Gemma 2 2B: 26 layers, 8 heads and 4 key-value heads of 256. r x (in + out) a layer: q 2304+2048, o 2048+2304;
    # k, v 2304+1024; gate, up, down 2304+9216.
    layer = 8 * (2 * 4352 + 2 * 3328 + 3 * 11520)
    assert count_trainable(paligemma2_3b_config(), LANGUAGE_MODEL_LINEARS) == 26 * layer == 10_383_360


def test_a_processor_of_another_size_is_refused(model, tiny_base: Path) -> None:
    with pytest.raises(InputError, match="takes images of 28 px"):
        check_image_size(
            model.config, make_processor(image_size=56, patch_size=14), base_model=Location(str(tiny_base))
        )


def test_a_folder_that_holds_no_paligemma_is_refused_with_the_flag(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`base_model` .* has no model"), argument("base_model"):
        load_base_model(Location(str(tmp_path)), dtype=torch.float32)
    GemmaConfig(hidden_size=64).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a gemma model; a PaliGemma is needed"), argument("base_model"):
        load_base_model(Location(str(tmp_path)), dtype=torch.float32)
    with pytest.raises(InputError, match="not a PaliGemmaProcessor"):
        load_processor(Location(str(tmp_path)))
