"""The loss, and what a step changes."""

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import SFTTrainer

from tests.tiny import make_rows
from tests.training.runs import make_trainer
from training.trainer import PaliGemmaTrainer

pytestmark = pytest.mark.slow


class TrlLossTrainer(PaliGemmaTrainer):
    """Our batches with TRL's own loss."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        del inputs["answer_positions"], inputs["row_index"]
        return SFTTrainer.compute_loss(self, model, inputs, *args, **kwargs)


def logged(trainer: PaliGemmaTrainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def as_bytes(parameter: torch.Tensor) -> torch.Tensor:
    """4-bit weights are stored as bfloat16, where many of them are NaN, which equals nothing."""
    return parameter.detach().contiguous().view(torch.uint8)


def test_the_loss_is_trls_with_accumulation_and_answers_of_unequal_length(tiny_base: Path, tmp_path: Path) -> None:
    ours = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path, gradient_accumulation_steps=2)
    theirs = make_trainer(TrlLossTrainer, tiny_base, tmp_path, gradient_accumulation_steps=2)
    for trainer in (ours, theirs):
        trainer.train()
    assert len(logged(ours, "loss")) == 3
    assert logged(ours, "loss") == pytest.approx(logged(theirs, "loss"), abs=1e-5)
    assert logged(ours, "grad_norm") == pytest.approx(logged(theirs, "grad_norm"), rel=1e-4)
    assert ours.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], abs=1e-5)


def test_evaluation_returns_the_tasks_own_score(tiny_base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        PaliGemmaTrainer, tiny_base, tmp_path, max_steps=100, learning_rate=1e-2, per_device_train_batch_size=4,
        logging_steps=50, eval_strategy="steps", eval_steps=50, save_strategy="steps", save_steps=50,
        metric_for_best_model="f1", load_best_model_at_end=True,
    )  # fmt: skip
    trainer.train()
    metrics = trainer.evaluate()
    # All answers are memorized. One label in four is `500 gram`, where the answer is `500.0 gram`: 6 of 8 are equal as
    # strings and none is empty, so precision is 3/4 and recall 1.
    assert metrics["eval_f1_quantity"] == 1.0
    assert metrics["eval_f1"] == pytest.approx(6 / 7)
    assert {name for name in metrics if name.startswith("eval_exact_")} == {
        "eval_exact_item_weight", "eval_exact_voltage", "eval_exact_width", "eval_exact_maximum_weight_recommendation",
    }  # fmt: skip
    assert trainer.state.best_metric == pytest.approx(6 / 7)


def test_logits_are_made_at_answer_and_end_tokens_only(tiny_base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path)
    batch = trainer.data_collator(make_rows(4))
    _, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    longest = max(7, 7, 5, 7)  # 500.0 gram, 230.0 volt, 1.5 kilogram, 12.25 inch: tokens with the end
    assert outputs.logits.shape == (4, longest, trainer.model.config.text_config.vocab_size)


@pytest.mark.parametrize("load_in_4bit", [False, True], ids=["fp32", "nf4"])
def test_a_step_changes_every_adapter_weight_and_nothing_else(
    tiny_base: Path, tmp_path: Path, load_in_4bit: bool
) -> None:
    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path, load_in_4bit=load_in_4bit, max_steps=1)
    before = {name: as_bytes(parameter).clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    adapter, frozen = 0, 0
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:  # an update below 1/256 of a weight is lost in bfloat16
            assert parameter.dtype == torch.float32, name
        same = torch.equal(as_bytes(parameter), before[name])
        if "lora_" in name:
            assert ".language_model.layers." in name
            assert not same, f"{name} did not change"
            adapter += 1
        else:
            assert same, f"{name} changed"
            frozen += 1
    assert adapter == 2 * 7 * 2
    assert frozen > 40


def test_a_batch_without_token_types_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path)
    batch = trainer.data_collator(make_rows(2))
    del batch["token_type_ids"]
    with pytest.raises(AssertionError, match="token_type_ids"):
        trainer.compute_loss(trainer.model, batch)


def test_our_part_of_a_step_never_waits_for_the_device(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these calls would empty a GPU's queue; between two logs nothing is read back."""
    read: list[tuple[str, str]] = []

    def spy(name: str) -> Any:
        original = getattr(torch.Tensor, name)

        def read_back(self: torch.Tensor, *args: Any) -> Any:
            caller = traceback.extract_stack(limit=2)[0]
            is_mask = bool(args) and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.bool
            if name != "__getitem__" or is_mask:
                read.append(("/".join(Path(caller.filename).parts[-2:]), caller.name))
            return original(self, *args)

        return read_back

    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path, max_steps=4, logging_steps=2)
    for name in ("item", "tolist", "nonzero", "__bool__", "__float__", "__int__", "__getitem__"):
        monkeypatch.setattr(torch.Tensor, name, spy(name))
    trainer.train()
    ours = {(file, function) for file, function in read if file.startswith("training/")}
    assert ours == {
        ("training/trainer.py", "log"), ("training/divergence.py", "check"), ("training/divergence.py", "_to_float"),
    }  # fmt: skip
    assert "slice_logits_to_keep" not in {function for _, function in read}  # with a mask it would
    # At each of the two logs: the losses, and the norm of each step.
    assert read.count(("training/divergence.py", "check")) == 2
    assert read.count(("training/divergence.py", "_to_float")) == 2 * 2


def test_gradient_checkpointing_does_not_run_siglip_backward(tiny_base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path, gradient_checkpointing=True)
    base = trainer.model.get_base_model()
    features = base.get_image_features(torch.zeros(1, 3, 28, 28)).pooler_output
    assert not features.requires_grad
    trainer.train()
    assert all(parameter.grad is None for parameter in base.model.vision_tower.parameters())
