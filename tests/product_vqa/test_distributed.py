import subprocess
import sys
from pathlib import Path

import pytest
import torch

from product_vqa.distributed import runs_on_cpu
from tests.commands import CPU_2, ROOT


@pytest.mark.parametrize(
    ("asked", "has_accelerator", "expected"),
    [("true", True, True), ("True", True, True), ("false", True, False), (None, True, False), (None, False, True)],
)
def test_the_cpu_is_used_if_it_was_asked_for_or_there_is_no_accelerator(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, has_accelerator: bool, expected: bool
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    if asked is not None:
        monkeypatch.setenv("ACCELERATE_USE_CPU", asked)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: has_accelerator)
    assert runs_on_cpu() is expected


@pytest.mark.slow
def test_two_processes_on_a_cpu_know_of_each_other(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(
        "from product_vqa.distributed import init_distributed\n"
        "state = init_distributed()\n"
        "print(f'rank {state.process_index} of {state.num_processes} on {state.device.type}')\n"
    )
    launcher = [sys.executable, "-m", "product_vqa.launch", "--config_file", str(CPU_2), str(script)]
    done = subprocess.run(launcher, cwd=ROOT, capture_output=True, text=True, timeout=240)
    printed = sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))
    assert printed == ["rank 0 of 2 on cpu", "rank 1 of 2 on cpu"], done.stderr
