"""PaliGemma 3B on a GPU: how fast, how much memory, and what the time goes to.

    python -m benchmarks.gpu --json --out gpu

At most twelve minutes on one GPU, offline. Base models in the real architecture with random weights
(`benchmarks.base_models`) are trained by the public command, in bfloat16 and NF4, at 224 and 448 px, and answer
questions as `inference.predict` does. A run that fails, or for which no time is left, is a row of the table too.

share     of the GPU's own rate for large bfloat16 products, by the floating-point operations of a sample
estimate  what training.estimate says of the memory; peak_gb is that of torch
largest   the largest batch that trains, and what the estimate allows

--out keeps result.json, the log of each run, and a profile of the training step. --tiny tries all of this on a CPU.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.base_models import ARCHITECTURES, Architecture, save_base_model
from benchmarks.commands import ROOT
from benchmarks.gpu_runs import count_train_flop, make_dataset, matrix_rate

BUDGET_S = 700
RUN_LIMIT_S = 400
BASE_NAMES = {224: "paligemma-3b-pt-224", 448: "paligemma-3b-pt-448"}
NUM_ROWS = 768


@dataclass(frozen=True)
class Run:
    """One measurement: a row of the table."""

    name: str
    kind: str  # train, or a function of benchmarks.gpu_runs: predict, largest_batch, profile
    image_size: int
    batch_size: int = 0
    steps: int = 30
    options: tuple[str, ...] = ()
    seconds: int = 40  # what it usually takes: it is skipped if less is left


NF4 = ("--load_in_4bit", "true")
# In this order, so that what matters most is measured if the GPU is slow.
RUNS = [
    Run("train 224 bfloat16", "train", 224, batch_size=16),
    Run("predict 224", "predict", 224),
    Run("train 224 NF4", "train", 224, batch_size=16, options=NF4),
    Run("profile 224 bfloat16", "profile", 224, batch_size=16),
    Run("train 448 bfloat16", "train", 448, batch_size=4),
    Run("predict 448", "predict", 448),
    Run("train 448 NF4", "train", 448, batch_size=4, options=NF4),
    Run("predict 448 free", "predict", 448, options=("free",)),
    Run("predict 224 free", "predict", 224, options=("free",)),
    Run("largest batch 224 bfloat16", "largest_batch", 224, seconds=60),
    Run("train 224 bfloat16 compiled", "train", 224, batch_size=16, steps=40, options=("--torch_compile", "true"),
        seconds=250),
]  # fmt: skip


@dataclass
class Result:
    """What a run measured; None where it says nothing about it."""

    name: str
    exit_code: int | None  # None: skipped
    seconds: float = 0.0
    samples_per_s: float | None = None
    share: float | None = None
    peak_gb: float | None = None
    estimate_gb: float | None = None
    details: dict[str, Any] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    parser.add_argument("--out", type=Path, help="folder for result.json and the logs")
    parser.add_argument("--tiny", action="store_true", help="two small layers and few steps, on any machine")
    parser.add_argument("--budget", type=int, default=BUDGET_S, help="seconds after which no run is started")
    parser.add_argument("--only", default="", help="runs whose name matches this regular expression")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpu-") as temporary:
        out = (options.out or Path(temporary, "out")).absolute()
        out.mkdir(parents=True, exist_ok=True)
        rate = matrix_rate(size=512 if options.tiny else 8192)
        benchmark = Benchmark(Path(temporary), out, rate=rate, is_tiny=options.tiny, budget_s=options.budget)
        results = benchmark.measure([run for run in RUNS if re.search(options.only, run.name)])
        result = {
            "gpu": device_name(),
            "torch": torch.__version__,
            "matrix_tflops": benchmark.rate,
            "seconds": round(benchmark.elapsed_s()),
            "runs": [asdict(one) for one in results],
        }
        (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2) if options.json else format_table(result))


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


class Benchmark:
    """Makes what the runs need, and runs them one after another within the budget."""

    def __init__(self, work: Path, out: Path, *, rate: float, is_tiny: bool, budget_s: int) -> None:
        """`rate` is the device's own, in TFLOP/s."""
        self.work, self.out, self.rate, self.is_tiny, self.budget_s = work, out, rate, is_tiny, budget_s
        self._began = time.monotonic()
        self.say(f"{device_name()}, {self.rate:.4g} TFLOP/s in large bfloat16 products")

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        print(f"[{self.elapsed_s():4.0f} s] {text}", file=sys.stderr, flush=True)

    def measure(self, runs: list[Run]) -> list[Result]:
        dataset = self.work / "dataset"
        results = []
        for run in runs:
            if self.elapsed_s() + run.seconds > self.budget_s and not self.is_tiny:
                results.append(Result(run.name, exit_code=None))
                continue
            if not dataset.exists():
                make_dataset(dataset, number=32 if self.is_tiny else NUM_ROWS)
            results.append(self._train(run, dataset) if run.kind == "train" else self._call(run, dataset))
            self.say(f"{run.name}: exit code {results[-1].exit_code}, {results[-1].seconds} s")
        return results

    def architecture(self, image_size: int) -> Architecture:
        architecture = ARCHITECTURES[BASE_NAMES[image_size]]
        return architecture.shrink() if self.is_tiny else architecture

    def base(self, image_size: int) -> Path:
        """The base model for this image size; the one before is removed."""
        folder = self.work / f"base-{image_size}"
        if not folder.exists():
            for other in self.work.glob("base-*"):
                shutil.rmtree(other)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            save_base_model(folder, self.architecture(image_size), device=device)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.say(f"base model for {image_size} px")
        return folder

    def _run(self, run: Run, *words: str | Path | int) -> tuple[Result, str]:
        """Run a command with its output in a log file; returns its exit code and time, and the output."""
        log = self.out / f"{run.name.replace(' ', '_')}.log"
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.work / "cache"), "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0], "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        start = time.monotonic()
        with log.open("w") as stream:
            command = [sys.executable, "-m", *map(str, words)]
            try:
                code = subprocess.run(
                    command, cwd=self.work, env=environment, stdout=stream, stderr=stream, timeout=RUN_LIMIT_S
                ).returncode
            except subprocess.TimeoutExpired:
                code = 124
        text = log.read_text(errors="replace")
        if code:
            self.say(f"{run.name} failed:\n{text[-1500:]}")
        return Result(run.name, code, seconds=round(time.monotonic() - start, 1)), text

    def _train(self, run: Run, dataset: Path) -> Result:
        steps = 6 if self.is_tiny else run.steps
        adapter = self.work / run.name.replace(" ", "_")
        result, text = self._run(
            run, "training.sft", "--dataset_name", dataset, "--model_name_or_path", self.base(run.image_size),
            "--base_model_id", "local/base", "--output_dir", adapter, "--max_steps", steps,
            "--per_device_train_batch_size", 2 if self.is_tiny else run.batch_size, "--logging_steps", steps // 6,
            "--save_strategy", "no", "--max_eval_samples", 0, "--report_to", "none", "--lora_r", 8,
            "--dataloader_num_workers", 0 if self.is_tiny else min(8, os.cpu_count() or 1), *run.options,
        )  # fmt: skip
        # The first third is the warm-up of the GPU, and of the compiler.
        speeds = [float(found) for found in re.findall(r"([\d.]+) samples/s", text)][2:]
        if result.exit_code == 0 and speeds:
            result.samples_per_s = statistics.median(speeds)
            flop = count_train_flop(self.architecture(run.image_size))
            result.share = round(result.samples_per_s * flop / 1e12 / self.rate, 3)
        if found := re.search(r"memory, about ([\d.]+) GB", text):
            result.estimate_gb = float(found[1])
        if peaks := re.findall(r"([\d.]+) GB  ", text):
            result.peak_gb = float(peaks[-1])
        return result

    def _call(self, run: Run, dataset: Path) -> Result:
        """Call a function of benchmarks.gpu_runs in a process of its own; it prints its result as JSON."""
        arguments = {
            "base": str(self.base(run.image_size)),
            "dataset": str(dataset),
            "batch_size": 2 if self.is_tiny else run.batch_size,
            "is_free": "free" in run.options,
            "is_tiny": self.is_tiny,
            "profile_file": str(self.out / "profile.txt"),
        }
        result, text = self._run(run, "benchmarks.gpu_runs", run.kind, json.dumps(arguments))
        if result.exit_code == 0:
            details = json.loads(text.splitlines()[-1])
            result.samples_per_s, result.peak_gb = details.pop("samples_per_s", None), details.pop("peak_gb", None)
            if flop := details.pop("flop", None):
                result.share = round((result.samples_per_s or 0) * flop / 1e12 / self.rate, 3)
            result.details = details
        return result


def format_table(result: dict[str, Any]) -> str:
    """Format the result as a table of Markdown, for docs/training.md."""
    lines = [
        f"{result['gpu']}, {result['matrix_tflops']:.4g} TFLOP/s in large bfloat16 products, torch {result['torch']}; "
        f"{result['seconds']} s",
        "",
        "| run | exit code | samples/s | share | peak GB | estimate GB | details |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for run in result["runs"]:
        code = "skipped" if run["exit_code"] is None else run["exit_code"]
        cells = [
            run[name] if run[name] is not None else "" for name in ("samples_per_s", "share", "peak_gb", "estimate_gb")
        ]
        details = ", ".join(f"{name} {value}" for name, value in (run["details"] or {}).items())
        lines.append(f"| {run['name']} | {code} | {' | '.join(map(str, cells))} | {details} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
