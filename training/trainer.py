"""TRL's SFTTrainer for PaliGemma: our batches, and logits only at the tokens that are trained."""

from collections.abc import Sized
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from datasets import Dataset
from peft import PeftModel
from safetensors import SafetensorError
from torch.utils.data import RandomSampler, Sampler
from transformers import PaliGemmaProcessor
from transformers.trainer_utils import EvalLoopOutput, rotate_checkpoints, set_seed
from trl import SFTTrainer  # type: ignore[attr-defined]  # exported lazily

from product_vqa.dataset import STORED_FEATURES
from product_vqa.errors import InputError, first_line, library_errors
from product_vqa.modeling.collator import IGNORED, normalize_images
from product_vqa.task.attributes import Schema
from product_vqa.task.features import FEATURES
from product_vqa.workers import TIMEOUT_S
from training.callbacks import Clock, PreemptedError, SaveOnSigterm
from training.checkpoints import find_damage, remove_checkpoint, save_manifest
from training.divergence import DivergenceDetector, check_weights
from training.evaluation import Answered, answer_sample, score, scores_at
from training.examples import show_examples
from training.optimizer_state import checked_restore, checkpoint_errors
from training.options import TrainingOptions, samples_per_step, steps_per_epoch
from training.sample_order import BufferedSampler, BufferedShuffle
from training.streaming import StreamedRows

_NOT_FOR_THE_MODEL = ("labels", "answer_positions", "row_index")


class PaliGemmaTrainer(SFTTrainer):
    """SFTTrainer on rows as they are published; `data_collator` turns them into batches.

    Which samples an optimizer step takes depends on the seed and on their number only, not on how they are divided
    among processes, batches and accumulation.
    """

    args: TrainingOptions
    model: PeftModel
    processing_class: PaliGemmaProcessor
    train_dataset: Dataset | StreamedRows
    eval_dataset: Dataset

    def __init__(
        self,
        *,
        train_dataset: Dataset | StreamedRows,
        shuffle: BufferedShuffle | None = None,
        sigterm: SaveOnSigterm | None = None,
        run: dict[str, Any] | None = None,
        schema: Schema,
        **kwargs: Any,
    ) -> None:
        """`run` is written to the manifest of every checkpoint (see `training.run_config.describe_run`).

        Without `shuffle`, `train_dataset` is shuffled completely; streamed rows need one.
        """
        first_row = train_dataset
        if isinstance(train_dataset, StreamedRows):  # TRL takes a Dataset only; it looks at its first row
            first_row = Dataset.from_list([train_dataset[0]], features=STORED_FEATURES)
        with library_errors():  # of settings that exclude each other
            super().__init__(train_dataset=first_row, **kwargs)
        self.train_dataset = train_dataset
        self._shuffle = shuffle
        self._sampler: BufferedSampler | None = None
        checkpointing: Any = self.args.gradient_checkpointing_kwargs
        if self.args.gradient_checkpointing and not (checkpointing or {}).get("use_reentrant"):
            # TRL makes all embeddings require gradients, which only reentrant checkpointing needs. SigLIP would run
            # backward, and forward twice, though nothing in it is trained.
            base: Any = self.model.get_base_model()
            base.disable_input_require_grads()
        plugin = self.args.deepspeed_plugin
        if plugin is None or plugin.zero_stage != 3:  # ZeRO-3 gathers parameters of one dtype only
            # On a 4-bit base model TRL makes the adapter bfloat16, where an update below 1/256 of a weight is lost.
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        self._run = run or {}
        self._schema = schema
        self._sigterm = sigterm or SaveOnSigterm()
        if sigterm is not None:
            self.add_callback(sigterm)
        self._divergence = DivergenceDetector(vocab_size=self.model.config.get_text_config().vocab_size)
        self._clock = Clock()
        self.add_callback(self._clock)
        self._saved_step: int | None = None

    # ---- One batch -------------------------------------------------------------------------------------------------

    def _set_signature_columns_if_needed(self) -> None:
        # The collator gets complete rows: TRL would keep `image` and drop the question and the answer.
        self._signature_columns: Any = list(FEATURES)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        inputs = super()._prepare_inputs(inputs)
        pixel_values = inputs["pixel_values"]
        if not isinstance(pixel_values, torch.Tensor):  # an array from a data loader worker
            pixel_values = torch.from_numpy(pixel_values)
            if self.args.device.type == "cuda":
                pixel_values = pixel_values.pin_memory()  # a copy from pageable memory would wait for the queue
            pixel_values = pixel_values.to(self.args.device, non_blocking=True)
        inputs["pixel_values"] = normalize_images(pixel_values, processor=self.processing_class, dtype=torch.float32)
        return inputs

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the cross entropy summed over answer and end tokens, divided by their number.

        The number is that of the whole accumulated batch. Only about 7 of some 270 positions have a label, so only
        their logits are computed: at a vocabulary of 257k this saves 287 MB and 0.57 TFLOP per row. The loss equals
        TRL's own, which without Triton computes the logits of every position.

        The collator finds the positions: finding them in `labels` here would make a GPU wait.
        """
        assert "token_type_ids" in inputs, "without token_type_ids transformers silently builds another mask"
        positions = inputs["answer_positions"]  # (B, A); the logits there predict the label one position later
        targets = inputs["labels"].gather(1, positions + 1)
        outputs = model(
            **{name: value for name, value in inputs.items() if name not in _NOT_FOR_THE_MODEL},
            use_cache=False,
            logits_to_keep=positions,
        )
        # Rows with shorter answers end in positions without a label.
        num_tokens = (targets != IGNORED).sum()
        loss_sum = F.cross_entropy(
            outputs.logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        if self.model.training:
            self._divergence.add_loss(
                (loss_sum / num_tokens).detach(), step=self.state.global_step + 1, row_index=inputs.get("row_index")
            )
        accuracy = (outputs.logits.argmax(dim=-1) == targets).sum() / num_tokens
        self._metrics["train" if self.model.training else "eval"]["mean_token_accuracy"].append(accuracy.detach())
        if num_items_in_batch is None:
            loss = loss_sum / num_tokens
        else:  # the number counts the tokens of all processes, and DDP averages the loss over them
            loss = loss_sum / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    # ---- Which samples a step takes --------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """Make an epoch of complete steps: its last step is filled up from another shuffle, or dropped.

        accelerate would fill up the last batch of each process, so that other numbers of processes would train on
        other samples.
        """
        dataset: Sized = self.train_dataset if train_dataset is None else train_dataset
        steps, samples = steps_per_epoch(self.args, len(dataset)), samples_per_step(self.args)
        if self._shuffle is None:
            return RandomSampler(dataset, num_samples=steps * samples)
        self._sampler = BufferedSampler(
            self._shuffle,
            num_steps=steps,
            samples_per_step=samples,
            batch_size=self.args.per_device_train_batch_size,
            num_ranks=self.args.world_size,
            reference=dataset.reference
            if isinstance(dataset, StreamedRows) and self.args.dataloader_num_workers
            else int,
        )
        return self._sampler

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load this process's random state; where the checkpoint has none, because it is of fewer processes, begin a
        new series of random numbers rather than that of the first step."""
        if checkpoint is not None:
            set_seed((self.args.seed + 1000 * self.state.global_step + self.args.process_index) % 2**32)
        with checkpoint_errors(checkpoint):
            super()._load_rng_state(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with checkpoint_errors(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        is_complete = not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        with (
            checkpoint_errors(checkpoint),
            checked_restore(self.optimizer, self.lr_scheduler, is_complete=is_complete),
        ):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with checkpoint_errors(checkpoint):
            super()._load_scaler(checkpoint)

    def _run_epoch(self, **kwargs: Any) -> None:  # type: ignore[override]  # called with keywords only
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            # A finished run that is rerun: transformers would make one more step.
            self.control.should_training_stop = True
            return
        if self._sampler is not None:
            is_resumed = kwargs["epoch"] == kwargs["epochs_trained"] and kwargs["resume_from_checkpoint"] is not None
            self._begin_epoch(
                kwargs["epoch"], batches_done=kwargs["steps_trained_in_current_epoch"] if is_resumed else 0
            )
        super()._run_epoch(**kwargs)

    def _begin_epoch(self, epoch: int, *, batches_done: int) -> None:
        """Read the rows of this process ahead, from the first one that it has not trained on."""
        assert self._shuffle is not None and self._sampler is not None
        self._sampler.set_epoch(epoch)
        if isinstance(self.train_dataset, StreamedRows):
            samples = self._sampler.of_rank(self.args.process_index)
            self.train_dataset.begin(
                samples[batches_done * self.args.per_device_train_batch_size :],
                max_rows=self._shuffle.rows_in_memory(
                    samples_per_step=samples_per_step(self.args), num_ranks=self.args.world_size
                ),
            )

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        dataloader = super()._get_dataloader(*args, **kwargs)
        if self.args.dataloader_num_workers:  # turns a hang into an error; transformers has no setting for it
            getattr(dataloader, "base_dataloader", dataloader).timeout = TIMEOUT_S
        return dataloader

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        with library_errors("`optim`, `optim_args`, `optim_target_modules`"):
            return super().create_optimizer(*args, **kwargs)

    def _determine_best_metric(self, *args: Any, **kwargs: Any) -> Any:
        step, state = self.state.global_step, self.state
        if self.args.save_strategy == "steps" and step % state.save_steps and step < state.max_steps:
            return False  # no checkpoint of this step could be kept, and without it the run would not resume
        with library_errors("`metric_for_best_model`"):
            return super()._determine_best_metric(*args, **kwargs)

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        with library_errors("`lr_scheduler_type`, `lr_scheduler_kwargs`"):
            return super().create_scheduler(*args, **kwargs)

    # ---- Training --------------------------------------------------------------------------------------------------

    def train_unless_stopped(self, checkpoint: str | None = None) -> bool:
        """Train to the end, from a checkpoint if there is one. Returns False if a SIGTERM stopped it."""
        try:
            self.train(resume_from_checkpoint=checkpoint)
        except PreemptedError:  # in an evaluation before the first step
            return False
        finally:
            if isinstance(self.train_dataset, StreamedRows):
                self.train_dataset.end()
        return not self._sigterm.is_stopped

    def request_stop(self) -> None:
        """Save a checkpoint after this step and end the training, as after a SIGTERM. Any thread may call this."""
        self._sigterm.request()

    def minutes(self) -> float:
        """Return the training time, including that of the runs before it that this one resumes."""
        return self._clock.minutes()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, values in metrics.items():  # tensors of this process, which were not read so far
            if values and isinstance(values[0], torch.Tensor):
                metrics[name] = [self.accelerator.gather(torch.stack(values).mean()).mean().item()]
        logs["minutes"] = round(self.minutes(), 3)
        super().log(logs, start_time)
        del logs["minutes"]  # `evaluate` returns the logs, and this is not a metric

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        if self._sigterm.is_stopped and self._saved_step == self.state.global_step:
            return  # called again for the epoch, which did not end
        if grad_norm is not None and not self.args.fp16:  # float16's scaler skips such steps itself
            self._divergence.add_gradient_norm(grad_norm, step=self.state.global_step)
        control = self.control
        if control.should_log or control.should_save or control.should_evaluate or control.should_training_stop:
            self._divergence.check()
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)
        except PreemptedError:
            # `should_evaluate` stays set and is saved in the checkpoint, where `finish_evaluation` finds it.
            self._metrics["eval"].clear()
            self.model.train()
            self._sigterm.stop(self.control)
            self._save_checkpoint(self.model, None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    # ---- Evaluation ------------------------------------------------------------------------------------------------

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> EvalLoopOutput:
        """Add the task's own scores to TRL's metrics: eval_f1, eval_f1_quantity, eval_exact_ENTITY.

        TRL's metrics are teacher-forced; the answers scored here are generated, by the code that predicts.
        """
        kwargs["metric_key_prefix"] = metric_key_prefix
        output: Any = super().evaluation_loop(*args, **kwargs)
        answered = self._answer(self.eval_dataset)
        output.metrics.update(
            {f"{metric_key_prefix}_{name}": value for name, value in score(answered, schema=self._schema).items()}
        )
        if self.is_in_train and self.is_world_process_zero():
            show_examples(
                answered,
                self.eval_dataset,
                step=self.state.global_step,
                callbacks=self.callback_handler.callbacks,
                schema=self._schema,
            )
        return output

    def score_rows(self, rows: Dataset) -> dict[str, float]:
        """Score other rows than the evaluation's, under the same names. All processes must call it."""
        return {f"eval_{name}": value for name, value in score(self._answer(rows), schema=self._schema).items()}

    def _answer(self, rows: Dataset) -> list[Answered]:
        model: Any = self.model  # peft's wrapper generates as the model in it does
        return answer_sample(
            model,
            rows,
            processor=self.processing_class,
            batch_size=self.args.per_device_eval_batch_size,
            schema=self._schema,
            before_batch=self._stop_evaluation,
        )

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        self._stop_evaluation()
        return super().prediction_step(*args, **kwargs)

    def _stop_evaluation(self) -> None:
        self._sigterm.stop_evaluation(self.args.device)

    def finish_evaluation(self) -> None:
        """Repeat the evaluation in which the resumed run was stopped, so that it has the same scores."""
        step, callbacks = self.state.global_step, self.state.stateful_callbacks
        control: Any = callbacks.get("TrainerControl", {}) if isinstance(callbacks, dict) else {}
        is_due = control.get("args", {}).get("should_evaluate", False)
        if self.args.eval_strategy == "epoch":  # due after the checkpoint of the epoch's last step
            is_due = step % steps_per_epoch(self.args, len(self.train_dataset)) == 0
        if not (step and is_due) or scores_at(step, self.state):
            return
        self.control.should_evaluate = True
        try:
            self._determine_best_metric(metrics=self._evaluate(None, None), trial=None)
        except PreemptedError:  # nothing to save: the checkpoint that the run resumed from is still current
            self._sigterm.is_stopped = self.control.should_training_stop = True

    # ---- Checkpoints -----------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a checkpoint and complete it by a manifest, before any older checkpoint is deleted."""
        step = self.state.global_step
        check_weights(self.model, step=step, gather=self.accelerator.gather)
        output_dir = str(self.args.output_dir)
        folder = Path(output_dir, f"checkpoint-{step}")
        if self.args.should_save:  # an incomplete one, or one of a run that went further before it was resumed
            remove_checkpoint(folder)
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process has written its files
            if self.args.should_save:
                save_manifest(folder, run=self._run)
        except (OSError, RuntimeError, SafetensorError) as error:  # the disk is full: each library has its own error
            raise InputError(
                f"the checkpoint {folder} cannot be written ({first_line(error)}); make room and rerun: the run "
                "resumes from the checkpoint before"
            ) from error
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            rotate_checkpoints(
                output_dir, limit, best_model_checkpoint=self.state.best_model_checkpoint, use_mtime=True
            )
        self.accelerator.wait_for_everyone()  # a process that ends makes torchrun end the others
        self._saved_step = step

    def _load_best_model(self) -> None:
        if damage := find_damage(Path(str(self.state.best_model_checkpoint))):
            raise InputError(f"the best checkpoint cannot be loaded: {damage}; rerun to train it again")
        super()._load_best_model()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the card is made from model_card.md, and TRL's would be in every checkpoint, empty."""
