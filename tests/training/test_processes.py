"""Several processes, under each kind of sharding: they train what one process trains, resume, and answer together."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from product_vqa.errors import InputError
from tests.commands import CPU_2, ROOT, call, launch
from tests.training.runs import load_adapter, read_log
from training import sft

pytestmark = pytest.mark.slow

ACCELERATE = ROOT / "training" / "accelerate_configs"
CLOSE = 1e-3  # rounding, which AdamW's first steps enlarge: they are as long whatever the gradient's size


@pytest.fixture(scope="module")
def arguments(tiny_run: list[str | Path]) -> list[str | Path]:
    """Two samples per process and step."""
    return [
        *tiny_run, "--max_steps", "4", "--save_steps", "2", "--logging_steps", "1", "--eval_steps", "2", "--lora_r",
        "4", "--dtype", "float32", "--bf16", "false", "--seed", "3", "--warmup_steps", "0",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def single(arguments: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one process that takes four samples per step."""
    output_dir = tmp_path_factory.mktemp("single")
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(sft.main, monkeypatch, *arguments, "--per_device_train_batch_size", 4, "--output_dir", output_dir)
    return output_dir


def check_same(output_dir: Path, single: Path) -> None:
    ours, theirs = (load_adapter(folder) for folder in (output_dir, single))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() < CLOSE, name
    learned = max(float(tensor.abs().max()) for name, tensor in theirs.items() if "lora_B" in name)  # from zero
    assert learned > 10 * CLOSE
    logs = [read_log(folder) for folder in (output_dir, single)]
    losses = [[float(row["loss"]) for row in log if row["loss"]] for log in logs]
    assert len(losses[1]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    # So short a training answers nothing right; test_evaluation.py checks that every row is answered once.
    assert [row["eval_samples"] for row in logs[0] if row["eval_f1"]] == ["8", "8"]
    for metric in ("eval_loss", "eval_mean_token_accuracy"):
        found, expected = ([float(row[metric]) for row in log if row[metric]] for log in logs)
        assert len(expected) == 2 and 0 not in expected
        assert found == pytest.approx(expected, rel=1e-3), metric


@pytest.mark.faults  # half a minute; in `make test` two processes predict
def test_two_processes_with_half_the_batch_each_train_the_same_adapter(
    arguments: list[str | Path], single: Path, tmp_path: Path
) -> None:
    launch("training.sft", *arguments, "--output_dir", tmp_path, config_file=CPU_2)
    check_same(tmp_path, single)
    assert "2 processes" in (tmp_path / "README.md").read_text()


def kill_after(step: int, output_dir: Path) -> None:
    """As if the run had been killed before its next checkpoint."""
    for folder in output_dir.glob("checkpoint-*"):
        if int(folder.name.rpartition("-")[2]) > step:
            shutil.rmtree(folder)
    (output_dir / "adapter_model.safetensors").unlink()


@pytest.mark.faults
def test_resumed_on_two_processes_and_on_one_again_it_is_the_same_run(
    arguments: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six samples per step of 32 rows: all numbers of processes must fill up an epoch's last step in the same way."""
    run = [
        *arguments, "--max_steps", "12", "--save_steps", "4", "--save_total_limit", "3", "--eval_strategy", "no",
        "--max_eval_samples", "0",
    ]  # fmt: skip
    single, output_dir = tmp_path / "single", tmp_path / "run"
    call(sft.main, monkeypatch, *run, "--per_device_train_batch_size", 6, "--output_dir", single)
    shutil.copytree(single, output_dir)
    run += ["--output_dir", output_dir]

    kill_after(4, output_dir)
    with pytest.raises(InputError, match=r"samples_per_step: 6 -> 2\): resume it on 1 process with .*batch_size 6 "):
        call(sft.main, monkeypatch, *run)
    two = launch("training.sft", *run, "--per_device_train_batch_size", "3", config_file=CPU_2)
    assert "resuming at step 4/12" in two.stdout
    kill_after(8, output_dir)
    capsys.readouterr()
    call(sft.main, monkeypatch, *run, "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 3)
    assert "resuming at step 8/12" in capsys.readouterr().out

    ours, theirs = (load_adapter(folder) for folder in (output_dir, single))
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() < CLOSE, name
    losses = [[float(row["loss"]) for row in read_log(folder) if row["loss"]] for folder in (output_dir, single)]
    assert len(losses[1]) == 12 and losses[0] == pytest.approx(losses[1], abs=1e-4)
    epochs = [[row["epoch"] for row in read_log(folder) if row["loss"]] for folder in (output_dir, single)]
    assert epochs[0] == epochs[1] and float(epochs[1][5]) == 1.0  # six steps take 32 rows
    assert "| steps | 12 with 6 samples each (2.00 epochs)" in (output_dir / "README.md").read_text()


def interrupted_and_resumed(module: str, arguments: list[str | Path], output_dir: Path, config_file: Path) -> str:
    """Run it to the end, remove the last checkpoint and the adapter, rerun it; returns what both runs printed."""
    arguments = [*arguments, "--output_dir", output_dir]
    first = launch(module, *arguments, config_file=config_file, processes="2")
    (output_dir / "checkpoint-4" / "trainer_state.json").unlink()
    (output_dir / "adapter_model.safetensors").unlink()
    second = launch(module, *arguments, config_file=config_file, processes="2")
    assert "resuming at step 2/4" in second.stdout
    return first.stdout + second.stdout


@pytest.mark.faults  # half a minute
def test_fsdp2_trains_saves_and_resumes_the_same_adapter_from_shards(
    arguments: list[str | Path], single: Path, tmp_path: Path
) -> None:
    printed = interrupted_and_resumed(
        "tests.training.fsdp2_on_cpu", arguments, tmp_path, config_file=ACCELERATE / "fsdp2.yaml"
    )
    assert printed.count("sharded: this process holds 0.50 of the parameters") == 4  # two processes, two runs
    check_same(tmp_path, single)


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_deepspeed_trains_saves_and_resumes_the_same_adapter(
    arguments: list[str | Path], single: Path, tmp_path: Path, strategy: str
) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed")
    config = yaml.safe_load((ACCELERATE / f"{strategy}.yaml").read_text()) | {"use_cpu": True}
    (tmp_path / "accelerate.yaml").write_text(yaml.safe_dump(config))
    output_dir = tmp_path / "run"
    interrupted_and_resumed("training.sft", arguments, output_dir, config_file=tmp_path / "accelerate.yaml")
    assert list(output_dir.glob("checkpoint-4/global_step4/*optim_states.pt")), "this was not DeepSpeed"
    check_same(output_dir, single)


@pytest.mark.faults
def test_two_machines_train_the_same_adapter(arguments: list[str | Path], single: Path, tmp_path: Path) -> None:
    """The two commands of multi_node.yaml, both on this machine, with one process each."""
    config = yaml.safe_load((ACCELERATE / "multi_node.yaml").read_text())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    config |= {"use_cpu": True, "num_processes": 2, "main_process_port": port}
    (tmp_path / "accelerate.yaml").write_text(yaml.safe_dump(config))
    run = ["-m", "training.sft", *arguments, "--output_dir", tmp_path / "run"]
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "accelerate.commands.launch", "--config_file", tmp_path / "accelerate.yaml",
             "--main_process_ip", "127.0.0.1", "--machine_rank", rank, *map(str, run)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    printed = [machine.communicate(timeout=200)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], printed
    assert ["step 4/4" in text for text in printed] == [True, False]
    check_same(tmp_path / "run", single)
