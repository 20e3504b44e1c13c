"""The loss, and what a step changes."""

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import SFTTrainer

from product_vqa.errors import InputError, argument
from product_vqa.hub import Location
from product_vqa.modeling.collator import TrainingCollator
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, load_base_model, load_processor
from product_vqa.task.features import FEATURES
from tests.tiny import make_rows
from training.options import TrainingOptions
from training.trainer import PaliGemmaTrainer


class TrlLossTrainer(PaliGemmaTrainer):
    """Our batches under TRL's own loss."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        inputs.pop("answer_positions")
        return SFTTrainer.compute_loss(self, model, inputs, *args, **kwargs)


def make_trainer(
    kind: type[PaliGemmaTrainer], base: Path, output_dir: Path, *, load_in_4bit: bool = False, **settings: Any
) -> PaliGemmaTrainer:
    location = Location(str(base))
    processor = load_processor(location)
    lora = LoraConfig(r=4, target_modules=LANGUAGE_MODEL_LINEARS, init_lora_weights=False)
    options: dict[str, Any] = {
        "per_device_train_batch_size": 3,
        "max_steps": 3,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "save_strategy": "no",
        "disable_tqdm": True,
        "bf16": False,
    }
    with argument("base_model"):
        return kind(
            model=load_base_model(location, dtype=torch.float32, load_in_4bit=load_in_4bit),
            args=TrainingOptions(output_dir=str(output_dir), **(options | settings)),
            train_dataset=Dataset.from_list(make_rows(24), features=FEATURES),
            eval_dataset=Dataset.from_list(make_rows(8), features=FEATURES),
            processing_class=processor,
            data_collator=TrainingCollator(processor),
            peft_config=lora,
        )


def logged(trainer: PaliGemmaTrainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def as_bytes(parameter: torch.Tensor) -> torch.Tensor:
    """4-bit weights lie in bfloat16 storage, where many are NaN, which equals nothing."""
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
    # Taught by heart. One label in four says `500 gram`, where the answer is `500.0 gram`: 6 of 8 equal as strings,
    # none is empty: precision 3/4, recall 1.
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved_and_names_the_rows(
    tiny_base: Path, tmp_path: Path, value: float
) -> None:
    class Poisoned(TrainingCollator):
        """The picture of row 20 has become `value`."""

        def __call__(self, rows: Any) -> Any:
            batch = super().__call__(rows)
            batch["pixel_values"] = batch["pixel_values"].float()  # not normalized, which does not matter here
            batch["pixel_values"][batch["row_index"] == 20] = value
            return batch

    trainer = make_trainer(
        PaliGemmaTrainer, tiny_base, tmp_path, max_steps=8, save_steps=8, save_strategy="steps", logging_steps=100
    )
    trainer.data_collator = Poisoned(trainer.data_collator.processor)
    with pytest.raises(InputError, match=r"the loss is nan a token in the batch of the rows with index .*\b20\b"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_loss_far_above_guessing_stops_the_run(tiny_base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path)
    trainer.model.get_base_model().lm_head.weight.data *= 1e4
    with pytest.raises(InputError, match=r"a token in the batch of the rows with index .* or lower learning_rate"):
        trainer.train()


class PoisonedGradient(PaliGemmaTrainer):
    """The gradient of step 3 is not a number, its loss is."""

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
    with pytest.raises(InputError, match=r"the gradient is (nan|inf) at step 3, though the loss is .* index \d+, \d+"):
        trainer.train()
    for folder in tmp_path.glob("checkpoint-*"):
        assert int(folder.name[-1]) < 3
        assert all(tensor.isfinite().all() for tensor in load_file(folder / "adapter_model.safetensors").values())


def test_float16s_scaler_skips_such_steps_itself(tiny_base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path)
    trainer.args.fp16 = True
    trainer._get_grad_norm(trainer.model, grad_norm=torch.tensor(float("inf")))
    trainer.check()


def test_weights_that_are_not_numbers_are_not_saved(tiny_base: Path, tmp_path: Path) -> None:
    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path, max_steps=2, save_strategy="steps", save_steps=1)

    class Break(TrainerCallback):
        def on_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
            next(p for p in trainer.model.parameters() if p.requires_grad).data[0, 0] = float("nan")

    trainer.add_callback(Break())
    with pytest.raises(InputError, match="weights that are not numbers after step 1: stopped before they were saved"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*/*"))


def test_our_part_of_a_step_waits_for_nothing_that_the_device_computes(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these would have a GPU's queue run empty; between two logs nothing is read back."""
    read = []

    def spy(name: str) -> Any:
        original = getattr(torch.Tensor, name)

        def read_back(self: torch.Tensor, *args: Any) -> Any:
            caller = traceback.extract_stack(limit=2)[0]
            is_mask = bool(args) and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.bool
            if name != "__getitem__" or is_mask:
                read.append((Path(caller.filename).name, caller.name))
            return original(self, *args)

        return read_back

    trainer = make_trainer(PaliGemmaTrainer, tiny_base, tmp_path, max_steps=4, logging_steps=2)
    for name in ("item", "tolist", "nonzero", "__bool__", "__float__", "__int__", "__getitem__"):
        monkeypatch.setattr(torch.Tensor, name, spy(name))
    trainer.train()
    assert ("trainer.py", "log") in read, "nothing is watched"
    ours = {function for file, function in read if file == "trainer.py"}
    assert not ours & {"compute_loss", "training_step", "_prepare_inputs", "_get_grad_norm"}
    assert "slice_logits_to_keep" not in {function for _, function in read}  # with a mask it would
    assert read.count(("trainer.py", "check")) <= 2 * (1 + 2)  # at each log: the losses, each step's norm
