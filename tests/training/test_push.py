"""The adapter as a folder, complete or absent, and as a repo, also while the Hub is down."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from product_vqa.errors import InputError
from product_vqa.hub import retries
from product_vqa.provenance import CALIBRATION_FILE, adapter_sha256
from tests.commands import call
from training import push as push_module
from training import sft
from training.options import TrainingOptions
from training.push import open_repo, push_run


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [1, 8])
def test_a_save_that_is_killed_leaves_no_adapter(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: int
) -> None:
    """Killed after this many of the nine files. adapter_config.json, without which it is not an adapter, is last."""
    moved: list[str] = []

    def replace(source: Path, target: Path) -> None:
        if len(moved) == replaced:
            raise KeyboardInterrupt
        moved.append(shutil.move(source, target).name)

    monkeypatch.setattr(push_module, "os", SimpleNamespace(replace=replace))
    with pytest.raises(KeyboardInterrupt):
        call(
            sft.main, monkeypatch, *tiny_run, "--max_steps", 1, "--max_eval_samples", 0, "--output_dir", tmp_path,
            "--save_strategy", "no",
        )  # fmt: skip
    assert len(moved) == replaced
    assert {*moved} <= {file.name for file in tmp_path.iterdir()}
    assert not (tmp_path / "adapter_config.json").exists()


class Clock:
    """Takes the place of the clock of `product_vqa.hub`: notes each wait, starts the Hub at the first if asked to."""

    def __init__(self, hub: LocalHub | None = None) -> None:
        self.slept: list[float] = []
        self._hub = hub

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self._hub is not None:
            self._hub.start()


@pytest.mark.slow
def test_the_last_push_is_retried_and_its_error_names_the_folder_of_the_adapter(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\n")
    HfApi().create_repo("local/pushed-late", private=True)
    monkeypatch.setattr(push_module, "WAITS_S", (1, 2))

    def push() -> str:
        return push_run(tmp_path, files=["README.md"], repo_id="local/pushed-late", revision=None)

    clock = Clock(hub)
    monkeypatch.setattr(retries, "time", clock)
    hub.stop()
    assert "/commit/" in push()
    assert clock.slept == [1]
    assert "ConnectError" in caplog.text

    clock = Clock()
    monkeypatch.setattr(retries, "time", clock)
    hub.stop()
    try:
        with pytest.raises(InputError, match=rf"no Hub answers .* complete in {tmp_path}: rerun the same command"):
            push()
    finally:
        hub.start()
    assert clock.slept == [1, 2]


def test_a_push_that_the_hub_refuses_is_not_retried(
    hub: LocalHub, tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\n")
    clock = Clock()
    monkeypatch.setattr(retries, "time", clock)
    monkeypatch.setenv("HF_TOKEN", hub.reader_token)
    with pytest.raises(InputError, match=r"no such model repo .* If it is private"):
        push_run(tmp_path, files=["README.md"], repo_id="local/tiny-base", revision=None)
    assert not clock.slept


def test_a_repo_named_without_its_owner_is_the_tokens_owners(hub: LocalHub) -> None:
    assert open_repo("ownerless", private=True) == "local/ownerless"
    assert HfApi().repo_exists("local/ownerless")


def test_a_new_adapter_without_a_schema_removes_that_of_the_one_before(hub: LocalHub, tmp_path: Path) -> None:
    """Otherwise the challenge's adapter would be asked, and read, by the schema of another catalogue."""
    repo_id, files = "local/once-of-another-catalogue", ["adapter_config.json", "schema.yaml"]
    open_repo(repo_id, private=True)
    for name in files:
        (tmp_path / name).write_text(f"# {name}\n")
    push_run(tmp_path, files=files, repo_id=repo_id, revision=None)
    assert set(files) <= set(HfApi().list_repo_files(repo_id))
    push_run(tmp_path, files=files[:1], repo_id=repo_id, revision=None)
    assert "schema.yaml" not in HfApi().list_repo_files(repo_id)
    assert files[0] in HfApi().list_repo_files(repo_id)


@pytest.mark.slow
def test_a_new_adapter_in_the_folder_of_another_one_has_its_own_schema(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "schema.yaml").write_text("version: 1\nattributes: {size: {kind: integer}}\n")
    call(sft.main, monkeypatch, *tiny_run, "--max_steps", 1, "--max_eval_samples", 0, "--output_dir", tmp_path,
         "--save_strategy", "no")  # fmt: skip
    assert (tmp_path / "adapter_config.json").is_file() and not (tmp_path / "schema.yaml").exists()


def test_a_new_adapter_removes_the_calibration_of_the_one_before(hub: LocalHub, tmp_path: Path) -> None:
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
    push(b"first")  # the same command, rerun
    assert HfApi().file_exists(repo_id, CALIBRATION_FILE)
    push(b"second")
    assert not HfApi().file_exists(repo_id, CALIBRATION_FILE)
    for unusable in ("{}", "[]", "not JSON", "[" * 100_000):
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
