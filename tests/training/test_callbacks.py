"""The trainer's callbacks: console output, early stopping, resuming from a moved folder, pushing checkpoints."""

import os
import re
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from local_hub import LocalHub
from product_vqa.task.attributes import Schema
from tests.commands import call
from tests.training.runs import (
    ADAPTER_FILES,
    card_scores,
    command,
    load_adapter,
    start,
    wait_for,
)
from training import sft, trainer
from training.callbacks import ConsoleLines
from training.checkpoints import read_state
from training.evaluation import Answered, score
from training.options import TrainingOptions

pytestmark = pytest.mark.slow


def test_the_console_shows_a_line_for_each_log_and_each_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = TrainingOptions(output_dir=str(tmp_path), per_device_train_batch_size=4, gradient_accumulation_steps=2)
    state, control = TrainerState(max_steps=10), TrainerControl()
    console = ConsoleLines()
    console.on_train_begin(args, state, control)
    assert not capsys.readouterr().out
    state.global_step = 5
    console.on_log(args, state, control, logs={"loss": 0.4121, "learning_rate": 4.1e-3})
    console.on_log(args, state, control, logs={"eval_f1": 0.82, "eval_f1_quantity": 0.831})
    console.on_log(args, state, control, logs={"train_runtime": 1.0})
    progress, scores = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"step 5/10  loss 0\.412  lr 4\.1e-03  \d+\.\d samples/s  waited for data 0%  0:00 left", progress
    )
    assert scores == "step 5/10  F1 0.8310 (number and unit), 0.8200 (exact string)"
    console.on_train_begin(args, state, control)
    state.global_step = 10
    console.on_train_begin(args, state, control)
    assert capsys.readouterr().out.splitlines() == ["resuming at step 5/10", "finished at step 10/10"]


# ---- Early stopping, the best checkpoint ---------------------------------------------------------------------------


def replace_scores(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Replace the score of each evaluation, one after the other."""
    remaining = list(values)

    def replaced_score(answered: Sequence[Answered], *, schema: Schema) -> dict[str, float]:
        value = remaining.pop(0)
        return score(answered, schema=schema) | {"f1_quantity": value, "f1": value / 2}

    monkeypatch.setattr(trainer, "score", replaced_score)


def test_stopped_early_it_keeps_and_scores_the_best_checkpoint(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        *tiny_run, "--output_dir", tmp_path, "--max_steps", 9, "--max_eval_samples", 4, "--eval_steps", 1,
        "--save_steps", 1, "--early_stopping_patience", 2, "--max_card_samples", 0,
    ]  # fmt: skip
    replace_scores(monkeypatch, 0.2, 0.6, 0.5, 0.4)
    call(sft.main, monkeypatch, *arguments)
    assert sorted(folder.name for folder in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    best = load_adapter(tmp_path / "checkpoint-2")
    assert all((load_adapter(tmp_path)[name] == tensor).all() for name, tensor in best.items())
    # The weights that are kept are the ones scored, without a further evaluation.
    assert card_scores(tmp_path) == {"F1, number and unit": 0.6, "F1, exact string": 0.3}
    # Rerun, perhaps to push, it trains no further.
    (tmp_path / "adapter_model.safetensors").unlink()
    call(sft.main, monkeypatch, *arguments)
    assert all((load_adapter(tmp_path)[name] == tensor).all() for name, tensor in best.items())
    assert card_scores(tmp_path) == {"F1, number and unit": 0.6, "F1, exact string": 0.3}
    assert "| steps | 4 with 2 samples each" in (tmp_path / "README.md").read_text()


@pytest.mark.faults
def test_only_a_checkpoint_that_is_saved_can_be_the_best(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of the evaluations after each step is that of step 1, but every second step is saved."""
    arguments = [
        *tiny_run, "--output_dir", tmp_path, "--max_eval_samples", 4, "--eval_steps", 1, "--save_steps", 2,
        "--load_best_model_at_end", "true", "--max_card_samples", 0, "--max_steps", 5, "--save_total_limit", 5,
    ]  # fmt: skip
    replace_scores(monkeypatch, 0.6, 0.3, 0.5, 0.2, 0.1)
    call(sft.main, monkeypatch, *arguments)
    assert card_scores(tmp_path) == {"F1, number and unit": 0.3, "F1, exact string": 0.15}
    assert read_state(tmp_path / "checkpoint-4").best_global_step == 2
    best = load_adapter(tmp_path / "checkpoint-2")
    assert all((load_adapter(tmp_path)[name] == tensor).all() for name, tensor in best.items())
    shutil.rmtree(tmp_path / "checkpoint-5")  # resumed from step 4
    replace_scores(monkeypatch, 0.1)
    call(sft.main, monkeypatch, *arguments)
    assert card_scores(tmp_path) == {"F1, number and unit": 0.3, "F1, exact string": 0.15}


@pytest.mark.faults
def test_the_best_checkpoint_is_found_where_the_folder_was_moved_to(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [
        *tiny_run, "--max_steps", 3, "--max_eval_samples", 4, "--eval_steps", 1, "--save_steps", 1,
        "--load_best_model_at_end", "true", "--max_card_samples", 0, "--save_total_limit", 3,
    ]  # fmt: skip
    replace_scores(monkeypatch, 0.6, 0.2, 0.1, 0.1, 0.1)
    call(sft.main, monkeypatch, *arguments, "--output_dir", tmp_path / "first")
    best = load_adapter(tmp_path / "first" / "checkpoint-1")
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    shutil.rmtree(tmp_path / "first")
    shutil.rmtree(tmp_path / "moved" / "checkpoint-3")
    given = tmp_path / "moved" / "checkpoint-2"
    for output_dir, more in ((tmp_path / "other", ["--resume_from_checkpoint", given]), (tmp_path / "moved", [])):
        call(sft.main, monkeypatch, *arguments, "--output_dir", output_dir, *more)
        assert card_scores(output_dir)["F1, number and unit"] == 0.6
        kept = load_adapter(output_dir)
        assert all((kept[name] == tensor).all() for name, tensor in best.items())


def test_rows_that_selected_the_checkpoint_do_not_score_the_card(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_scores(monkeypatch, 0.9, 0.1, 0.7)
    call(
        sft.main, monkeypatch, *tiny_run, "--output_dir", tmp_path, "--max_steps", 2, "--max_eval_samples", 4,
        "--eval_steps", 1, "--save_steps", 1, "--load_best_model_at_end", "true",
    )  # fmt: skip
    assert card_scores(tmp_path) == {"F1, number and unit": 0.7, "F1, exact string": 0.35}
    card = (tmp_path / "README.md").read_text()
    assert "Measured on 4 rows of split `validation`" in card and "they did not select the checkpoint" in card


def test_without_rows_to_evaluate_on_nothing_is_stopped_early(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(
        sft.main, monkeypatch, *tiny_run, "--output_dir", tmp_path, "--max_steps", 1, "--max_eval_samples", 0,
        "--early_stopping_patience", 2,
    )  # fmt: skip
    assert "Not evaluated" in (tmp_path / "README.md").read_text()


# ---- Pushing checkpoints -------------------------------------------------------------------------------------------


def commit_titles(repo_id: str) -> list[str]:
    return [commit.title for commit in HfApi().list_repo_commits(repo_id)]


@pytest.mark.faults
def test_while_the_hub_is_down_a_push_fails_with_a_warning_and_a_later_one_succeeds(
    hub: LocalHub, tiny_repos: tuple[str, str], tmp_path: Path
) -> None:
    repo_id, api = "local/pushed-on-the-way", HfApi()
    base, dataset = tiny_repos
    push = ["--push_to_hub", "--hub_model_id", repo_id, "--hub_private_repo", "true", "--hub_strategy", "every_save"]
    arguments = command(base, dataset, tmp_path / "run", "--max_steps", 100, *push)
    process = start(arguments)
    try:
        wait_for(process, "step 1/100")
        deadline = time.monotonic() + 90
        while not any(title.startswith("Adapter after step") for title in commit_titles(repo_id)):
            assert process.poll() is None
            assert time.monotonic() < deadline, "no checkpoint was pushed"
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGSTOP)
        hub.stop()
        os.kill(process.pid, signal.SIGCONT)
        wait_for(process, "the next checkpoint will be pushed instead")
        os.kill(process.pid, signal.SIGSTOP)
    finally:
        hub.start()
        os.kill(process.pid, signal.SIGCONT)
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 0, rest
    assert "pushed: " in rest
    commits = api.list_repo_commits(repo_id)
    of_checkpoints = [commit.commit_id for commit in commits if commit.title.startswith("Adapter after step")]
    assert of_checkpoints, "no checkpoint was pushed"
    for commit in (of_checkpoints[0], of_checkpoints[-1], commits[0].commit_id):
        files = set(api.list_repo_files(repo_id, revision=commit)) - {".gitattributes"}
        assert files == ADAPTER_FILES, "no optimizer state, no pickle"
    card = Path(hf_hub_download(repo_id, "README.md", revision=of_checkpoints[-1])).read_text()
    steps = int(re.search(r"\| steps \| (\d+) with 4 samples each", card)[1])
    assert 3 <= steps < 100 and steps % 3 == 0
    (tag,) = api.list_repo_refs(repo_id).tags
    assert tag.name.startswith("run-") and tag.target_commit == commits[0].commit_id
    pushed = load_file(hf_hub_download(repo_id, "adapter_model.safetensors"))
    for name, tensor in load_adapter(tmp_path / "run").items():
        assert (pushed[name] == tensor).all()
    assert not (tmp_path / "run" / ".on_the_way").exists()
