"""The estimate of a run's memory: by hand at the real shape, and against what a real forward pass keeps."""

import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model

from benchmarks.base_models import PALIGEMMA_3B, make_base_config
from product_vqa.modeling.collator import normalize_images
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, PROJECTOR_LINEAR, VISION_ATTENTION
from quickstart.pretraining.small_paligemma import make_model, make_processor
from tests.product_vqa.modeling.challenge import make_training_batch
from tests.tiny import make_rows
from training.memory import NF4_BYTES, MemoryEstimate, advise, estimate_memory


def lora() -> LoraConfig:
    return LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS)


@pytest.mark.slow
def test_the_real_3b_shape_by_hand() -> None:
    config = make_base_config(PALIGEMMA_3B)
    estimate = estimate_memory(config, lora(), dtype=torch.bfloat16, load_in_4bit=True, samples=2, optim="adamw_8bit")
    layer = 2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 16384  # q and o, k and v, gate and up and down
    total = 2_923_466_480  # parameters of paligemma-3b-pt-224, lm_head being the embedding
    assert estimate.weights == pytest.approx(2 * total - 18 * layer * (2 - NF4_BYTES), rel=1e-3)
    assert estimate.adapter == 9_805_824 * 8
    assert estimate.optimizer == 9_805_824 * 2
    # A sample has 276 tokens, for each of which each layer keeps some 95,000 numbers of 2 bytes.
    assert estimate.activations / 2 == pytest.approx(276 * 18 * 95_000 * 2, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize(
    "target",
    [
        LANGUAGE_MODEL_LINEARS,
        r".*language_model.*\.(q|v)_proj",
        "|".join((LANGUAGE_MODEL_LINEARS, PROJECTOR_LINEAR, VISION_ATTENTION)),
    ],
    ids=["language", "attention", "vision"],
)
def test_what_is_kept_is_what_a_real_step_keeps(target: str, use_dora: bool) -> None:
    processor = make_processor(image_size=112, patch_size=8)
    model = make_model(processor, patch_size=8)
    config = LoraConfig(r=8, target_modules=target, use_dora=use_dora)
    estimate = estimate_memory(model.config, config, dtype=torch.float32, load_in_4bit=False, samples=3)
    adapted = get_peft_model(model, config)
    assert estimate.weights == 4 * sum(p.numel() for p in adapted.parameters() if not p.requires_grad)
    parameters = {parameter.data_ptr() for parameter in adapted.parameters()}
    graph = weakref.WeakSet()

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.storage = tensor.untyped_storage()
            graph.add(self)

    batch = make_training_batch(make_rows(3), processor=processor)
    labels = batch.pop("labels")
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: None):
        output = adapted.train()(**batch, use_cache=False, logits_to_keep=labels != -100)
        sizes = {kept.storage.data_ptr(): kept.storage.nbytes() for kept in graph}
        del output  # the graph disappears with it
    real = sum(size for address, size in sizes.items() if address not in parameters)
    assert estimate.activations == pytest.approx(real, rel=0.25)


@pytest.mark.faults  # six seconds; test_what_is_kept_is_what_a_real_step_keeps has DoRA at a small shape
def test_dora_keeps_copies_of_weights_once_and_not_per_sample() -> None:
    options = {"dtype": torch.bfloat16, "load_in_4bit": True, "samples": 4}
    dora = LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS, use_dora=True)
    kept, plain = (
        estimate_memory(make_base_config(PALIGEMMA_3B), config, **options).activations for config in (dora, lora())
    )
    assert plain < kept < 2.5 * plain


@pytest.mark.slow
def test_checkpointing_keeps_less() -> None:
    model = make_model(make_processor(image_size=112, patch_size=8), patch_size=8, layers=4)
    options = {"dtype": torch.float32, "load_in_4bit": False, "samples": 1}
    seeing = LoraConfig(r=8, target_modules=f"{LANGUAGE_MODEL_LINEARS}|{VISION_ATTENTION}")
    kept = [
        [
            estimate_memory(model.config, config, **options, gradient_checkpointing=checkpointing).activations
            for config in (lora(), seeing)
        ]
        for checkpointing in (False, True)
    ]
    assert all(after < 0.5 * before for before, after in zip(*kept, strict=True))
    siglips_inputs = 4 * 196 * 128 * 4  # of its layers, float32
    assert 0.8 * siglips_inputs < kept[1][1] - kept[1][0] < 3 * siglips_inputs


def test_what_does_not_fit_comes_with_a_remedy() -> None:
    estimate = MemoryEstimate(weights=3 * 10**9, adapter=10**8, optimizer=10**8, activations=8 * 10**9, samples=8)
    assert str(estimate) == (
        "memory, about 11.2 GB: weights 3.0, adapter 0.1, optimizer 0.1, activations of 8 samples 8.0"
    )
    assert advise(estimate, 16 * 10**9) is None
    assert "unlikely to fit in 8.0 GB: lower `per_device_train_batch_size` to 4 or less" in str(
        advise(estimate, 8 * 10**9)
    )
    assert "`load_in_4bit` true" in str(advise(estimate, 3 * 10**9))
