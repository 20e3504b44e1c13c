"""Rows a second while training: ours beside a write-up's way and beside a bare loop, the same rows in one run.

python -m benchmarks.train --json

The base is `benchmarks.small_base`, its weights random; LoRA of rank 8, batches of 8 rows.

ours     training.trainer: the built dataset (448 px), bfloat16 where it is fast, adapter on the language model
writeup  as published for this challenge, TRL's SFTTrainer and its own loss: float32, adapter on everything, logits at
         every position, the original pictures fetched from a server and decoded in the collator
plain    the same with transformers' Trainer and the model's own loss
bare     a hand-written loop over batches that lie ready as tensors: forward, logits where there are labels, backward,
         clipping, AdamW

At a vocabulary of 257,216 words, the real one, the same is trained once more with logits where there are labels and
with logits everywhere, each in a process of its own, for its memory.
"""

import argparse
import io
import json
import os
import re
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
from trl import SFTConfig, SFTTrainer

from benchmarks.measuring import alternate, picture_server, printing_to_stderr
from benchmarks.picture_server import made_picture
from benchmarks.small_base import SMALL_VOCABULARY, save_small_base
from dataset_builder.image_preparation import prepare_image
from product_vqa.hub import Location
from product_vqa.modeling.collator import TrainingCollator, make_training_batch, normalize_images
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, load_base, load_processor, resolve_dtype
from product_vqa.task.features import FEATURES
from product_vqa.task.prompt import format_prompt
from product_vqa.task.schema import ENTITIES, UNITS_BY_ENTITY
from training.options import TrainingOptions
from training.trainer import PaliGemmaTrainer

REAL_VOCABULARY = 257_216
ORIGINAL_SIZE, STORED_SIZE = 1700, 448  # the challenge's originals have 1,700 px on average
BATCH_SIZE, WARM_UP = 8, 2
LEARNING_RATE = 2e-4
EVERYTHING = ["q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "fc1", "fc2"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="that are timed, after two that are not")
    parser.add_argument("--repeats", type=int, default=3, help="alternated; the median counts")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--memory_of", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        way, folder = options.memory_of
        with printing_to_stderr():
            memory = peak_memory(way, Path(folder))
        print(json.dumps(memory))
        return

    with printing_to_stderr(), tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        work = Path(name)
        parameters = save_small_base(work / "base", vocabulary=SMALL_VOCABULARY)
        rows = make_rows(BATCH_SIZE * (WARM_UP + options.steps), originals=work / "originals")
        with picture_server("--folder", work / "originals") as url:
            links = [f"{url}/{row['index']}.jpg" for row in rows]
            bench = Bench(work, rows, links)
            ways = {"ours": bench.ours, "writeup": bench.writeup, "plain": bench.plain, "bare": bench.bare}
            rates = alternate(ways, repeats=options.repeats)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        real_parameters = save_small_base(Path(name, "base"), vocabulary=REAL_VOCABULARY)
        memory = {way: in_a_process_of_its_own(way, Path(name)) for way in ("ours", "everywhere")}
    result = {
        "cores": os.cpu_count(),
        "parameters": parameters,
        "dtype": str(resolve_dtype("auto", device="cpu")),
        "rows_per_s": {way: round(rate, 2) for way, rate in rates.items()},
        "ratio_vs_writeup": round(rates["ours"] / rates["writeup"], 2),
        "ratio_vs_plain_trainer": round(rates["ours"] / rates["plain"], 2),
        "ratio_vs_bare_loop": round(rates["ours"] / rates["bare"], 3),
        "at_the_real_vocabulary": {"parameters": real_parameters} | memory,
        "ratio_of_training_memory": round(memory["ours"]["training_gb"] / memory["everywhere"]["training_gb"], 3),
    }
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k:<28}{v}" for k, v in result.items()))


def make_rows(number: int, *, originals: Path) -> list[dict[str, Any]]:
    """Labelled rows as built, each with a picture of its own; the original pictures go to a folder."""
    originals.mkdir()
    rows = []
    for index in range(number):
        original = made_picture(str(index), size=ORIGINAL_SIZE)
        (originals / f"{index}.jpg").write_bytes(original)
        entity_name = ENTITIES[index % len(ENTITIES)]
        units = UNITS_BY_ENTITY[entity_name]
        answer = f"{(7 * index % 400) / 2} {units[index % len(units)]}"
        rows.append(
            {
                "index": index, "image_link": f"https://shop.example/{index}.jpg", "group_id": "1",
                "image": {"bytes": prepare_image(original, image_size=STORED_SIZE).data, "path": None},
                "entity_name": entity_name, "entity_value": answer, "entity_value_raw": answer,
            }
        )  # fmt: skip
    return rows


class Clock(TrainerCallback):
    """Rows a second of all steps but the first two."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == WARM_UP:
            self._start = time.perf_counter()
        self._rows = (state.global_step - WARM_UP) * BATCH_SIZE
        self._end = time.perf_counter()

    @property
    def rows_per_s(self) -> float:
        return self._rows / (self._end - self._start)


@dataclass
class Bench:
    """One base, the same rows, the ways to train on them for one epoch; each returns its rows a second."""

    work: Path
    rows: list[dict[str, Any]]
    links: list[str]

    def ours(self) -> float:
        return self._train(PaliGemmaTrainer)

    def _train(self, kind: type[PaliGemmaTrainer]) -> float:
        base = Location(str(self.work / "base"))
        processor = load_processor(base)
        dataset = Dataset.from_list(self.rows, features=FEATURES)
        clock = Clock()
        trainer = kind(
            model=load_base(base, dtype=resolve_dtype("auto", device="cpu")),
            args=TrainingOptions(
                output_dir=str(self.work / "run"), per_device_train_batch_size=BATCH_SIZE, num_train_epochs=1,
                learning_rate=LEARNING_RATE, save_strategy="no", disable_tqdm=True, logging_steps=1000,
                report_to="none",
            ),
            train_dataset=dataset,
            processing_class=processor,
            data_collator=TrainingCollator(processor),
            peft_config=LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
        return clock.rows_per_s

    def everywhere(self) -> float:
        """Ours, but for logits at every position."""
        return self._train(LogitsEverywhere)

    def writeup(self) -> float:
        return self._fetching(SFTTrainer, SFTConfig, bf16=False, dataset_kwargs={"skip_prepare_dataset": True})

    def plain(self) -> float:
        return self._fetching(Trainer, TrainingArguments)

    def _fetching(self, kind: type[Trainer], config: type[TrainingArguments], **more: Any) -> float:
        processor = load_processor(Location(str(self.work / "base")))
        model = PaliGemmaForConditionalGeneration.from_pretrained(self.work / "base", dtype=torch.float32)
        rows = [
            {"link": link, "entity_name": row["entity_name"], "entity_value": row["entity_value"]}
            for row, link in zip(self.rows, self.links, strict=True)
        ]
        clock = Clock()
        trainer = kind(
            model=get_peft_model(model, LoraConfig(r=8, target_modules=EVERYTHING)),
            args=config(
                output_dir=str(self.work / "run"), per_device_train_batch_size=BATCH_SIZE, num_train_epochs=1,
                learning_rate=LEARNING_RATE, save_strategy="no", disable_tqdm=True, logging_steps=1000,
                report_to="none", remove_unused_columns=False, use_cpu=True, gradient_checkpointing=False, **more,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=processor,
            data_collator=FetchingCollator(processor),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
        return clock.rows_per_s

    def bare(self) -> float:
        base = Location(str(self.work / "base"))
        processor = load_processor(base)
        rows = list(Dataset.from_list(self.rows, features=FEATURES))
        batches = [
            make_training_batch(rows[start : start + BATCH_SIZE], processor=processor)
            for start in range(0, len(rows), BATCH_SIZE)
        ]
        for batch in batches:
            pixels = normalize_images(batch["pixel_values"], processor=processor, dtype=torch.float32)
            batch["pixel_values"] = pixels
        dtype = resolve_dtype("auto", device="cpu")
        model = get_peft_model(
            load_base(base, dtype=dtype), LoraConfig(r=8, target_modules=LANGUAGE_MODEL_LINEARS)
        ).train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)
        for step, batch in enumerate(batches):
            if step == WARM_UP:
                start_s = time.perf_counter()
            labels = batch.pop("labels")
            wanted = torch.zeros_like(labels, dtype=torch.bool)
            wanted[:, :-1] = labels[:, 1:] != -100
            with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
                logits = model(**batch, use_cache=False, logits_to_keep=wanted).logits
            F.cross_entropy(logits.float(), labels[:, 1:][wanted[:, :-1]]).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return (len(rows) - WARM_UP * BATCH_SIZE) / (time.perf_counter() - start_s)


@dataclass
class FetchingCollator:
    """Pictures by their links, whenever they are needed."""

    processor: PaliGemmaProcessor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        images = [
            Image.open(io.BytesIO(urllib3.request("GET", row["link"], retries=3).data)).convert("RGB") for row in rows
        ]
        return self.processor(
            images=images,
            text=["<image>" + format_prompt(row["entity_name"]) for row in rows],
            suffix=[row["entity_value"] for row in rows],
            return_tensors="pt",
            padding=True,
            padding_side="right",
        )


class LogitsEverywhere(PaliGemmaTrainer):
    """The model's own loss, which takes the logits of all positions."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        del inputs["answer_positions"]
        outputs = model(**inputs, use_cache=False, num_items_in_batch=num_items_in_batch)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


def peak_memory(way: str, work: Path) -> dict[str, Any]:
    """Train for a few steps on the base in a folder: `peak_gb` is of this whole process, `training_gb` what of it
    came after the libraries were loaded and the rows made."""
    rows = make_rows(BATCH_SIZE * (WARM_UP + 2), originals=work / way)
    before = _peak_bytes()
    rate = getattr(Bench(work, rows, []), way)()
    peak = _peak_bytes()
    return {
        "rows_per_s": round(rate, 2),
        "peak_gb": round(peak / 1e9, 2),
        "training_gb": round((peak - before) / 1e9, 2),
    }


def _peak_bytes() -> int:
    """Not getrusage's ru_maxrss, which a process takes over from whoever started it."""
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def in_a_process_of_its_own(way: str, work: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.train", "--memory_of", way, str(work)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
