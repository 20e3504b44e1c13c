"""TRL's SFTTrainer for PaliGemma: our batches, and logits only where there is something to learn."""

import math
import time
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from product_vqa.command import InputError
from product_vqa.paligemma import IGNORED, normalize_images
from product_vqa.schema import FEATURES
from product_vqa.workers import TIMEOUT_S
from training.evaluation import Answered, answer_sample, score


class PaliGemmaTrainer(SFTTrainer):
    """SFTTrainer over rows as published; `data_collator` makes them into batches."""

    def _set_signature_columns_if_needed(self) -> None:
        # The rows go to the collator as they are: TRL would keep `image` and drop the question and the answer.
        self._signature_columns = list(FEATURES)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.answered: list[Answered] = []  # of the last evaluation
        self._row_indexes: torch.Tensor | None = None
        # Losses that nobody has looked at yet, and whose they are: looking costs a GPU its lead.
        self._unchecked: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        super().__init__(*args, **kwargs)
        plugin = self.args.deepspeed_plugin
        if plugin is None or plugin.zero_stage != 3:  # which gathers parameters of one dtype only
            # TRL makes an adapter on a 4-bit base bfloat16, in which an update below 1/256 of a weight is lost.
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.data = parameter.data.float()
        # Above this it is worse than guessing by far: ln(vocabulary) is what guessing has.
        self._highest_loss = 3 * math.log(self.model.config.get_text_config().vocab_size)
        self.add_callback(_LossWatch(self))
        self._clock = _Clock()
        self.add_callback(self._clock)

    def _run_epoch(self, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            # A finished run that is taken up: transformers would make one step more.
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self._row_indexes = inputs.pop("row_index", None)
        inputs = super()._prepare_inputs(inputs)
        if not isinstance(pixel_values := inputs["pixel_values"], torch.Tensor):  # an array: a worker process made it
            pixel_values = torch.from_numpy(pixel_values).to(self.args.device)
        inputs["pixel_values"] = normalize_images(pixel_values, processor=self.processing_class, dtype=torch.float32)
        return inputs

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        dataloader = super()._get_dataloader(*args, **kwargs)
        if self.args.dataloader_num_workers:  # a hang becomes an error; transformers has no setting for it
            getattr(dataloader, "base_dataloader", dataloader).timeout = TIMEOUT_S
        return dataloader

    def minutes(self) -> float:
        """How long it has been trained, with the runs before it that it goes on from."""
        return self._clock.minutes()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        logs["minutes"] = round(self.minutes(), 3)
        super().log(logs, start_time)
        del logs["minutes"]  # `evaluate` returns these: it is no metric

    def check_losses(self) -> None:
        """Raises InputError, naming the rows, if a loss since the last call is no number or has exploded."""
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        for (_, indexes), loss in zip(unchecked, torch.stack([loss for loss, _ in unchecked]).tolist(), strict=True):
            if loss <= self._highest_loss:
                continue
            rows = "unknown" if indexes is None else ", ".join(map(str, indexes.tolist()))
            raise InputError(
                f"the loss is {loss:.4g} a token in the batch of the rows with index {rows}, at step "
                f"{self.state.global_step} or shortly before: stopped, and nothing of it was saved. Look at these "
                "rows, or lower learning_rate or max_grad_norm; started again, it goes on from the last checkpoint"
            )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross entropy summed over answer and end tokens, over the number of them in the whole accumulated batch.

        Only about 7 of some 270 positions carry a label, so only their logits are made: at a vocabulary of 257k this
        saves 287 MB and 0.57 TFLOP a row. Equal to TRL's own loss, which without Triton scores every position.
        """
        assert "token_type_ids" in inputs, "without token_type_ids the prefix mask is silently another one"
        labels = inputs["labels"]
        # The logits at p predict the label at p + 1.
        predicting = torch.zeros_like(labels, dtype=torch.bool)
        predicting[:, :-1] = labels[:, 1:] != IGNORED
        targets = labels[:, 1:][predicting[:, :-1]]
        outputs = model(
            **{name: value for name, value in inputs.items() if name != "labels"},
            use_cache=False,
            logits_to_keep=predicting,
        )
        loss = F.cross_entropy(outputs.logits.float(), targets, reduction="sum")
        if self.model.training:
            self._unchecked.append(((loss / targets.numel()).detach(), self._row_indexes))
        if num_items_in_batch is None:  # evaluation
            loss = loss / targets.numel()
        else:
            loss = loss / num_items_in_batch
            if self.args.average_tokens_across_devices:
                # num_items_in_batch counts every process, and DDP averages over them.
                loss = loss * self.accelerator.num_processes
        mode = "train" if self.model.training else "eval"
        right = (outputs.logits.argmax(dim=-1) == targets).float().mean()
        self._metrics[mode]["mean_token_accuracy"].append(self.accelerator.gather_for_metrics(right).mean().item())
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """TRL's, and with it the task's own score: eval_f1, eval_f1_quantity, eval_exact_ENTITY.

        What TRL measures is teacher-forced; these answers are generated by the code that predicts.
        """
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        self.answered = answer_sample(
            self.model,
            self.eval_dataset,
            processor=self.processing_class,
            batch_size=self.args.per_device_eval_batch_size,
        )
        scores = score(self.answered)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in scores.items()})
        return output

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: `training.pushes` pushes, and no pickle and no optimizer state."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the card is written once, from model_card.md. TRL's would stand in every checkpoint, empty."""


class _Clock(TrainerCallback):
    """Goes on where the run stood that is taken up."""

    def __init__(self) -> None:
        self._before, self._began = 0.0, time.perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = time.perf_counter()
        self._before = next((entry["minutes"] for entry in reversed(state.log_history) if "minutes" in entry), 0.0)

    def minutes(self) -> float:
        return self._before + (time.perf_counter() - self._began) / 60


class _LossWatch(TrainerCallback):
    """Looks at the losses before they are logged, and before a checkpoint could keep what they did."""

    def __init__(self, trainer: PaliGemmaTrainer) -> None:
        self.trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if control.should_log or control.should_save or control.should_evaluate or control.should_training_stop:
            self.trainer.check_losses()
