"""The measurements of `benchmarks.gpu` that no command prints: each in a process of its own, which prints JSON.

python -m benchmarks.gpu_runs predict '{"base": ...}'
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch._subclasses import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.base_models import Architecture, make_base_config
from benchmarks.image_server import make_image
from benchmarks.results import stdout_to_stderr
from benchmarks.rows import make_row, store_image
from inference import AttributeReader
from inference.dataloader import RowBatches, default_workers, load_batches
from product_vqa.dataset import load_split
from product_vqa.hub import Location
from product_vqa.modeling.collator import TrainingCollator
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, load_base_model, load_config, load_processor
from product_vqa.task.features import FEATURES
from product_vqa.task.schema import CHALLENGE
from product_vqa.workers import worker_errors
from training.estimate import count_flop
from training.memory import TEXT_TOKENS, build_empty_model, estimate_memory, use_fake_tensors
from training.options import TrainingOptions
from training.trainer import PaliGemmaTrainer

ANSWER_TOKENS = 7  # `500.0 gram` with its end; a random model would not end before the longest answer
LORA = LoraConfig(r=8, lora_alpha=16, target_modules=LANGUAGE_MODEL_LINEARS, task_type="CAUSAL_LM")
WARM_UP_STEPS, PROFILED_STEPS = 4, 3
MAX_BATCH = 512
# What a kernel does, by words in its name; the first match counts.
_KERNELS = (
    ("matrix products", ("gemm", "cutlass", "nvjet", "mm_", "::mm", "addmm", "bmm", "linear", "xmma")),
    ("attention", ("attention", "fmha", "flash", "softmax")),
    ("4-bit weights", ("dequant", "bnb", "kgemm_4bit")),
    ("copies between host and GPU", ("memcpy", "memset")),
    ("optimizer", ("adam", "foreach", "multi_tensor")),
)


def matrix_rate(*, size: int, repeats: int = 20) -> float:
    """Measure the device's TFLOP/s in products of two square bfloat16 matrices of random numbers."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        left @ right
    _synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        left @ right
    _synchronize()
    return repeats * 2 * size**3 / (time.perf_counter() - start) / 1e12


def make_dataset(folder: Path, *, number: int) -> None:
    """Write a dataset folder with so many labelled rows in train and in test, each with an image of its own."""
    images = (store_image(make_image(str(index), size=600)) for index in range(number))
    rows = [make_row(index, image, image_number=index) for index, image in enumerate(images)]
    (folder / "data").mkdir(parents=True)
    for split in ("train", "test"):
        Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")


def count_train_flop(architecture: Architecture) -> int:
    """Count the floating-point operations of a training sample."""
    return count_flop(make_base_config(architecture), LORA)


def count_predict_flop(config: Any) -> int:
    """Count the floating-point operations of an answer: SigLIP, the prompt, then ANSWER_TOKENS - 1 tokens."""
    text, vision = config.get_text_config(), config.vision_config
    tokens = (vision.image_size // vision.patch_size) ** 2 + TEXT_TOKENS
    model, _ = build_empty_model(config, LORA, dtype=torch.bfloat16)
    with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        use_fake_tensors(model)
        model.get_image_features(torch.empty(1, 3, vision.image_size, vision.image_size, dtype=torch.bfloat16))
        for length in (tokens, *[1] * (ANSWER_TOKENS - 1)):  # what later tokens attend to is 0.1 % of it
            embedded = torch.empty(1, length, text.hidden_size, dtype=torch.bfloat16)
            hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
            model.lm_head(hidden[:, -1:])
    return counter.get_total_flops()


def predict(base: str, dataset: str, *, is_free: bool, is_tiny: bool) -> dict[str, Any]:
    """Answer all rows of the test split, as inference.predict does; the first batch is not timed."""
    reader = AttributeReader.from_pretrained(None, base_model=base, dtype="bfloat16", constrain=not is_free)
    reader.max_new_tokens = ANSWER_TOKENS
    rows = load_split(Location(dataset), "test")
    batch_size = 4 if is_tiny else min(reader.find_batch_size(), len(rows) // 3)
    batches = RowBatches(rows, processor=reader.processor, batch_size=batch_size, schema=reader.schema)
    _reset_peak()
    num_rows, start_s = 0, 0.0
    with worker_errors():
        workers = default_workers(reader.model.device)
        for batch in load_batches(batches, range(len(batches)), num_workers=workers):
            answers = reader.answer(batch.inputs, batch.entity_names)
            if batch.number:
                num_rows += len(answers)
            else:
                start_s = time.perf_counter()
    return {
        "samples_per_s": round(num_rows / (time.perf_counter() - start_s), 1),
        "peak_gb": _peak_gb(),
        "batch_size": batch_size,
        "flop": count_predict_flop(reader.model.config),
    }


def largest_batch(base: str, dataset: str, *, is_tiny: bool) -> dict[str, Any]:
    """Find the largest batch that trains, by doubling and bisection, and what the estimate of memory allows."""
    config = load_config(Location(base))
    estimate = estimate_memory(config, LORA, dtype=torch.bfloat16, load_in_4bit=False, samples=1)
    memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 2 * 10**9
    allowed = int((0.9 * memory - (estimate.total - estimate.activations)) / estimate.activations)
    step = Step(base, dataset)
    fits, fails = 0, 2 if is_tiny else 4
    while fails <= MAX_BATCH and step.fits(fails):
        fits, fails = fails, 2 * fails
        if is_tiny:
            break
    while fails - fits > max(1, fits // 16):
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if step.fits(middle) else (fits, middle)
    return {"largest_batch": fits, "largest_by_estimate": allowed, "peak_gb": _peak_gb()}


def profile_step(base: str, dataset: str, *, batch_size: int, profile_file: str) -> dict[str, Any]:
    """Profile some training steps: the share of each kind of kernel in the time, and that in which none runs."""
    step = Step(base, dataset)
    for _ in range(WARM_UP_STEPS):
        step.run(batch_size)
    _synchronize()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    start = time.perf_counter()
    with profile(activities=activities) as profiler:
        for _ in range(PROFILED_STEPS):
            step.run(batch_size)
        _synchronize()
    total_us = (time.perf_counter() - start) * 1e6
    events = profiler.key_averages()
    on_gpu = torch.cuda.is_available()
    sort_by = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    Path(profile_file).write_text(events.table(sort_by=sort_by, row_limit=60, max_name_column_width=100))
    times: dict[str, float] = {}
    for event in events:
        time_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if on_gpu and str(event.device_type) != "DeviceType.CUDA":
            continue  # the operators on the CPU have their kernels' time too
        kind = next((kind for kind, words in _KERNELS if any(word in event.key.lower() for word in words)), "other")
        times[kind] = times.get(kind, 0.0) + time_us
    shares = {kind: round(time_us / total_us, 3) for kind, time_us in sorted(times.items(), key=lambda one: -one[1])}
    if on_gpu:
        shares["no kernel"] = round(max(0.0, 1 - sum(times.values()) / total_us), 3)
    return {"seconds_per_step": round(total_us / 1e6 / PROFILED_STEPS, 4), **shares}


class Step:
    """A training step on the first rows of a dataset, with the trainer's own loss and optimizer."""

    def __init__(self, base: str, dataset: str) -> None:
        location = Location(base)
        self._rows = load_split(Location(dataset), "train")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_base_model(location, dtype=torch.bfloat16, device=device)
        processor = load_processor(location)
        self._trainer = PaliGemmaTrainer(
            model=get_peft_model(model, LORA),
            args=TrainingOptions(output_dir="unused", bf16=True, save_strategy="no", report_to="none", max_steps=1),
            train_dataset=self._rows,
            processing_class=processor,
            data_collator=TrainingCollator(processor, CHALLENGE),
            schema=CHALLENGE,
        )
        self._trainer.current_gradient_accumulation_steps = 1  # set by `train`, which is not called
        # As `train` does: this gives the model its autocast, without which LoRA's products would be in float32.
        self.model = self._trainer.accelerator.prepare(self._trainer.model)
        self._optimizer = self._trainer.create_optimizer()
        self._batches: dict[int, dict[str, Any]] = {}

    def run(self, batch_size: int) -> None:
        if batch_size not in self._batches:
            rows = [self._rows[index % len(self._rows)] for index in range(batch_size)]
            self._batches = {batch_size: self._trainer.data_collator(rows)}
        self.model.train()
        self._trainer.training_step(self.model, dict(self._batches[batch_size]))
        torch.nn.utils.clip_grad_norm_([one for one in self.model.parameters() if one.requires_grad], 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def fits(self, batch_size: int) -> bool:
        try:
            for _ in range(2):
                self.run(batch_size)
            _synchronize()
        except torch.OutOfMemoryError:
            fits = False
        else:
            fits = True
        self._optimizer.zero_grad()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return fits


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_gb() -> float | None:
    return round(torch.cuda.max_memory_allocated() / 1e9, 1) if torch.cuda.is_available() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("predict", "largest_batch", "profile"))
    parser.add_argument("arguments", type=json.loads, help="those of the measurement, as JSON")
    options = parser.parse_args()
    given = options.arguments
    base, dataset = given["base"], given["dataset"]
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "predict": lambda: predict(base, dataset, is_free=given["is_free"], is_tiny=given["is_tiny"]),
        "largest_batch": lambda: largest_batch(base, dataset, is_tiny=given["is_tiny"]),
        "profile": lambda: profile_step(
            base, dataset, batch_size=given["batch_size"], profile_file=given["profile_file"]
        ),
    }
    with stdout_to_stderr():
        result = runs[options.kind]()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
