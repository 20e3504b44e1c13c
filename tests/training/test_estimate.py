"""The estimates of memory and time: by hand at the real shape, and against what a real forward pass keeps."""

import weakref
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from product_vqa.errors import InputError
from product_vqa.modeling.collator import make_training_batch, normalize_images
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS
from quickstart.pretraining.small_paligemma import make_model, make_processor
from tests.commands import call
from tests.real_shape import paligemma_3b_config
from tests.tiny import make_rows
from training import estimate
from training.compute import flop_per_row, hours
from training.memory import NF4_BYTES, MemoryEstimate, advice, estimate_memory


def lora() -> LoraConfig:
    return LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS)


def test_the_real_3b_shape_by_hand() -> None:
    config = paligemma_3b_config()
    estimate = estimate_memory(config, lora(), dtype=torch.bfloat16, load_in_4bit=True, rows=2, optim="adamw_8bit")
    layer = 2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 16384  # q and o, k and v, gate and up and down
    whole = 2_923_466_480  # parameters of paligemma-3b-pt-224, lm_head being the embedding
    assert estimate.weights == pytest.approx(2 * whole - 18 * layer * (2 - NF4_BYTES), rel=1e-3)
    assert estimate.adapter == 9_805_824 * 8
    assert estimate.optimizer == 9_805_824 * 2
    # A row has 276 positions; each layer keeps some 95,000 numbers of 2 bytes for each of them.
    assert estimate.activations / 2 == pytest.approx(276 * 18 * 95_000 * 2, rel=0.15)


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("target", [LANGUAGE_MODEL_LINEARS, r".*language_model.*\.(q|v)_proj"])
def test_what_is_kept_is_what_a_real_step_keeps(target: str, use_dora: bool) -> None:
    processor = make_processor(image_size=112, patch_size=8)
    model = make_model(processor, patch_size=8)
    config = LoraConfig(r=8, target_modules=target, use_dora=use_dora)
    estimate = estimate_memory(model.config, config, dtype=torch.float32, load_in_4bit=False, rows=3)
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
        del output  # and the graph with it
    real = sum(size for address, size in sizes.items() if address not in parameters)
    assert estimate.activations == pytest.approx(real, rel=0.25)


def test_dora_keeps_copies_of_weights_once_and_not_for_every_row() -> None:
    options = {"dtype": torch.bfloat16, "load_in_4bit": True, "rows": 4}
    dora = LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS, use_dora=True)
    kept, plain = (estimate_memory(paligemma_3b_config(), config, **options).activations for config in (dora, lora()))
    assert plain < kept < 2.5 * plain


def test_checkpointing_keeps_less() -> None:
    model = make_model(make_processor(image_size=112, patch_size=8), patch_size=8, layers=4)
    estimates = [
        estimate_memory(
            model.config, lora(), dtype=torch.float32, load_in_4bit=False, rows=1, gradient_checkpointing=checkpointing
        )
        for checkpointing in (False, True)
    ]
    assert estimates[1].activations < 0.5 * estimates[0].activations


def test_what_will_not_fit_comes_with_a_remedy() -> None:
    estimate = MemoryEstimate(weights=3 * 10**9, adapter=10**8, optimizer=10**8, activations=8 * 10**9, rows=8)
    assert str(estimate) == (
        "memory, about 11.2 GB: weights 3.0, adapter 0.1, optimizer 0.1, activations of 8 rows 8.0"
    )
    assert advice(estimate, 16 * 10**9) is None
    assert "--per_device_train_batch_size 4 or less" in str(advice(estimate, 8 * 10**9))
    assert "--load_in_4bit true" in str(advice(estimate, 3 * 10**9))


def test_a_row_at_the_real_3b_shape_costs_what_it_does_by_hand() -> None:
    image, text = 256, 20
    siglip = 27 * (4 * 1152 * 1152 + 2 * 1152 * 4304) + 3 * 14 * 14 * 1152  # multiply-adds of a patch
    layers = 18 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 16384)  # of a token
    products = 2 * (image * siglip + 2 * (image + text) * layers)  # the language model there and back
    counted = flop_per_row(paligemma_3b_config(), lora())
    assert products < counted < 1.08 * products  # attention, the adapter, the projector and lm_head are the rest
    assert counted / 1e12 == pytest.approx(2.45, abs=0.05)
    again = flop_per_row(paligemma_3b_config(), lora(), gradient_checkpointing=True)
    assert again - counted == pytest.approx(2 * (image + text) * layers, rel=0.05)
    assert hours(1e18, tflops=100) == pytest.approx(1e18 / 40e12 / 3600)


def test_the_command_says_what_a_config_will_take(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", "training/configs/quickstart.yaml", "--model_name_or_path", tiny_base]
    call(estimate.main, monkeypatch, *arguments, "--train_rows", 1000)
    memory, compute = capsys.readouterr().out.splitlines()
    assert memory.startswith("memory, about 0.")
    assert "TFLOP a row: hours for 3,000 rows on one GPU" in compute  # three epochs
    with pytest.raises(InputError, match="--train_rows must be at least 1"):
        call(estimate.main, monkeypatch, *arguments, "--train_rows", 0)
