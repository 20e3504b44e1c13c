"""Training speed, compared with a published approach and with a bare loop, on the same rows in one run.

python -m benchmarks.train --json

The base model is `benchmarks.small_model` with random weights; LoRA of rank 8, batches of 8 rows.

ours     training.trainer: the built dataset (448 px), bfloat16 where it is fast, adapter on the language model
writeup  as published for this challenge, with TRL's SFTTrainer and its own loss: float32, adapter on all layers,
         logits at all positions, the original images downloaded from a server and decoded in the collator
plain    the same with transformers' Trainer and the model's own loss
bare     a hand-written loop over batches that are ready as tensors: forward pass, logits where there are labels,
         backward pass, gradient clipping, AdamW

With the real vocabulary of 257,216 tokens, training is measured again with logits where there are labels and with
logits at all positions, each in a process of its own, to compare their memory.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import urllib3
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import (
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]  # exported lazily

from benchmarks.image_server import image_server, make_image
from benchmarks.memory import peak_bytes
from benchmarks.results import print_result, stdout_to_stderr
from benchmarks.rows import make_row, store_image
from benchmarks.small_model import SMALL_VOCABULARY, save_small_model
from benchmarks.timing import alternate
from product_vqa.hub import Location
from product_vqa.modeling.collator import IGNORED, TrainingCollator, make_training_batch, normalize_images
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, load_base_model, load_processor, resolve_dtype
from product_vqa.task.features import FEATURES
from product_vqa.task.prompt import format_prompt
from product_vqa.task.schema import CHALLENGE
from training.options import TrainingOptions
from training.trainer import PaliGemmaTrainer

REAL_VOCABULARY = 257_216
ORIGINAL_SIZE = 1700  # px; the challenge's originals have 1,700 on average
BATCH_SIZE = 8
WARM_UP = 2  # steps that are not timed
LEARNING_RATE = 2e-4
ALL_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "fc1", "fc2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help=f"number of timed steps, after {WARM_UP} others")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each variant, in turn; the median counts")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--memory_of", nargs=2, metavar=("VARIANT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        variant, folder = options.memory_of
        with stdout_to_stderr():
            memory = measure_memory(variant, Path(folder))
        print(json.dumps(memory))
        return

    with stdout_to_stderr(), tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        work = Path(name)
        parameters = save_small_model(work / "base", vocabulary=SMALL_VOCABULARY)
        rows = make_rows(BATCH_SIZE * (WARM_UP + options.steps), originals=work / "originals")
        with image_server(work / "originals") as url:
            variants = Variants(work, rows, urls=[f"{url}/{row['index']}.jpg" for row in rows])
            rates = alternate(
                {
                    "ours": variants.ours,
                    "writeup": variants.writeup,
                    "plain": variants.plain,
                    "bare": variants.bare,
                },
                repeats=options.repeats,
            )
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        real_parameters = save_small_model(Path(name, "base"), vocabulary=REAL_VOCABULARY)
        memory = {variant: measure_memory_in_subprocess(variant, Path(name)) for variant in ("ours", "everywhere")}
    result = {
        "cores": os.cpu_count(),
        "parameters": parameters,
        "dtype": str(resolve_dtype("auto", device="cpu")),
        "rows_per_s": {variant: round(rate, 2) for variant, rate in rates.items()},
        "ratio_vs_writeup": round(rates["ours"] / rates["writeup"], 2),
        "ratio_vs_plain_trainer": round(rates["ours"] / rates["plain"], 2),
        "ratio_vs_bare_loop": round(rates["ours"] / rates["bare"], 3),
        "at_the_real_vocabulary": {"parameters": real_parameters} | memory,
        "ratio_of_training_memory": round(memory["ours"]["training_gb"] / memory["everywhere"]["training_gb"], 3),
    }
    print_result(result, as_json=options.json)


def make_rows(number: int, *, originals: Path) -> list[dict[str, Any]]:
    """Labelled dataset rows, each with an image of its own; the original images are written to a folder."""
    originals.mkdir()
    rows = []
    for index in range(number):
        original = make_image(str(index), size=ORIGINAL_SIZE)
        (originals / f"{index}.jpg").write_bytes(original)
        rows.append(make_row(index, store_image(original), image_number=index))
    return rows


class Clock(TrainerCallback):
    """The samples per second of all steps after the warm-up."""

    _start = _end = 0.0
    _rows = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == WARM_UP:
            self._start = time.perf_counter()
        self._rows = (state.global_step - WARM_UP) * BATCH_SIZE
        self._end = time.perf_counter()

    @property
    def rows_per_s(self) -> float:
        return self._rows / (self._end - self._start)


@dataclass
class Variants:
    """Variants of training one base model on the same rows for one epoch; each returns its samples per second."""

    work: Path  # has the base model
    rows: list[dict[str, Any]]
    urls: list[str]  # of the original images

    def ours(self) -> float:
        return self._train(PaliGemmaTrainer)

    def _train(self, trainer_type: type[PaliGemmaTrainer]) -> float:
        base = Location(str(self.work / "base"))
        processor = load_processor(base)
        dataset = Dataset.from_list(self.rows, features=FEATURES)
        clock = Clock()
        trainer = trainer_type(
            model=load_base_model(base, dtype=resolve_dtype("auto", device="cpu")),
            args=TrainingOptions(
                output_dir=str(self.work / "run"), per_device_train_batch_size=BATCH_SIZE, num_train_epochs=1,
                learning_rate=LEARNING_RATE, save_strategy="no", disable_tqdm=True, logging_steps=1000,
                report_to="none",
            ),
            train_dataset=dataset,
            processing_class=processor,
            data_collator=TrainingCollator(processor, CHALLENGE),
            schema=CHALLENGE,
            peft_config=LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
        return clock.rows_per_s

    def everywhere(self) -> float:
        """Like `ours`, but with logits at all positions."""
        return self._train(LogitsEverywhere)

    def writeup(self) -> float:
        return self._train_on_urls(SFTTrainer, SFTConfig, bf16=False, dataset_kwargs={"skip_prepare_dataset": True})

    def plain(self) -> float:
        return self._train_on_urls(Trainer, TrainingArguments)

    def _train_on_urls(
        self, trainer_type: type[Trainer], arguments_type: type[TrainingArguments], **arguments: Any
    ) -> float:
        processor = load_processor(Location(str(self.work / "base")))
        model = PaliGemmaForConditionalGeneration.from_pretrained(self.work / "base", dtype=torch.float32)
        rows = [
            {"url": url, "entity_name": row["entity_name"], "entity_value": row["entity_value"]}
            for row, url in zip(self.rows, self.urls, strict=True)
        ]
        clock = Clock()
        trainer = trainer_type(
            model=get_peft_model(model, LoraConfig(r=8, target_modules=ALL_LINEARS)),
            args=arguments_type(
                output_dir=str(self.work / "run"), per_device_train_batch_size=BATCH_SIZE, num_train_epochs=1,
                learning_rate=LEARNING_RATE, save_strategy="no", disable_tqdm=True, logging_steps=1000,
                report_to="none", remove_unused_columns=False, use_cpu=True, gradient_checkpointing=False,
                **arguments,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=processor,
            data_collator=DownloadingCollator(processor),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
        return clock.rows_per_s

    def bare(self) -> float:
        base = Location(str(self.work / "base"))
        processor = load_processor(base)
        rows = list(Dataset.from_list(self.rows, features=FEATURES))
        batches = [
            make_training_batch(rows[start : start + BATCH_SIZE], processor=processor, schema=CHALLENGE)
            for start in range(0, len(rows), BATCH_SIZE)
        ]
        for batch in batches:
            pixels = normalize_images(batch["pixel_values"], processor=processor, dtype=torch.float32)
            batch["pixel_values"] = pixels
        dtype = resolve_dtype("auto", device="cpu")
        lora = LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS)
        model = get_peft_model(load_base_model(base, dtype=dtype), lora).train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)
        start_s = 0.0
        for step, batch in enumerate(batches):
            if step == WARM_UP:
                start_s = time.perf_counter()
            labels = batch.pop("labels")
            predicts_label = torch.zeros_like(labels, dtype=torch.bool)
            predicts_label[:, :-1] = labels[:, 1:] != IGNORED
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                logits = model(**batch, use_cache=False, logits_to_keep=predicts_label).logits
            F.cross_entropy(logits.float(), labels[:, 1:][predicts_label[:, :-1]]).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return (len(rows) - WARM_UP * BATCH_SIZE) / (time.perf_counter() - start_s)


@dataclass
class DownloadingCollator:
    """Downloads the images of a batch when the batch is made."""

    processor: PaliGemmaProcessor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        contents = [urllib3.request("GET", row["url"], retries=3).data for row in rows]
        images = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
        return self.processor(
            images=images,
            text=["<image>" + format_prompt(row["entity_name"], schema=CHALLENGE) for row in rows],
            suffix=[row["entity_value"] for row in rows],
            return_tensors="pt",
            padding=True,
            padding_side="right",
        )


class LogitsEverywhere(PaliGemmaTrainer):
    """Uses the model's own loss, which needs the logits at all positions."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        del inputs["answer_positions"], inputs["row_index"]
        outputs = model(**inputs, use_cache=False, num_items_in_batch=num_items_in_batch)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


def measure_memory(variant: str, work: Path) -> dict[str, Any]:
    """Train for a few steps on the base model in a folder.

    `peak_gb` is the peak of this process. `training_gb` is the part of it that was not there before the training, when
    the libraries were loaded and the rows made.
    """
    rows = make_rows(BATCH_SIZE * (WARM_UP + 2), originals=work / variant)
    before = peak_bytes()
    rate = getattr(Variants(work, rows, urls=[]), variant)()
    peak = peak_bytes()
    return {
        "rows_per_s": round(rate, 2),
        "peak_gb": round(peak / 1e9, 2),
        "training_gb": round((peak - before) / 1e9, 2),
    }


def measure_memory_in_subprocess(variant: str, work: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.train", "--memory_of", variant, str(work)]
    completed = subprocess.run(command, capture_output=True, text=True)
    if completed.returncode:
        sys.exit(f"{' '.join(command)}\n{completed.stderr[-3000:]}")
    return json.loads(completed.stdout)


if __name__ == "__main__":
    main()
