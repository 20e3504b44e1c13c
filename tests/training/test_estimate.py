"""The estimate of a run's compute, worked out by hand at the real shape, and the command."""

from pathlib import Path

import pytest
from peft import LoraConfig

from benchmarks.base_models import PALIGEMMA_3B, make_base_config
from product_vqa.errors import InputError
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, PROJECTOR_LINEAR, VISION_ATTENTION
from quickstart.pretraining.small_paligemma import make_model, make_processor
from tests.commands import call
from training import estimate
from training.estimate import count_flop, estimate_hours
from training.options import TrainingOptions

IMAGE, TEXT = 256, 20  # tokens of a sample
LAYERS = 18 * (2 * 2048 * 2048 + 2 * 2048 * 256 + 3 * 2048 * 16384)  # multiply-adds per token, at the real shape


@pytest.mark.slow
def test_a_sample_at_the_real_3b_shape_costs_what_it_does_by_hand() -> None:
    lora = LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS)
    siglip = 27 * (4 * 1152 * 1152 + 2 * 1152 * 4304) + 3 * 14 * 14 * 1152  # multiply-adds per patch
    products = 2 * (IMAGE * siglip + 2 * (IMAGE + TEXT) * LAYERS)  # the language model forward and backward
    counted = count_flop(make_base_config(PALIGEMMA_3B), lora)
    assert products < counted < 1.08 * products  # attention, the adapter, the projector and lm_head are the rest
    assert counted / 1e12 == pytest.approx(2.45, abs=0.05)
    assert estimate_hours(1e18, tflops=100) == pytest.approx(1e18 / 40e12 / 3600)


@pytest.mark.faults  # six seconds; the next one has a small shape
def test_checkpointing_at_the_real_3b_shape_repeats_the_forward_of_the_layers() -> None:
    lora = LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS)
    plain, repeated = (
        count_flop(make_base_config(PALIGEMMA_3B), lora, gradient_checkpointing=checkpointing)
        for checkpointing in (False, True)
    )
    assert repeated - plain == pytest.approx(2 * (IMAGE + TEXT) * LAYERS, rel=0.05)


def test_siglip_runs_backward_where_the_adapter_changes_it() -> None:
    config = make_model(make_processor(image_size=112, patch_size=8), patch_size=8, layers=2).config
    targets = (LANGUAGE_MODEL_LINEARS, PROJECTOR_LINEAR, VISION_ATTENTION)
    loras = [LoraConfig(r=1, target_modules="|".join(targets[:number])) for number in (1, 2, 3)]
    language, projector, vision = (count_flop(config, lora) for lora in loras)
    products = 2 * 196 * 2 * (4 * 128 * 128 + 2 * 128 * 384)  # of SigLIP's weights, forward
    assert projector - language < 0.2 * products  # backward to the inputs of the first layer
    assert products < vision - language < 1.5 * products  # backward to the inputs of its layers, but for the first
    repeated = [count_flop(config, lora, gradient_checkpointing=True) - count_flop(config, lora) for lora in loras]
    assert repeated[1] == pytest.approx(repeated[0], rel=0.02)
    assert repeated[2] - repeated[0] == pytest.approx(products, rel=0.15)  # and patches, and the projector


@pytest.mark.slow
def test_the_command_estimates_a_config(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", "training/configs/quickstart.yaml", "--model_name_or_path", tiny_base]
    call(estimate.main, monkeypatch, *arguments, "--train_rows", 1000)
    memory, compute = capsys.readouterr().out.splitlines()
    assert memory.startswith("memory, about 0.")
    assert "TFLOP per sample; hours for 2,000 samples on one GPU" in compute  # two epochs
    call(estimate.main, monkeypatch, *arguments, "--max_train_samples", 100)
    assert "hours for 200 samples" in capsys.readouterr().out
    with pytest.raises(InputError, match="--train_rows must be at least 1"):
        call(estimate.main, monkeypatch, *arguments, "--train_rows", 0)


@pytest.mark.slow
def test_the_command_estimates_on_a_machine_with_several_gpus(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a training is refused where one process sees them all."""
    monkeypatch.setattr(TrainingOptions, "n_gpu", 2)
    call(estimate.main, monkeypatch, "--dataset_name", "user/dataset", "--model_name_or_path", tiny_base)
    assert capsys.readouterr().out.startswith("memory, about ")
