"""A run whose state is on the Hub resumes on an empty disk, and ends in the same adapter, to the bit."""

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from huggingface_hub import HfApi, hf_hub_download
from safetensors import SafetensorError

from local_hub import LocalHub
from product_vqa.errors import InputError
from product_vqa.hub import locate
from product_vqa.modeling.adapter import download_adapter
from product_vqa.provenance import adapter_sha256
from product_vqa.task.attributes import Schema
from tests.commands import CPU_2, call
from tests.training.runs import (
    ADAPTER_FILES,
    STEPS,
    card_scores,
    check_equal_adapters,
    command,
    interrupt_at,
    pushed_to,
    read_losses,
    run_to_the_end,
    start,
    wait_for,
)
from tests.training.states import RUN, write_checkpoint
from training import sft, state_push, trainer
from training.evaluation import score
from training.state_push import PushStates

pytestmark = pytest.mark.slow

STATE_FILES = {
    f"last-checkpoint/{name}"
    for name in ("adapter_model.safetensors", "manifest.json", "session.json", "state.json", "state.safetensors")
}


# ---- The callback --------------------------------------------------------------------------------------------------


class Repo:
    """Takes the place of a `StateRepo`: notes the steps that are pushed, fails or waits where a test asks for it."""

    def __init__(self) -> None:
        self.lease = SimpleNamespace(taken_by=None)
        self.pushes = ThreadPoolExecutor(1)
        self.pushed: list[int] = []
        self.files: list[set[str]] = []
        self.fails = False
        self.may_end = threading.Event()
        self.may_end.set()

    def push(self, folder: Path, *, files: list[str], step: int, waits_s: Any) -> None:
        assert self.may_end.wait(60)
        if self.fails:
            raise InputError("no Hub answers")
        assert all((folder / name).is_file() for name in files)
        self.files.append(set(files))
        self.pushed.append(step)


class Saves:
    """A callback, and the checkpoints of a run that saves every third step."""

    def __init__(self, folder: Path, repo: Repo | None) -> None:
        self.error: Exception | None = None

        def save(target: Path) -> list[str]:
            target.mkdir(parents=True)
            if self.error is not None:
                raise self.error
            (target / "README.md").write_text("a card")
            return ["README.md"]

        self.folder = folder
        self.args = SimpleNamespace(output_dir=str(folder))
        self.callback = PushStates(save, repo=repo, run=RUN, keeps_best=True)  # type: ignore[arg-type]

    def save(self, step: int, *, best_step: int | None = None, is_last: bool = False) -> float:
        """Returns the seconds that the training had to wait."""
        write_checkpoint(self.folder, step, best_step=best_step)
        best = f"{self.folder}/checkpoint-{best_step}" if best_step else None
        state = SimpleNamespace(global_step=step, best_model_checkpoint=best, best_global_step=best_step)
        began = time.monotonic()
        self.callback.on_save(self.args, state, SimpleNamespace(should_training_stop=is_last))  # type: ignore[arg-type]
        shutil.rmtree(self.folder / f"checkpoint-{step}")  # the trainer may remove it at once
        return time.monotonic() - began

    def end(self) -> None:
        self.callback.on_train_end(self.args, None, None)  # type: ignore[arg-type]


def test_the_training_waits_for_a_push_but_not_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = Repo()
    saves = Saves(tmp_path, repo)
    saves.save(3)
    assert repo.pushed == [3], "it is on the Hub before the next step"
    monkeypatch.setattr(state_push, "GRACE_S", 0.5)
    repo.may_end.clear()
    assert 0.4 < saves.save(6) < 20
    assert repo.pushed == [3]
    repo.may_end.set()
    saves.end()
    assert repo.pushed == [3, 6]
    assert repo.files[0] == {"README.md", *(STATE_FILES - {"last-checkpoint/session.json"})}
    assert not list(tmp_path.iterdir()), "nothing is left of the pushes"


def test_states_that_are_saved_during_a_push_are_superseded_by_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(state_push, "GRACE_S", 0.1)
    repo = Repo()
    saves = Saves(tmp_path, repo)
    repo.may_end.clear()
    for step in (3, 6, 9):
        saves.save(step)
    assert "the state of step 6 is superseded before it was pushed; this session has pushed none so far" in caplog.text
    repo.may_end.set()
    saves.save(12, is_last=True)
    saves.end()
    assert repo.pushed[0] == 3 and repo.pushed[-1] == 12 and 6 not in repo.pushed
    assert not list(tmp_path.iterdir())


def test_a_push_that_fails_is_a_warning_with_the_age_of_what_a_restart_would_resume_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repo = Repo()
    saves = Saves(tmp_path, repo)
    saves.save(3)
    repo.fails = True
    saves.save(6)
    saves.save(9)
    saves.end()
    assert (
        "the push of step 9 failed (no Hub answers); the newest one on the Hub is of step 3, 0 minutes" in caplog.text
    )
    assert [folder.name for folder in (tmp_path / ".on_the_way").iterdir()] == ["step-9"], "to be tried again"
    repo.fails = False
    saves.callback.retry()
    assert repo.pushed == [3, 9] and not list(tmp_path.iterdir())
    saves.callback.retry()
    assert repo.pushed == [3, 9]


def test_at_the_end_of_a_run_no_next_state_is_promised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    repo = Repo()
    repo.fails = True
    saves = Saves(tmp_path, repo)
    saves.save(3)
    saves.save(6, is_last=True)
    saves.end()
    saves.callback.retry()
    failed = [message for message in caplog.messages if "failed" in message]
    assert failed[0].endswith("pushed none so far; the next one will be pushed instead")
    assert [message.partition("(")[2] for message in failed[1:]] == [
        "no Hub answers); this session has pushed none so far"
    ] * 2
    assert not (tmp_path / ".on_the_way").exists()


@pytest.mark.parametrize("error", [OSError(28, "full"), SafetensorError("I/O error: full"), InputError("full")])
def test_a_state_that_cannot_be_staged_is_a_warning_and_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    repo = Repo()
    saves = Saves(tmp_path, repo)
    saves.error = error
    saves.save(3)
    assert not list(tmp_path.iterdir())
    assert re.search(r"the state of step 3 is not pushed: .*full; this session has pushed none so far", caplog.text)
    saves.error = None
    saves.save(6)
    saves.end()
    assert repo.pushed == [6]


def test_the_best_adapter_is_pushed_too_although_its_checkpoint_was_removed(tmp_path: Path) -> None:
    repo = Repo()
    saves = Saves(tmp_path / "run", repo)
    best = write_checkpoint(tmp_path / "best", 3)
    (tmp_path / "run").mkdir()
    best.rename(tmp_path / "run" / "checkpoint-3")
    saves.save(6, best_step=3)
    saves.end()
    assert "last-checkpoint/best/adapter_model.safetensors" in repo.files[0]


def test_other_processes_and_sessions_that_were_taken_over_push_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saves = Saves(tmp_path, None)
    saves.save(3)
    saves.end()
    repo = Repo()
    repo.lease.taken_by = "another one"
    saves = Saves(tmp_path, repo)
    saves.save(6)
    saves.end()
    assert not repo.pushed and not caplog.text


# ---- Runs ----------------------------------------------------------------------------------------------------------


def check_no_pickle(repo_id: str) -> None:
    """No commit of any branch holds a file that is not text or safetensors."""
    api = HfApi()
    commits = [commit.commit_id for commit in api.list_repo_commits(repo_id)]
    assert len(commits) > 2
    for commit in commits:
        names = api.list_repo_files(repo_id, revision=commit)
        assert {name for name in names if not name.endswith((".safetensors", ".json", ".md", ".csv", ".yaml"))} == {
            ".gitattributes"
        }


def test_it_resumes_on_an_empty_disk(
    hub: LocalHub, tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def arguments(name: str) -> list[str]:
        options = pushed_to("local/resumed", "--max_steps", 5, "--save_steps", 2)
        return command(tiny_base, tiny_dataset, tmp_path / name, *options)[3:]

    interrupt_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        call(sft.main, monkeypatch, *arguments("first"))
    files = set(HfApi().list_repo_files("local/resumed")) - {".gitattributes"}
    assert files == ADAPTER_FILES | STATE_FILES
    interrupt_at(monkeypatch, None)
    call(sft.main, monkeypatch, *arguments("second"))
    call(sft.main, monkeypatch, *command(tiny_base, tiny_dataset, tmp_path / "undisturbed", "--max_steps", 5)[3:])
    assert "resuming at step 2/5" in capfd.readouterr().out
    check_equal_adapters(tmp_path / "second", tmp_path / "undisturbed")
    assert read_losses(tmp_path / "second") == read_losses(tmp_path / "undisturbed")
    assert set(HfApi().list_repo_files("local/resumed")) - {".gitattributes"} == ADAPTER_FILES | STATE_FILES
    assert [branch.name for branch in HfApi().list_repo_refs("local/resumed").branches] == ["main"]
    check_no_pickle("local/resumed")


@pytest.fixture(scope="module")
def undisturbed(tiny_base: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_to_the_end(command(tiny_base, tiny_dataset, folder))
    return folder


def step_in(lines: list[str], pattern: str) -> int:
    """The last number that the pattern finds, 0 if there is none."""
    return int(([0, *re.findall(pattern, "".join(lines))])[-1])


def step_on_the_hub(repo_id: str) -> int:
    """The step of the state in a repo."""
    return int(json.loads(Path(hf_hub_download(repo_id, "last-checkpoint/state.json")).read_text())["step"])


def kill_after(process: subprocess.Popen[str], seconds: float) -> list[str]:
    """Kill a run; returns the lines that it printed. It may have ended before."""
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lines.extend, args=(process.stdout,))
    reader.start()
    reader.join(seconds)
    process.kill()
    process.wait()
    reader.join()
    return lines


@pytest.mark.faults
def test_ten_kills_each_followed_by_a_restart_on_an_empty_disk_change_nothing(
    hub: LocalHub, undisturbed: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    repo_id, rng = "local/killed", random.Random(0)
    options = pushed_to(repo_id)
    began = time.monotonic()
    run_to_the_end(command(tiny_base, tiny_dataset, tmp_path / "timed", *pushed_to("local/timed")))
    duration_s = time.monotonic() - began
    last_step, kills = 0, 0
    for attempt in range(60):
        folder = tmp_path / str(attempt)
        process = start(command(tiny_base, tiny_dataset, folder, *options))
        if kills < 10:
            # From the start, from its first step, or from a save on: it is killed at all moments.
            if kills % 2:
                lines = wait_for(process, f"/{STEPS}") + kill_after(process, rng.uniform(0, 1.5))
            else:
                lines = kill_after(process, rng.uniform(0.2, 1) * duration_s)
            kills += process.returncode != 0
        else:
            lines = kill_after(process, 300)
            assert process.returncode == 0, "".join(lines)
        resumed = step_in(lines, r"(?:resuming|finished) at step (\d+)/")
        if any(f"/{STEPS}" in line for line in lines):  # it got as far as its first step
            assert last_step - resumed <= 3, f"{last_step} steps were made, resumed at {resumed}"
            last_step = max(last_step, step_in(lines, r"(?m)^step (\d+)/"))
        if process.returncode == 0 and kills == 10:
            break
        if process.returncode == 0:  # it was faster than the kill: start over
            HfApi().delete_repo(repo_id)
            last_step = 0
        shutil.rmtree(folder, ignore_errors=True)
    assert kills == 10
    check_equal_adapters(folder, undisturbed)
    assert read_losses(folder) == read_losses(undisturbed)
    check_no_pickle(repo_id)


def start_pushed(tiny_base: Path, tiny_dataset: Path, folder: Path, repo_id: str, *more: str) -> list[str]:
    return command(tiny_base, tiny_dataset, folder, *pushed_to(repo_id, *more))


@pytest.mark.faults
def test_after_a_sigterm_the_very_step_is_on_the_hub(
    hub: LocalHub, undisturbed: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    process = start(start_pushed(tiny_base, tiny_dataset, tmp_path / "first", "local/terminated"))
    wait_for(process, "step 4/14")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 143, output
    stopped = step_in([output], r"stopped and saved at step (\d+)")
    assert 4 <= stopped < STEPS and f"pushing the state of step {stopped} before the run ends" in output
    output = run_to_the_end(start_pushed(tiny_base, tiny_dataset, tmp_path / "second", "local/terminated"))
    assert f"resuming at step {stopped}/14" in output
    check_equal_adapters(tmp_path / "second", undisturbed)


@pytest.mark.faults
def test_a_finished_run_is_not_trained_again_on_an_empty_disk_unless_it_is_asked_to(
    hub: LocalHub, undisturbed: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    repo_id, api = "local/finished-elsewhere", HfApi()
    run_to_the_end(start_pushed(tiny_base, tiny_dataset, tmp_path / "first", repo_id))
    weights = "last-checkpoint/state.safetensors"
    (before,) = api.get_paths_info(repo_id, weights)
    output = run_to_the_end(start_pushed(tiny_base, tiny_dataset, tmp_path / "second", repo_id))
    assert "finished at step 14/14" in output and "\nstep " not in output
    check_equal_adapters(tmp_path / "second", undisturbed)
    assert read_losses(tmp_path / "second") == read_losses(undisturbed)
    assert api.get_paths_info(repo_id, weights) == [before]
    more = ("--resume_from_hub", "false")
    output = run_to_the_end(start_pushed(tiny_base, tiny_dataset, tmp_path / "third", repo_id, *more))
    assert f"the state in {repo_id} is not used; that of the next checkpoint replaces it" in output
    assert "step 1/14" in output and "resuming" not in output
    check_equal_adapters(tmp_path / "third", undisturbed)


@pytest.mark.faults
def test_a_second_session_is_refused_and_one_that_takes_over_continues_from_the_last_state(
    hub: LocalHub, undisturbed: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    repo_id = "local/wanted-twice"
    first = start(start_pushed(tiny_base, tiny_dataset, tmp_path / "first", repo_id))
    wait_for(first, "step 4/14")
    first.send_signal(signal.SIGSTOP)
    arguments = start_pushed(tiny_base, tiny_dataset, tmp_path / "second", repo_id)
    second = start(arguments)
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 2 and f"error: --hub_model_id {repo_id} is used by session" in output
    assert "or set --hub_take_over true" in output and not list((tmp_path / "second").glob("checkpoint-*"))
    pushed = step_on_the_hub(repo_id)  # 3, or more if the signal came late
    output = run_to_the_end([*arguments, "--hub_take_over", "true"])
    assert 3 <= pushed < STEPS and f"resuming at step {pushed}/14" in output
    check_equal_adapters(tmp_path / "second", undisturbed)
    commit = HfApi().model_info(repo_id).sha
    first.send_signal(signal.SIGCONT)
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 2, output
    assert re.search(rf"error: --hub_model_id {repo_id} was taken over by session [0-9a-f]{{8}}: this session", output)
    saved = step_in([output], r"stopped and saved at step (\d+)\n")
    assert (tmp_path / "first" / f"checkpoint-{saved}" / "manifest.json").exists()
    assert HfApi().model_info(repo_id).sha == commit, "it pushed nothing"
    assert [branch.name for branch in HfApi().list_repo_refs(repo_id).branches] == ["main"]


@pytest.mark.faults
def test_two_processes_push_their_state_and_release_the_repo_after_a_sigterm(
    hub: LocalHub, tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    repo_id = "local/terminated-in-two"

    def arguments(name: str) -> list[str]:
        launcher = [sys.executable, "-m", "product_vqa.launch", "--config_file", str(CPU_2)]
        run = start_pushed(tiny_base, tiny_dataset, tmp_path / name, repo_id, "--max_steps", "40")
        return [*launcher, *run[1:], "--per_device_train_batch_size", "2"]

    process = start(arguments("first"))
    wait_for(process, "step 4/40")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 143, output
    stopped = step_in([output], r"stopped and saved at step (\d+)")
    assert f"pushed: adapter and state of step {stopped}" in output
    assert [branch.name for branch in HfApi().list_repo_refs(repo_id).branches] == ["main"]
    process = start(arguments("second"))
    wait_for(process, f"resuming at step {stopped}/40")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["two processes", "4 bits"])
def test_killed_runs_of_other_kinds_resume_on_an_empty_disk(
    hub: LocalHub, tiny_base: Path, tiny_dataset: Path, tmp_path: Path, kind: str
) -> None:
    repo_id = f"local/killed-{kind.replace(' ', '-')}"

    def arguments(name: str, *more: str) -> list[str]:
        run = command(tiny_base, tiny_dataset, tmp_path / name, *more)
        if kind == "4 bits":
            return [*run, "--load_in_4bit", "true"]
        launcher = [sys.executable, "-m", "product_vqa.launch", "--config_file", str(CPU_2)]
        return [*launcher, *run[1:], "--per_device_train_batch_size", "2"]

    run_to_the_end(arguments("undisturbed"))
    process = start(arguments("first", *map(str, pushed_to(repo_id))))
    wait_for(process, "step 7/14")
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        one.kill()
    process.wait()
    output = run_to_the_end(arguments("second", *map(str, pushed_to(repo_id))))
    assert "resuming at step 6/14" in output
    check_equal_adapters(tmp_path / "second", tmp_path / "undisturbed")


@pytest.mark.faults
def test_the_best_adapter_survives_on_the_hub_and_a_run_that_was_stopped_early_stays_stopped(
    hub: LocalHub, tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def run(name: str, scores: list[float], *more: str | int) -> None:
        def replaced(answered: Any, *, schema: Schema) -> dict[str, float]:
            value = scores.pop(0)
            return score(answered, schema=schema) | {"f1_quantity": value, "f1": value / 2}

        monkeypatch.setattr(trainer, "score", replaced)
        call(
            sft.main, monkeypatch, *tiny_run, "--max_steps", 9, "--max_eval_samples", 4, "--eval_steps", 1,
            "--save_steps", 1, "--save_total_limit", 1, "--early_stopping_patience", 3, "--max_card_samples", 0,
            "--output_dir", tmp_path / name, *more,
        )  # fmt: skip

    run("undisturbed", [0.2, 0.6, 0.5, 0.4, 0.3])
    push = pushed_to("local/stopped-early")[:-2]
    interrupt_at(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        run("first", [0.2, 0.6, 0.5, 0.4, 0.3], *push)
    assert HfApi().file_exists("local/stopped-early", "last-checkpoint/best/adapter_model.safetensors")
    interrupt_at(monkeypatch, None)
    run("second", [0.4, 0.3], *push)
    assert "resuming at step 3/9" in capfd.readouterr().out
    check_equal_adapters(tmp_path / "second", tmp_path / "undisturbed")
    assert card_scores(tmp_path / "second") == {"F1, number and unit": 0.6, "F1, exact string": 0.3}
    run("third", [], *push)
    check_equal_adapters(tmp_path / "third", tmp_path / "undisturbed")
    assert card_scores(tmp_path / "third") == {"F1, number and unit": 0.6, "F1, exact string": 0.3}
    check_no_pickle("local/stopped-early")


@pytest.mark.faults
def test_a_damaged_state_and_one_of_another_run_stay_as_they_are(
    hub: LocalHub, tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo_id, api = "local/spoiled", HfApi()

    def run(name: str, *more: str | int) -> None:
        arguments = pushed_to(repo_id, "--max_steps", 4, "--save_steps", 2, *more)
        call(sft.main, monkeypatch, *command(tiny_base, tiny_dataset, tmp_path / name, *arguments)[3:])

    interrupt_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        run("first")
    interrupt_at(monkeypatch, None)
    with pytest.raises(InputError, match=rf"--hub_model_id {repo_id}@.* \(seed: 3 -> 4\): choose another repo, or"):
        run("second", "--seed", 4)
    api.upload_file(repo_id=repo_id, path_in_repo="last-checkpoint/state.json", path_or_fileobj=b"{}")
    commit = api.model_info(repo_id).sha
    for _ in range(2):
        with pytest.raises(
            InputError, match=rf"--hub_model_id {repo_id}@.*manifest\.json is damaged; restore it with"
        ):
            run("third")
    assert api.model_info(repo_id).sha == commit
    assert [branch.name for branch in api.list_repo_refs(repo_id).branches] == ["main"], "the lease was released"
    run("third", "--resume_from_hub", "false")
    check_no_pickle(repo_id)


@pytest.mark.faults
def test_an_adapter_with_a_state_next_to_it_predicts_without_downloading_it(
    hub: LocalHub, tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, dataset = tiny_repos
    push = ["--push_to_hub", "--hub_model_id", "local/with-a-state", "--hub_strategy", "checkpoint"]
    arguments = command(base, dataset, tmp_path / "run", *push, "--max_steps", 2, "--save_steps", 1)
    call(sft.main, monkeypatch, *arguments[3:])
    adapter = download_adapter(locate("local/with-a-state"))
    assert adapter.sha256 == adapter_sha256(tmp_path / "run")
    assert not (adapter.folder / "last-checkpoint").exists()
