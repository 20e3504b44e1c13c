"""The trainer of the small PaliGemma: its two stages, learning rates and checkpoints."""

import copy
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from product_vqa.atomic_io import atomic_write, replace_folder
from product_vqa.errors import InputError, argument
from product_vqa.hub import locate
from product_vqa.modeling.collator import IGNORED
from product_vqa.modeling.loading import load_base_model, load_processor
from quickstart.pretraining.muon import Muon
from quickstart.pretraining.options import PATCH_SIZE, PretrainOptions
from quickstart.pretraining.packing import pack
from quickstart.pretraining.patch_targets import make_heads, patch_loss
from quickstart.pretraining.samples import ANSWERS_FROM, Batch, draw_batch
from quickstart.pretraining.small_paligemma import make_model, make_processor

LEARNING_RATE, ADAMW_LEARNING_RATE = 8e-3, 3e-3  # for matrices (Muon), for all other parameters
WARMUP_STEPS = 40
DECAY_FROM = 0.3  # learning rates fall linearly from this progress on; most of the late gain comes while they fall
LATER_TOWER_FACTOR = 0.4  # of the tower's learning rates, once the model answers questions
PACKED_SHARE = 0.85  # of the steps with questions; the other steps use PaliGemma's own mask
PATCH_LOSS_WEIGHT = 0.3  # relative to the loss of the answers

BASE_PROGRESS = 0.65  # of the run at which a base model that is trained further begins
HEADS_ONLY_STEPS = 150  # of such a run: a saved base model has no heads, and new ones would disturb its tower

_FIXED_OPTIONS = ("seed", "base", "hidden_size", "layers", "image_size")  # a resumed run must have the same


@dataclass
class _ScheduledOptimizer:
    optimizer: torch.optim.Optimizer
    learning_rate: float  # the peak
    is_tower: bool


class Pretrainer:
    """The model, its optimizers, and the state of the run."""

    def __init__(
        self,
        options: PretrainOptions,
        *,
        device: torch.device | str = "cpu",
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.options = options
        self.device = torch.device(device)
        self.rank = rank
        self.num_processes = num_processes
        self.processor = make_processor(image_size=options.image_size, patch_size=PATCH_SIZE)
        self.model = make_model(
            self.processor,
            patch_size=PATCH_SIZE,
            hidden_size=options.hidden_size,
            layers=options.layers,
            seed=options.seed,
        )
        if options.base:
            with argument("base"):
                self._load_base(options.base)
        self.model.set_attn_implementation("eager")  # on a CPU as fast as sdpa in float32, faster in bfloat16
        self.heads = make_heads(options.hidden_size)
        self.model.to(self.device).train()  # type: ignore[arg-type]  # typed for another signature
        self.heads.to(self.device)
        self.step = 0
        self.images = 0
        self.minutes = 0.0
        self._last_step_minutes = 0.0
        self._first_answering_step: int | None = None

        tower = [*self.model.model.vision_tower.named_parameters(), *self.heads.named_parameters(prefix="heads")]
        tower_ids = {id(parameter) for _, parameter in tower}
        language = [item for item in self.model.named_parameters() if id(item[1]) not in tower_ids]
        self._tower = [parameter for _, parameter in tower]
        self._language = [parameter for _, parameter in language]
        self._optimizers = _make_optimizers(tower, is_tower=True) + _make_optimizers(language, is_tower=False)

    @property
    def progress(self) -> float:
        """How much of the run has passed, from 0 to 1."""
        passed = self.minutes / self.options.minutes
        return BASE_PROGRESS + (1 - BASE_PROGRESS) * passed if self.options.base else passed

    def _load_base(self, base: str) -> None:
        """Take over the weights of a base model. Raises InputError if its sizes or its tokens are others."""
        location = locate(base)
        weights = load_base_model(location, dtype=torch.float32).state_dict()
        own = self.model.state_dict()
        vocabulary = load_processor(location).tokenizer.get_vocab()
        if {name: tensor.shape for name, tensor in weights.items()} != {
            name: tensor.shape for name, tensor in own.items()
        } or vocabulary != self.processor.tokenizer.get_vocab():
            raise InputError(
                f"{base} has other sizes or tokens than the model of these options; choose a base model that "
                "quickstart.pretraining.pretrain made with the same hidden size, layers and image size"
            )
        self.model.load_state_dict(weights)

    def train_step(self, progress: float) -> dict[str, float]:
        """Run one step at this progress of the run (0 to 1). Returns the metrics, averaged over the processes."""
        started = time.monotonic()
        is_answering = progress >= ANSWERS_FROM
        if is_answering and self._first_answering_step is None:
            self._first_answering_step = self.step
        # The same on all processes, since a step takes as long as its slowest process.
        is_packed = random.Random(f"{self.options.seed}/{self.step}").random() < PACKED_SHARE
        batch = draw_batch(
            random.Random(f"{self.options.seed}/{self.step}/{self.rank}"),
            progress,
            batch_size=self.options.batch_size,
            image_size=self.options.image_size,
            is_packed=is_packed,
            device=self.device,
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16):
            if is_answering:
                loss, metrics = self._answer_loss(batch, name="packed_loss" if is_packed else "answer_loss")
            else:
                loss, metrics = self._patch_loss(batch)
        loss.backward()
        trained = self._tower + self._language if is_answering else self._tower

        # The clock is one step late, so that all processes read the same time.
        metrics, self.minutes = self._average(trained, metrics, self.minutes + self._last_step_minutes)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        self._update(progress, is_answering=is_answering)
        self.step += 1
        self.images += len(batch.pixels) * self.num_processes
        self._last_step_minutes = (time.monotonic() - started) / 60
        return metrics

    def _patch_loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, float]]:
        """The first stage: the vision tower alone names the character in each patch."""
        hidden = self.model.model.vision_tower(pixel_values=batch.pixels).last_hidden_state
        loss, accuracy = patch_loss(self.heads, hidden, batch.targets)
        return loss, {"first": accuracy, "patch_loss": loss.item()}

    def _answer_loss(self, batch: Batch, *, name: str) -> tuple[torch.Tensor, dict[str, float]]:
        """The second stage: the model answers questions, and the tower keeps naming characters."""
        texts = pack(batch.questions, processor=self.processor).to(self.device)
        output = self.model.model(
            input_ids=texts.input_ids,
            pixel_values=batch.pixels,
            position_ids=texts.position_ids,
            attention_mask=texts.attention_mask,
            use_cache=False,
        )
        predicts_label = texts.labels[:, 1:] != IGNORED
        logits = self.model.lm_head(output.last_hidden_state[:, :-1][predicts_label]).float()
        answers = torch.nn.functional.cross_entropy(logits, texts.labels[:, 1:][predicts_label])
        hidden = output.image_outputs.last_hidden_state
        if self.options.base and self.step < HEADS_ONLY_STEPS:
            hidden = hidden.detach()
        patches, accuracy = patch_loss(self.heads, hidden, batch.targets)
        metrics = {"first": accuracy, name: answers.item(), "patch_loss": patches.item()}
        return answers + PATCH_LOSS_WEIGHT * patches, metrics

    def _average(
        self, parameters: Sequence[torch.nn.Parameter], metrics: dict[str, float], minutes: float
    ) -> tuple[dict[str, float], float]:
        """Average gradients, metrics and the clock over the processes, so that all take the same step."""
        if self.num_processes == 1:
            return metrics, minutes
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        numbers = torch.tensor([*metrics.values(), minutes], device=self.device)
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), numbers])
        torch.distributed.all_reduce(flat)
        flat /= self.num_processes
        sizes = [gradient.numel() for gradient in gradients]
        *averaged, numbers = flat.split([*sizes, len(numbers)])
        for parameter, gradient in zip(parameters, averaged, strict=True):
            parameter.grad = gradient.view_as(parameter)
        *values, minutes = numbers.tolist()
        return dict(zip(metrics, values, strict=True)), minutes

    def _update(self, progress: float, *, is_answering: bool) -> None:
        """Step the optimizers of the current stage, at their learning rates for this progress."""
        decay = max(0.02, min(1.0, (1 - progress) / (1 - DECAY_FROM)))
        for scheduled in self._optimizers:
            if not (scheduled.is_tower or is_answering):
                continue
            first_step = 0 if scheduled.is_tower else self._first_answering_step
            assert first_step is not None
            factor = decay * min(1.0, (self.step - first_step + 1) / WARMUP_STEPS)
            if scheduled.is_tower and is_answering:
                factor *= LATER_TOWER_FACTOR
            scheduled.optimizer.param_groups[0]["lr"] = scheduled.learning_rate * factor
            scheduled.optimizer.step()
            scheduled.optimizer.zero_grad()

    def save(self, file: Path) -> None:
        """Save the state that the next step depends on. The file is complete at any moment."""
        state = {
            "options": {name: getattr(self.options, name) for name in _FIXED_OPTIONS},
            "progress": (self.step, self.images, self.minutes, self._first_answering_step),
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [scheduled.optimizer.state_dict() for scheduled in self._optimizers],
        }
        with atomic_write(file) as temporary:
            torch.save(state, temporary)

    def load(self, file: Path) -> None:
        """Resume from a checkpoint. Raises InputError if it has another seed or model size."""
        saved = torch.load(file, map_location="cpu", weights_only=True)
        for name in _FIXED_OPTIONS:
            if saved["options"][name] != getattr(self.options, name):
                raise InputError(
                    f"{file.parent} holds a run with {name} {saved['options'][name]}, not "
                    f"{getattr(self.options, name)}; choose another folder, or delete this one"
                )
        self.step, self.images, self.minutes, self._first_answering_step = saved["progress"]
        self.model.load_state_dict(saved["model"])
        self.heads.load_state_dict(saved["heads"])
        for scheduled, state in zip(self._optimizers, saved["optimizers"], strict=True):
            scheduled.optimizer.load_state_dict(state)

    def save_base(self, folder: Path) -> None:
        """Save the base model as it is now: bf16 safetensors, configuration and processor."""
        temporary = folder.with_name(f".{folder.name}")
        copy.deepcopy(self.model).cpu().bfloat16().save_pretrained(temporary)
        self.processor.save_pretrained(temporary)
        replace_folder(temporary, folder)


def _make_optimizers(
    named_parameters: Sequence[tuple[str, torch.nn.Parameter]], *, is_tower: bool
) -> list[_ScheduledOptimizer]:
    """Muon for the matrices, AdamW for all other parameters, the embeddings and the heads."""
    matrices = []
    others = []
    for name, parameter in named_parameters:
        is_matrix = parameter.ndim == 2 and not name.startswith("heads") and "embed" not in name
        if is_matrix:
            matrices.append(parameter)
        else:
            others.append(parameter)
    adamw = torch.optim.AdamW(others, lr=ADAMW_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    return [
        _ScheduledOptimizer(Muon(matrices, lr=LEARNING_RATE), LEARNING_RATE, is_tower),
        _ScheduledOptimizer(adamw, ADAMW_LEARNING_RATE, is_tower),
    ]
