"""Losses, gradients and weights that are not finite stop a run before they are saved."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from product_vqa.errors import InputError
from product_vqa.modeling.collator import TrainingCollator
from product_vqa.task.schema import CHALLENGE
from tests.training.runs import make_trainer
from training.divergence import DivergenceDetector
from training.trainer import PaliGemmaTrainer

pytestmark = pytest.mark.slow


def test_the_first_failure_is_reported_with_the_rows_of_its_batch() -> None:
    detector = DivergenceDetector(vocab_size=1000)  # guessing has a loss of ln(1000) = 6.9
    for step, loss in ((1, 20.0), (2, 21.0), (3, float("nan"))):
        detector.add_loss(torch.tensor(loss), step=step, row_index=torch.tensor([10 * step, 10 * step + 1]))
        detector.add_gradient_norm(float("inf"), step=step + 1)
    with pytest.raises(InputError, match=r"the loss is 21 per token at step 2, in the batch of .* index 20, 21\."):
        detector.check()
    detector.check()  # nothing was added since
    detector.add_loss(torch.tensor(20.0), step=4, row_index=torch.tensor([40]))
    detector.add_gradient_norm(1.0, step=4)
    detector.check()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved_and_names_the_rows(
    tiny_base: Path, tmp_path: Path, value: float
) -> None:
    class Poisoned(TrainingCollator):
        """The image of row 20 is `value` in every pixel."""

        def __call__(self, rows: Any) -> Any:
            batch = super().__call__(rows)
            batch["pixel_values"] = batch["pixel_values"].float()  # not normalized, which is irrelevant here
            batch["pixel_values"][batch["row_index"] == 20] = value
            return batch

    trainer = make_trainer(
        PaliGemmaTrainer, tiny_base, tmp_path, max_steps=8, save_steps=8, save_strategy="steps", logging_steps=100
    )
    trainer.data_collator = Poisoned(trainer.data_collator.processor, CHALLENGE)
    with pytest.raises(InputError, match=r"the loss is nan per token at step \d, in the batch of .* index .*\b20\b"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_loss_far_above_guessing_stops_the_run(tiny_base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path)
    trainer.model.get_base_model().lm_head.weight.data *= 1e4
    with pytest.raises(InputError, match=r"per token at step 1, in the batch of .* index .* or lower `learning_rate`"):
        trainer.train()


class PoisonedGradient(PaliGemmaTrainer):
    """The gradient of step 3 is not finite, its loss is."""

    poison = 0.0

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.state.global_step == 2:
            next(p for p in self.model.parameters() if p.requires_grad).grad[0, 0] = self.poison
        return loss


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("settings", [{}, {"max_grad_norm": 0.0}, {"save_steps": 5}], ids=str)
def test_a_gradient_that_is_not_a_number_poisons_no_checkpoint(
    tiny_base: Path, tmp_path: Path, poison: float, settings: dict[str, Any]
) -> None:
    options = {"max_steps": 5, "save_strategy": "steps", "save_steps": 1, "logging_steps": 100, "eval_steps": 5}
    trainer = make_trainer(PoisonedGradient, tiny_base, tmp_path, **(options | settings))
    trainer.poison = poison
    with pytest.raises(InputError, match=r"the gradient norm is (nan|inf) at step 3, though .* index \d+, \d+"):
        trainer.train()
    for folder in tmp_path.glob("checkpoint-*"):
        assert int(folder.name[-1]) < 3
        assert all(tensor.isfinite().all() for tensor in load_file(folder / "adapter_model.safetensors").values())


def test_float16s_scaler_skips_such_steps_itself(tiny_base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PoisonedGradient, tiny_base, tmp_path)
    trainer.poison = float("inf")
    trainer.args.fp16 = True  # only now: accelerate refuses it on a CPU
    trainer.train()  # step 3 is the last: without a scaler the weights are not finite after it
    assert trainer.state.global_step == 3


def test_weights_that_are_not_finite_are_not_saved(tiny_base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path, max_steps=2, save_strategy="steps", save_steps=1)

    class Break(TrainerCallback):
        def on_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
            next(p for p in trainer.model.parameters() if p.requires_grad).data[0, 0] = float("nan")

    trainer.add_callback(Break())
    with pytest.raises(InputError, match=r"weights that are not finite after step 1\. Training stopped before they"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*/*"))
