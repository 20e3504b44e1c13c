"""Make the small PaliGemma that reads printed labels, from nothing.

    accelerate launch --config_file training/accelerate_configs/cpu_2.yaml -m quickstart.pretrain --minutes 147
    python -m quickstart.pretrain --minutes 2

One core, two processes, or a GPU; the first 2 minutes visibly learn. Killed and started again with the same options it
goes on where the last checkpoint was; with more `--minutes` too. Written to `--output_dir`: `base/` (loadable at any
time), `curve.csv`, `checkpoint.pt`.

**Two stages.** First the vision tower alone learns to name the character in each patch (quickstart.patch_targets):
easy pictures, then more and more of level standard. Then everything learns to answer questions about what is printed
(quickstart.reading_tasks): one line a picture, two, three, all. How far a run has come is the share of its minutes, so
that the schedule fits any length and any machine; what the pictures show is decided by seed, step and process alone.
"""

import csv
import io
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder

# Of the minutes; what a stage's or a step's begin is.
ANSWERS_FROM = 0.26  # from here on questions are answered, before it only patches named
STANDARD_FROM = 0.08  # the share of pictures of level standard grows linearly until here
DECAY_FROM = 0.3  # learning rates fall linearly from here on: most of the late gain comes while they do
LINES_UNTIL = ((0.3, 1), (0.35, 2), (0.41, 3))  # until then so many lines a picture
PACKED_SHARE = 0.85  # of the steps with questions; the others ask under PaliGemma's own mask
QUESTIONS = 6  # about one picture, at most
LEARNING_RATE, ADAMW_LEARNING_RATE = 8e-3, 3e-3  # for matrices (Muon), for everything else
LATER_TOWER = 0.4  # what is left of the tower's learning rates once questions are answered
PATCH_LOSS_WEIGHT = 0.3  # beside the answers' loss
WARMUP_STEPS = 40


@dataclass
class PretrainOptions:
    """How long, where to, and from which seed."""

    output_dir: str = field(
        default="runs/small-paligemma", metadata={"help": "Folder of the base and the checkpoint."}
    )
    minutes: float = field(default=147.0, metadata={"help": "Of training, those before a restart included."})
    seed: int = field(default=0, metadata={"help": "Of the weights and the pictures."})
    batch_size: int = field(default=12, metadata={"help": "Pictures a step on each process."})
    hidden_size: int = field(default=128, metadata={"help": "Of both towers: a multiple of 64."})
    layers: int = field(default=4, metadata={"help": "Of each tower."})
    image_size: int = field(default=112, metadata={"help": "Pixels a side, a multiple of 8."})
    eval_rows: int = field(default=64, metadata={"help": "Unseen pictures a kind of question, for the curve."})

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise InputError(f"--minutes must be positive, got {self.minutes}")
        for name, unit in (("hidden_size", 64), ("image_size", 8), ("batch_size", 1), ("layers", 1)):
            value = getattr(self, name)
            if value < 1 or value % unit:
                raise InputError(f"--{name} must be a positive multiple of {unit}, got {value}")


PATCH_SIZE = 8


class Pretraining:
    """The model, its optimizers, and how far it has come."""

    def __init__(self, options: PretrainOptions, *, device: Any = "cpu", rank: int = 0, processes: int = 1) -> None:
        import torch

        from quickstart.muon import Muon
        from quickstart.patch_targets import make_heads
        from quickstart.small_paligemma import make_model, make_processor

        self.options, self.device, self.rank, self.processes = options, device, rank, processes
        self.processor = make_processor(image_size=options.image_size, patch_size=PATCH_SIZE)
        self.model = make_model(
            self.processor,
            patch_size=PATCH_SIZE,
            hidden_size=options.hidden_size,
            layers=options.layers,
            seed=options.seed,
        )
        self.model.set_attn_implementation("sdpa")
        self.heads = make_heads(options.hidden_size)
        self.model.to(device).train()
        self.heads.to(device)
        self.step = 0
        self.pictures = 0
        self.minutes = self.last_step_minutes = 0.0

        tower = [*self.model.model.vision_tower.named_parameters(), *self.heads.named_parameters(prefix="heads")]
        known = {id(parameter) for _, parameter in tower}
        language = [item for item in self.model.named_parameters() if id(item[1]) not in known]
        self.tower = [parameter for _, parameter in tower]
        self.language = [parameter for _, parameter in language]
        self.optimizers = []
        for parameters, is_tower in ((tower, True), (language, False)):
            matrices = [
                p for name, p in parameters if p.ndim == 2 and not name.startswith("heads") and "embed" not in name
            ]
            known = {id(parameter) for parameter in matrices}
            others = [p for _, p in parameters if id(p) not in known]
            self.optimizers.append((Muon(matrices, lr=LEARNING_RATE), LEARNING_RATE, is_tower))
            self.optimizers.append(
                (
                    torch.optim.AdamW(others, lr=ADAMW_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
                    ADAMW_LEARNING_RATE,
                    is_tower,
                )
            )
        self.first_answering_step: int | None = None

    def train_step(self, share: float) -> dict[str, float]:
        """One step of a run that has come so far (0 to 1). Returns losses, averaged over the processes."""
        import torch

        from quickstart.packing import pack
        from quickstart.patch_targets import patch_loss

        is_answering = share >= ANSWERS_FROM
        if is_answering and self.first_answering_step is None:
            self.first_answering_step = self.step
        started = time.monotonic()
        rng = random.Random(f"{self.options.seed}/{self.step}/{self.rank}")
        # The same on all processes: a step takes as long as its slowest.
        is_packed = random.Random(f"{self.options.seed}/{self.step}").random() < PACKED_SHARE
        pixels, targets, questions = self._draw_batch(rng, share, is_packed)
        figures = {}
        if is_answering:
            texts = pack(questions, processor=self.processor).to(self.device)
            output = self.model.model(
                input_ids=texts.input_ids,
                pixel_values=pixels,
                position_ids=texts.position_ids,
                attention_mask=texts.attention_mask,
                use_cache=False,
            )
            seen = output.image_outputs.last_hidden_state
            predicting = texts.labels[:, 1:] != -100
            logits = self.model.lm_head(output.last_hidden_state[:, :-1][predicting])
            answer_loss = torch.nn.functional.cross_entropy(logits, texts.labels[:, 1:][predicting])
            patches, figures["first"] = patch_loss(self.heads, seen, targets)
            loss = answer_loss + PATCH_LOSS_WEIGHT * patches
            figures["packed_loss" if is_packed else "answer_loss"] = answer_loss.item()
        else:
            seen = self.model.model.vision_tower(pixel_values=pixels).last_hidden_state
            loss, figures["first"] = patch_loss(self.heads, seen, targets)
            patches = loss
        figures["patch_loss"] = patches.item()
        loss.backward()

        trained = self.tower + (self.language if is_answering else [])
        # The clock is one step late, so that all processes read the same.
        figures, self.minutes = self._average(trained, figures, self.minutes + self.last_step_minutes)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        decay = max(0.02, min(1.0, (1 - share) / (1 - DECAY_FROM)))
        for optimizer, learning_rate, is_tower in self.optimizers:
            if not (is_tower or is_answering):
                continue
            since = self.step if is_tower else self.step - self.first_answering_step
            factor = decay * min(1.0, (since + 1) / WARMUP_STEPS)
            factor *= LATER_TOWER if is_tower and is_answering else 1.0
            optimizer.param_groups[0]["lr"] = learning_rate * factor
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.pictures += len(pixels) * self.processes
        self.last_step_minutes = (time.monotonic() - started) / 60
        return figures

    def _draw_batch(self, rng: random.Random, share: float, is_packed: bool) -> tuple[Any, Any, Any]:
        """Pixels (B, 3, H, W) in [-1, 1], patch targets (heads, B, N), and each picture's questions."""
        import numpy as np
        import torch

        from quickstart.patch_targets import patch_targets
        from quickstart.reading_tasks import ask, ask_several

        pictures, targets, questions = [], [], []
        for _ in range(self.options.batch_size):
            label, image, characters = draw_picture(rng, share)
            pictures.append(to_pixels(image, size=self.options.image_size))
            targets.append(patch_targets(label, characters, grid=self.options.image_size // PATCH_SIZE))
            if is_packed:
                questions.append(ask_several(label, rng, count=QUESTIONS))
            else:
                kind = rng.choices(("get", "line", "after", "all", "expand", "define"), (50, 20, 10, 6, 10, 4))[0]
                questions.append([ask(kind, label, rng) or ask("line", label, rng)])
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return (
            pixels.to(self.device),
            torch.from_numpy(np.stack(targets, axis=1)).to(self.device),
            questions,
        )

    def _average(
        self, parameters: Sequence[Any], figures: dict[str, float], minutes: float
    ) -> tuple[dict[str, float], float]:
        """Average gradients, figures and the clock over the processes: all take the same step at the same share."""
        import torch

        if self.processes == 1:
            return figures, minutes
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat(
            [parameter.grad.reshape(-1) for parameter in parameters]
            + [torch.tensor([*figures.values(), minutes], device=parameters[0].device)]
        )
        torch.distributed.all_reduce(flat)
        flat /= self.processes
        start = 0
        for parameter in parameters:
            parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()
        *values, minutes = flat[start:].tolist()
        return dict(zip(figures, values, strict=True)), minutes

    def save(self, file: Path) -> None:
        """Write everything that the next step depends on; a kill leaves the old file or the new one."""
        import torch

        from product_vqa.atomic_io import written_whole

        state = {
            "options": {name: getattr(self.options, name) for name in _SAME},
            "progress": (self.step, self.pictures, self.minutes, self.first_answering_step),
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _, _ in self.optimizers],
        }
        with written_whole(file) as temporary:
            torch.save(state, temporary)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint. Raises InputError if it is of another model or seed."""
        import torch

        saved = torch.load(file, map_location="cpu", weights_only=True)
        for name in _SAME:
            if saved["options"][name] != getattr(self.options, name):
                raise InputError(
                    f"--output_dir {file.parent} holds a run with --{name} {saved['options'][name]}, not "
                    f"{getattr(self.options, name)}: choose another folder, or delete this one"
                )
        self.step, self.pictures, self.minutes, self.first_answering_step = saved["progress"]
        self.model.load_state_dict(saved["model"])
        self.heads.load_state_dict(saved["heads"])
        for (optimizer, _, _), state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    def save_base(self, folder: Path) -> None:
        """The base as it is now: bf16 safetensors, config, processor."""
        import copy

        import torch

        from product_vqa.atomic_io import replace_folder

        temporary = folder.with_name(f".{folder.name}")
        copy.deepcopy(self.model).to("cpu", torch.bfloat16).save_pretrained(temporary)
        self.processor.save_pretrained(temporary)
        replace_folder(temporary, folder)


# What a run cannot change on the way.
_SAME = ("seed", "hidden_size", "layers", "image_size")


def draw_picture(rng: random.Random, share: float) -> tuple[Any, Any, Any]:
    """A label of a difficulty that suits the run's share, its picture of 224 px, and its characters."""
    from PIL import Image

    from quickstart.drawing import draw, encode
    from quickstart.printing import PLAIN, STANDARD, make_label

    is_easy = rng.random() >= share / STANDARD_FROM
    level = replace(PLAIN, line_counts=STANDARD.line_counts) if is_easy else STANDARD
    lines = next((lines for until, lines in LINES_UNTIL if ANSWERS_FROM <= share < until), None)
    if lines is not None and rng.random() > 0.15:
        level = replace(level, line_counts=(lines,), brand_words=(0, 1) if lines > 1 else (0,))
    label = make_label(rng, level=level)
    image, characters = draw(label, rng, level=level)
    if rng.random() < 0.3:  # hardly to be seen at this size, and encoding costs as much as drawing
        image = Image.open(io.BytesIO(encode(image, rng, level=level)))
    return label, image, characters


def to_pixels(image: Any, *, size: int) -> Any:
    """(size, size, 3) uint8: to the bit what the processor makes, in a quarter of its time."""
    import numpy as np
    from PIL import Image

    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def main() -> None:
    (options,) = parse_options(PretrainOptions, description="Pretrain the small PaliGemma of the quickstart.")

    from product_vqa.distributed import join_processes
    from quickstart.printing import STANDARD
    from quickstart.reading import measure

    with argument("output_dir"):
        folder = writable_folder(options.output_dir)
    state = join_processes()
    training = Pretraining(options, device=state.device, rank=state.process_index, processes=state.num_processes)
    checkpoint, curve = folder / "checkpoint.pt", folder / "curve.csv"
    if checkpoint.is_file():
        training.load(checkpoint)
        if state.is_main_process:
            print(f"going on at minute {training.minutes:.2f}, step {training.step}", flush=True)

    interval = max(0.5, options.minutes / 20)  # between measurements
    due = training.minutes + interval
    figures: dict[str, list[float]] = {}
    while training.minutes < options.minutes:
        for name, value in training.train_step(training.minutes / options.minutes).items():
            figures.setdefault(name, []).append(value)
        if training.minutes < due and training.minutes < options.minutes:
            continue
        due = training.minutes + interval
        if state.is_main_process:
            row = {"minutes": training.minutes, "step": training.step, "pictures": training.pictures}
            row |= {name: sum(values[-50:]) / len(values[-50:]) for name, values in figures.items()}
            shares = {}
            if training.minutes >= ANSWERS_FROM * options.minutes:
                shares = measure(training.model, processor=training.processor, rows=options.eval_rows, level=STANDARD)
            report(curve, row | shares)
            training.save(checkpoint)
            training.save_base(folder / "base")
        figures.clear()
        state.wait_for_everyone()
    if state.is_main_process:
        print(f"{folder / 'base'}: {training.pictures} pictures in {training.minutes:.1f} minutes")
    state.destroy_process_group()


_COLUMNS = ("minutes", "step", "pictures", "first", "patch_loss", "packed_loss", "answer_loss")


def report(curve: Path, row: dict[str, float]) -> None:
    """Append a row to the CSV and print it."""
    from quickstart.reading_tasks import KINDS

    columns = (*_COLUMNS, *KINDS)
    is_new = not curve.exists()
    with curve.open("a", newline="") as lines:
        writer = csv.DictWriter(lines, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow({name: value if isinstance(value, int) else round(value, 4) for name, value in row.items()})
    print("  ".join(f"{k} {v if isinstance(v, int) else f'{v:.3f}'}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    run(main)
