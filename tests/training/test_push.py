"""Pushes: with every checkpoint, at the end, and while the Hub is down."""

import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file

from product_vqa.errors import InputError
from product_vqa.hub import retries
from product_vqa.modeling.calibration import CALIBRATION_FILE
from product_vqa.provenance import adapter_sha256
from tests.training.test_preemption import command, start, wait_for
from training import push as push_module
from training.options import TrainingOptions
from training.push import open_repo, push_run

FILES = {
    "README.md", "adapter_config.json", "adapter_model.safetensors", "log.csv", "processor_config.json",
    "product_vqa.json", "sft_config.yaml", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


def titles(repo_id: str) -> list[str]:
    return [commit.title for commit in HfApi().list_repo_commits(repo_id)]


def test_a_hub_that_is_down_for_a_while_costs_a_warning_and_a_later_push(
    hub: Any, tiny_repos: tuple[str, str], tmp_path: Path
) -> None:
    repo_id, api = "local/pushed-on-the-way", HfApi()
    base, dataset = tiny_repos
    push = ["--push_to_hub", "--hub_model_id", repo_id, "--hub_private_repo", "true", "--hub_strategy", "every_save"]
    arguments = command(base, dataset, tmp_path / "run", "--max_steps", 100, *push)
    process = start(arguments)
    try:
        wait_for(process, "step 1/100")
        deadline = time.monotonic() + 90
        while not any(title.startswith("Adapter after step") for title in titles(repo_id)):
            assert process.poll() is None
            assert time.monotonic() < deadline, "no checkpoint was pushed"
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGSTOP)
        hub.stop()
        os.kill(process.pid, signal.SIGCONT)
        wait_for(process, "was not pushed, a later one will be: ")
        os.kill(process.pid, signal.SIGSTOP)
    finally:
        hub.start()
        os.kill(process.pid, signal.SIGCONT)
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 0, rest
    assert "pushed: " in rest
    commits = api.list_repo_commits(repo_id)
    on_the_way = [commit.commit_id for commit in commits if commit.title.startswith("Adapter after step")]
    assert on_the_way, "nothing was pushed on the way"
    for commit in (on_the_way[0], on_the_way[-1], commits[0].commit_id):
        files = set(api.list_repo_files(repo_id, revision=commit)) - {".gitattributes"}
        assert files == FILES, "no optimizer state, no pickle"
    card = Path(hf_hub_download(repo_id, "README.md", revision=on_the_way[-1])).read_text()
    steps = int(re.search(r"\| steps \| (\d+) of 4 rows", card)[1])
    assert 3 <= steps < 100 and steps % 3 == 0
    (tag,) = api.list_repo_refs(repo_id).tags
    assert tag.name.startswith("run-") and tag.target_commit == commits[0].commit_id
    pushed = load_file(hf_hub_download(repo_id, "adapter_model.safetensors"))
    for name, tensor in load_file(tmp_path / "run" / "adapter_model.safetensors").items():
        assert (pushed[name] == tensor).all()
    assert not (tmp_path / "run" / ".on_the_way").exists()


def test_the_last_push_is_tried_again_and_at_last_says_where_the_adapter_lies(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\n")
    HfApi().create_repo("local/pushed-late", private=True)
    push = {"files": ["README.md"], "repo_id": "local/pushed-late", "revision": None}
    monkeypatch.setattr(push_module, "WAITS_S", (1, 2))
    slept = []
    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=lambda seconds: slept.append(seconds) or hub.start()))
    hub.stop()
    assert "/commit/" in push_run(tmp_path, **push)
    assert slept == [1]
    assert "The Hub: ConnectError. Trying again in 1 s." in caplog.text

    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=slept.append))
    hub.stop()
    try:
        with pytest.raises(InputError, match=rf"no Hub answers .* whole in {tmp_path}: the same command, given again"):
            push_run(tmp_path, **push)
    finally:
        hub.start()
    assert slept == [1, 1, 2]


def test_a_push_that_the_hub_refuses_is_not_tried_again(
    hub: Any, tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\n")
    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=lambda _: pytest.fail("tried again")))
    monkeypatch.setenv("HF_TOKEN", hub.reader_token)
    with pytest.raises(InputError, match=r"no such model repo .* If it is private"):
        push_run(tmp_path, files=["README.md"], repo_id="local/tiny-base", revision=None)


def test_a_repo_named_without_its_owner_is_the_tokens_owners(hub: Any) -> None:
    assert open_repo("ownerless", private=True) == "local/ownerless"
    assert HfApi().repo_exists("local/ownerless")


def test_a_new_adapter_removes_the_calibration_of_the_one_before(hub: Any, tmp_path: Path) -> None:
    repo_id, files = "local/calibrated-once", ["adapter_config.json", "adapter_model.safetensors"]
    open_repo(repo_id, private=True)

    def push(weights: bytes) -> None:
        (tmp_path / files[0]).write_text("{}")
        (tmp_path / files[1]).write_bytes(weights)
        push_run(tmp_path, files=files, repo_id=repo_id, revision=None)

    def calibrate(content: str) -> None:
        HfApi().upload_file(repo_id=repo_id, path_in_repo=CALIBRATION_FILE, path_or_fileobj=content.encode())

    push(b"first")
    calibrate(json.dumps({"adapter_sha256": adapter_sha256(tmp_path)}))
    push(b"first")  # the same command, given again
    assert HfApi().file_exists(repo_id, CALIBRATION_FILE)
    push(b"second")
    assert not HfApi().file_exists(repo_id, CALIBRATION_FILE)
    for unusable in ("{}", "[]", "not JSON"):
        calibrate(unusable)
        push(b"second")
        assert not HfApi().file_exists(repo_id, CALIBRATION_FILE)


def test_an_adapters_repo_is_private_unless_asked_otherwise_and_stays_as_it_is(hub: Any) -> None:
    default = TrainingOptions(output_dir="x").hub_private_repo
    for name, private, is_private in (("a", default, True), ("b", True, True), ("c", False, False)):
        for again in (private, not private):
            assert open_repo(f"local/visible-{name}", private=again) == f"local/visible-{name}"
            assert HfApi().model_info(f"local/visible-{name}").private is is_private


def test_a_token_that_may_read_a_repo_but_not_write_is_refused_before_the_training(
    hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    HfApi().create_repo("local/seen-by-all", private=False)
    monkeypatch.setenv("HF_TOKEN", hub.reader_token)
    with pytest.raises(InputError, match=r"`hub_model_id` local/seen-by-all: the Hub refused the token \(HTTP 403"):
        open_repo("local/seen-by-all", private=True)
