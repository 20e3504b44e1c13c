import os
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


def run_in_two_processes(script: Path) -> None:
    launcher = [sys.executable, "-m", "product_vqa.launch", "--config_file", str(CPU_2), str(script)]
    done = subprocess.run(launcher, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


@pytest.mark.faults  # six seconds; the test of predict on two processes needs the same
def test_two_processes_on_a_cpu_know_of_each_other(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(
        "from product_vqa.distributed import init_distributed\n"
        "state = init_distributed()\n"
        f"with open('{tmp_path}/' + str(state.process_index), 'x') as file:\n"
        "    file.write(f'rank {state.process_index} of {state.num_processes} on {state.device.type}')\n"
    )
    run_in_two_processes(script)
    written = [(tmp_path / rank).read_text() for rank in ("0", "1")]
    assert written == ["rank 0 of 2 on cpu", "rank 1 of 2 on cpu"]


@pytest.mark.faults
def test_processes_that_have_trained_end(tmp_path: Path) -> None:
    """Where DistributedDataParallel frees the group, two processes hang after some ten of these repetitions."""
    script = tmp_path / "repeat.py"
    script.write_text(
        "import sys, torch, torch.distributed as dist, torch.multiprocessing as mp\n"
        "from product_vqa.distributed import process_group\n"
        "def train():\n"
        "    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))\n"
        "    model(torch.ones(2, 4)).sum().backward()\n"
        "    dist.all_gather([torch.zeros(3), torch.zeros(3)], torch.ones(3))\n"
        "    dist.barrier()\n"
        "def repeat(rank, folder):\n"
        "    torch.set_num_threads(1)\n"
        "    for number in range(100):\n"
        "        dist.init_process_group('gloo', init_method=f'file://{folder}/{number}', rank=rank, world_size=2)\n"
        "        with process_group():\n"
        "            train()\n"
        "if __name__ == '__main__':\n"
        "    mp.spawn(repeat, args=(sys.argv[1],), nprocs=2)\n"
    )
    subprocess.run(
        [sys.executable, script, tmp_path], check=True, timeout=240, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )


@pytest.mark.faults
def test_what_the_first_process_decides_holds_for_all(tmp_path: Path) -> None:
    script = tmp_path / "decide.py"
    script.write_text(
        "from product_vqa.distributed import decide_in_first_process, init_distributed, process_group\n"
        "from product_vqa.errors import InputError\n"
        "def refuse():\n"
        "    raise InputError(f'refused by {rank}')\n"
        "with process_group():\n"
        "    rank = init_distributed().process_index\n"
        "    decided = decide_in_first_process(lambda: {'rank': rank})\n"
        "    try:\n"
        "        decide_in_first_process(refuse)\n"
        "    except InputError as error:\n"
        f"        open(f'{tmp_path}/{{rank}}', 'x').write(f'{{decided}} {{error}}')\n"
    )
    run_in_two_processes(script)
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == ["{'rank': 0} refused by 0"] * 2
