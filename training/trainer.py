"""TRL's SFTTrainer for PaliGemma: our batches, and logits only where there is something to learn."""

import logging
import math
import time
from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from datasets import Dataset
from torch.distributed.tensor import DTensor
from torch.utils.data import RandomSampler, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints, set_seed
from trl import SFTTrainer

from product_vqa.errors import InputError
from product_vqa.modeling.collator import IGNORED, normalize_images
from product_vqa.task.features import FEATURES
from product_vqa.workers import TIMEOUT_S
from training.checkpoints import find_damage, remove_checkpoint, save_manifest
from training.evaluation import Answered, answer_sample, score, scores_at
from training.options import samples_per_step, steps_per_epoch
from training.preemption import PreemptedError, SaveOnSigterm

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _MicroBatch:
    """What it came to; nobody has looked at it yet, for looking costs a GPU its lead."""

    step: int
    loss: torch.Tensor  # a token
    row_indexes: torch.Tensor | None


class PaliGemmaTrainer(SFTTrainer):
    """SFTTrainer over rows as published; `data_collator` makes them into batches.

    Which samples an optimizer step learns from depends on the seed and on their number alone, not on how processes,
    batches and accumulation share them.
    """

    def _set_signature_columns_if_needed(self) -> None:
        # The rows go to the collator as they are: TRL would keep `image` and drop the question and the answer.
        self._signature_columns = list(FEATURES)

    def __init__(
        self, *args: Any, preemption: SaveOnSigterm | None = None, run: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """`run` is written into the manifest of every checkpoint (see `training.checkpoints`)."""
        self.answered: list[Answered] = []  # of the last evaluation
        self._row_indexes: torch.Tensor | None = None
        self._unchecked: list[_MicroBatch] = []
        self._unchecked_norms: list[tuple[int, torch.Tensor | float]] = []  # of each step's gradient
        self._preemption = preemption or SaveOnSigterm()
        self._run = run or {}
        self._saved_step: int | None = None
        super().__init__(*args, **kwargs)
        plugin = self.args.deepspeed_plugin
        if plugin is None or plugin.zero_stage != 3:  # which gathers parameters of one dtype only
            # TRL makes an adapter on a 4-bit base bfloat16, in which an update below 1/256 of a weight is lost.
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        # Above this it is worse than guessing by far: ln(vocabulary) is what guessing has.
        self._highest_loss = 3 * math.log(self.model.config.get_text_config().vocab_size)
        if preemption is not None:
            self.add_callback(preemption)
        self.add_callback(_Watch(self))
        self._clock = _Clock()
        self.add_callback(self._clock)

    # ---- Which samples a step takes --------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """An epoch in whole steps: its last one is filled up from another shuffle, or dropped.

        accelerate would fill up each process's last batch, and so train other samples with other numbers of them.
        """
        dataset: Sized = self.train_dataset if train_dataset is None else train_dataset
        steps = steps_per_epoch(self.args, len(dataset))
        return RandomSampler(dataset, num_samples=steps * samples_per_step(self.args))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Where this process has no state of its own, having been one of another number of them, its dropout begins
        a new series rather than that of the first step."""
        if checkpoint is not None:
            set_seed((self.args.seed + 1000 * self.state.global_step + self.args.process_index) % 2**32)
        super()._load_rng_state(checkpoint)

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        trained = super()._init_training_state(*args)
        _, _, _, checkpoint, _ = args
        self._folders = [Path(self.args.output_dir), *([Path(checkpoint).parent] if checkpoint else [])]
        self._locate_best()
        return trained

    def _locate_best(self) -> None:
        """The best checkpoint is next to the others, wherever that folder was when its path was written."""
        name = f"checkpoint-{self.state.best_global_step}"
        if self.state.best_global_step:
            found = (str(folder / name) for folder in self._folders if (folder / name).is_dir())
            self.state.best_model_checkpoint = next(found, None)

    def _run_epoch(self, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            # A finished run that is resumed: transformers would make one step more.
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        dataloader = super()._get_dataloader(*args, **kwargs)
        if self.args.dataloader_num_workers:  # a hang becomes an error; transformers has no setting for it
            getattr(dataloader, "base_dataloader", dataloader).timeout = TIMEOUT_S
        return dataloader

    # ---- Time, logs ------------------------------------------------------------------------------------------------

    def minutes(self) -> float:
        """How long it has been trained, with the runs before it that it resumed."""
        return self._clock.minutes()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, values in metrics.items():  # tensors of this process, which nobody has looked at yet
            if values and isinstance(values[0], torch.Tensor):
                metrics[name] = [self.accelerator.gather(torch.stack(values).mean()).mean().item()]
        logs["minutes"] = round(self.minutes(), 3)
        super().log(logs, start_time)
        del logs["minutes"]  # `evaluate` returns these: it is no metric

    # ---- Losses, gradients, weights --------------------------------------------------------------------------------

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self._row_indexes = inputs.pop("row_index", None)
        inputs = super()._prepare_inputs(inputs)
        if not isinstance(pixel_values := inputs["pixel_values"], torch.Tensor):  # an array: a worker process made it
            pixel_values = torch.from_numpy(pixel_values)
            if self.args.device.type == "cuda":
                pixel_values = pixel_values.pin_memory()  # from pageable memory the copy would wait for the queue
            pixel_values = pixel_values.to(self.args.device, non_blocking=True)
        inputs["pixel_values"] = normalize_images(pixel_values, processor=self.processing_class, dtype=torch.float32)
        return inputs

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross entropy summed over answer and end tokens, over the number of them in the whole accumulated batch.

        Only about 7 of some 270 positions carry a label, so only their logits are made: at a vocabulary of 257k this
        saves 287 MB and 0.57 TFLOP a row. Equal to TRL's own loss, which without Triton scores every position.

        The positions come from the collator: to find them in `labels` here would make a GPU wait.
        """
        assert "token_type_ids" in inputs, "without token_type_ids the prefix mask is silently another one"
        positions = inputs["answer_positions"]  # (B, A), whose logits predict the label one further on
        targets = inputs["labels"].gather(1, positions + 1)
        outputs = model(
            **{name: value for name, value in inputs.items() if name not in ("labels", "answer_positions")},
            use_cache=False,
            logits_to_keep=positions,
        )
        # Rows of shorter answers have positions without a label at their end.
        number = (targets != IGNORED).sum()
        loss = F.cross_entropy(
            outputs.logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        if self.model.training:
            self._unchecked.append(
                _MicroBatch(self.state.global_step + 1, (loss / number).detach(), self._row_indexes)
            )
        # The whole batch's number counts every process, and DDP averages over them.
        all_processes = self.accelerator.num_processes if num_items_in_batch is not None else 1
        right = (outputs.logits.argmax(dim=-1) == targets).sum() / number
        self._metrics["train" if self.model.training else "eval"]["mean_token_accuracy"].append(right.detach())
        loss = loss / (number if num_items_in_batch is None else num_items_in_batch) * all_processes
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not self.args.fp16:  # whose scaler skips such steps itself
            self._unchecked_norms.append((self.state.global_step + 1, norm))
        return norm

    def check(self) -> None:
        """Raises InputError, naming the rows, if a loss or a gradient since the last call is not a number, or a loss
        has exploded."""
        batches, self._unchecked = self._unchecked, []
        norms, self._unchecked_norms = self._unchecked_norms, []
        losses = torch.stack([batch.loss for batch in batches]).tolist() if batches else []
        by_step = sorted({batch.step for batch in batches} | {step for step, _ in norms})
        for step in by_step:  # the first fault is the cause of all later ones
            of_step = [(batch, loss) for batch, loss in zip(batches, losses, strict=True) if batch.step == step]
            for batch, loss in of_step:
                if not loss <= self._highest_loss:
                    raise InputError(
                        f"the loss is {loss:.4g} a token in the batch of the rows with index {_indexes([batch])}, at "
                        f"step {step}: stopped, and nothing of it was saved. Look at these rows, or lower "
                        "learning_rate or max_grad_norm; rerun, it resumes from the last checkpoint"
                    )
            norm = next((norm for number, norm in norms if number == step), 0.0)
            norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
            if not math.isfinite(norm):
                rows = _indexes([batch for batch, _ in of_step])
                raise InputError(
                    f"the gradient is {norm:.4g} at step {step}, though the loss is a number, in the batches of the "
                    f"rows with index {rows}: stopped, and nothing of it was saved. Try --dtype float32 --bf16 false, "
                    "or lower learning_rate; rerun, it resumes from the last checkpoint"
                )

    def check_weights(self) -> None:
        """Raises InputError if a weight of the adapter is not a finite number."""
        weights = [
            parameter.to_local() if isinstance(parameter, DTensor) else parameter.detach()
            for parameter in self.model.parameters()
            if parameter.requires_grad
        ]
        finite = torch.stack([weight.isfinite().all() for weight in weights]).all()
        if not self.accelerator.gather(finite.float()).bool().all():
            raise InputError(
                f"the adapter has weights that are not numbers after step {self.state.global_step}: stopped before "
                "they were saved. Lower learning_rate; rerun, it resumes from the last checkpoint"
            )

    # ---- Evaluation ------------------------------------------------------------------------------------------------

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """TRL's, and with it the task's own score: eval_f1, eval_f1_quantity, eval_exact_ENTITY.

        What TRL measures is teacher-forced; these answers are generated by the code that predicts.
        """
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        self.answered = self._answer(self.eval_dataset)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in score(self.answered).items()})
        return output

    def score_rows(self, rows: Dataset) -> dict[str, float]:
        """The task's score of other rows than the evaluation's, under the same names. All processes call it."""
        return {f"eval_{name}": value for name, value in score(self._answer(rows)).items()}

    def _answer(self, rows: Dataset) -> list[Answered]:
        return answer_sample(
            self.model,
            rows,
            processor=self.processing_class,
            batch_size=self.args.per_device_eval_batch_size,
            before_batch=self._stop_evaluation,
        )

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        self._stop_evaluation()
        return super().prediction_step(*args, **kwargs)

    def _stop_evaluation(self) -> None:
        self._preemption.stop_evaluation(self.args.device)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self._preemption.is_stopped and self._saved_step == self.state.global_step:
            return  # called again for the epoch, which did not end
        try:
            super()._maybe_log_save_evaluate(*args, **kwargs)
        except PreemptedError:
            # `should_evaluate` stays set, is saved with the checkpoint, and `finish_evaluation` finds it there.
            self._metrics["eval"].clear()
            self.model.train()
            self._preemption.stop(self.control)
            self._save_checkpoint(self.model, None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def finish_evaluation(self) -> None:
        """Make up for the evaluation in which the resumed run was stopped, so that it knows the same scores."""
        step, control = self.state.global_step, self.state.stateful_callbacks.get("TrainerControl", {})
        is_due = control.get("args", {}).get("should_evaluate", False)
        if self.args.eval_strategy == "epoch":  # after the checkpoint of the epoch's last step
            is_due = step % steps_per_epoch(self.args, len(self.train_dataset)) == 0
        if not (step and is_due) or scores_at(step, self.state):
            return
        self.control.should_evaluate = True
        try:
            self._determine_best_metric(metrics=self._evaluate(None, None), trial=None)
        except PreemptedError:  # the checkpoint that it came from says all there is to say
            self._preemption.is_stopped = self.control.should_training_stop = True
        self._locate_best()

    # ---- Checkpoints -----------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The trainer's, completed by a manifest before any older checkpoint is deleted."""
        self.check()
        self.check_weights()
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        if self.args.should_save:  # one of a run that went further than where it was resumed
            remove_checkpoint(folder)
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()  # each process has written its part
        if self.args.should_save:
            save_manifest(folder, run=self._run)
            rotate_checkpoints(
                self.args.output_dir, limit, best_model_checkpoint=self.state.best_model_checkpoint, use_mtime=True
            )
        self.accelerator.wait_for_everyone()  # a process that ends makes torchrun end the others
        self._saved_step = self.state.global_step

    def _load_best_model(self) -> None:
        if damage := find_damage(Path(self.state.best_model_checkpoint)):
            raise InputError(f"the best checkpoint cannot be loaded: {damage}; rerun to train it again")
        super()._load_best_model()

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: `training.push` pushes, and no pickle and no optimizer state."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the card is written once, from model_card.md. TRL's would stand in every checkpoint, empty."""


def _indexes(batches: list[_MicroBatch]) -> str:
    found = [batch.row_indexes.tolist() for batch in batches if batch.row_indexes is not None]
    return ", ".join(str(index) for indexes in found for index in indexes) or "unknown"


class _Clock(TrainerCallback):
    """Counts on from the run that is resumed."""

    def __init__(self) -> None:
        self._before, self._began = 0.0, time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = time.perf_counter()
        self._before = next((entry["minutes"] for entry in reversed(state.log_history) if "minutes" in entry), 0.0)

    def minutes(self) -> float:
        return self._before + (time.perf_counter() - self._began) / 60


class _Watch(TrainerCallback):
    """Looks at losses and gradients before they are logged or the model is evaluated."""

    def __init__(self, trainer: PaliGemmaTrainer) -> None:
        self.trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if control.should_log or control.should_save or control.should_evaluate or control.should_training_stop:
            self.trainer.check()


class ResumeEvaluation(TrainerCallback):
    """Added last: the others must know where the run resumes when they are told of its scores."""

    def __init__(self, trainer: PaliGemmaTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        self.trainer.finish_evaluation()
