"""Public commands, run to their end in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "quickstart" / "base"
CONFIG_FILE = ROOT / "training" / "configs" / "quickstart.yaml"

Word = str | Path | int


def python(module: str, *arguments: Word) -> str:
    """Run `python -m module arguments`; returns its output, or ends this process with the command's error."""
    return _run([sys.executable, "-m", module, *arguments])


def launch(module: str, *arguments: Word) -> str:
    """`python`, but under accelerate with two processes on the CPU."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
    config_file = ROOT / "training" / "accelerate_configs" / "cpu_2.yaml"
    return _run([*accelerate, "--config_file", config_file, "-m", module, *arguments])


def hf(*arguments: Word) -> str:
    """Run huggingface_hub's command line."""
    return _run([Path(sys.executable).with_name("hf"), *arguments])


def _run(command: list[Word]) -> str:
    # At this size two processes with one thread each are faster than one with two threads.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    words = [str(word) for word in command]
    completed = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    if completed.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{completed.stderr[-3000:]}")
    return completed.stdout
