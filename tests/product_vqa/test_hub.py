"""The Hub's bad moments, its absence, and settings of the environment that are nearly right."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import _http

from dataset_builder.push import check_target, push
from inference.demo import DemoOptions
from inference.space import push_space
from product_vqa.cards import mark_card
from product_vqa.dataset import load_split
from product_vqa.errors import InputError, argument
from product_vqa.hub import MAX_WAIT_S, Location, commit_files, download, list_files, locate, retries
from product_vqa.modeling.loading import load_config, load_processor
from tests.commands import ROOT
from tests.faulty_hub import FaultyHub, answer, done_but_500, done_but_reset, faulty_hub, point_at, reset
from training.push import open_repo, push_run

# ---- Bad moments ---------------------------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were to be waited; nobody waits."""
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(retries, "time", clock)
    monkeypatch.setattr(_http, "time", clock)
    return slept


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    with faulty_hub(tmp_path_factory.mktemp("hub")) as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("local/read-by-the-page")
        yield hub


@pytest.fixture
def bad_hub(faulty: FaultyHub, monkeypatch: pytest.MonkeyPatch) -> FaultyHub:
    point_at(faulty, monkeypatch)
    faulty.begin()
    return faulty


def folder_of(files: dict[str, bytes], root: Path) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


CARD = mark_card("---\nlicense: other\n---\n# A card\n\ntext\n").encode()


def push_dataset(name: str, folder: Path) -> None:
    files = {"README.md": CARD, "data/train-0.parquet": b"\0" * 300_000, "data/test-0.parquet": b"\1" * 300_000}
    push(folder_of(files, folder), check_target(name, private=True), private=True)


def push_adapter(name: str, folder: Path) -> None:
    files = {"README.md": CARD, "adapter_model.safetensors": b"\2" * 300_000, "adapter_config.json": b"{}"}
    push_run(folder_of(files, folder), files=sorted(files), repo_id=open_repo(name, private=True), revision=None)


def push_calibration(name: str, folder: Path) -> None:
    commit_files(open_repo(name, private=True), {"calibration.json": b"{}"}, message="Calibrated")


def push_page(name: str, folder: Path) -> None:
    push_space(DemoOptions(adapter="local/read-by-the-page", push_to_hub=True, space_id=name))


PUSHES: dict[str, tuple[Callable[[str, Path], None], str, int]] = {
    "dataset": (push_dataset, "dataset", 3),
    "adapter": (push_adapter, "model", 3),
    "calibration": (push_calibration, "model", 1),
    "space": (push_page, "space", 40),
}
FAULTS: dict[str, Any] = {
    "429": answer(429, retry_after="1"),
    "500": answer(500),
    "502 of a proxy": answer(502, b"<html>Bad gateway", content_type="text/html"),
    "connection reset": reset,
    "done, but 500": done_but_500,
    "done, but connection reset": done_but_reset,
}


CASES = [("dataset", fault) for fault in FAULTS]
CASES += [(kind, fault) for kind in ("adapter", "calibration", "space") for fault in ("429", "done, but 500")]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fault"), CASES)
def test_a_fault_at_any_one_request_costs_a_push_nothing(
    bad_hub: FaultyHub, kind: str, fault: str, slept: list[float], tmp_path: Path
) -> None:
    run, repo_type, files = PUSHES[kind]
    tried, at = 0, 0
    while at == tried:  # until a push has fewer requests
        name = f"local/{kind}-{list(FAULTS).index(fault)}-{at}"
        bad_hub.begin(FAULTS[fault], at=at)
        run(name, tmp_path)
        tried += len(bad_hub.requests) > at
        at += 1
        commits = HfApi().list_repo_commits(name, repo_type=repo_type)
        assert len(commits) == 2, f"{[commit.title for commit in commits]} after {bad_hub.requests[tried - 1]}"
        assert len(set(HfApi().list_repo_files(name, repo_type=repo_type)) - {".gitattributes"}) >= files
    assert tried >= 5
    assert slept and max(slept) <= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "longest"),
    [
        ({"retry_after": "7"}, 8),
        ({"retry_after": "0"}, 1),
        ({"retry_after": "-5"}, 1),
        ({"retry_after": "soon"}, 1),
        ({"retry_after": "\xb2"}, 1),
        ({"retry_after": "1e9"}, 1),
        ({"retry_after": "9" * 400}, 1),
        ({"retry_after": str(MAX_WAIT_S + 1)}, 1),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 1),
        ({"retry_after": "Wed, 99 Nix 2015 07:28:00 GMT"}, 1),
        ({"ratelimit": '"api";r=0;t=5'}, 6),
        ({"ratelimit": '"api";r=0;t=99999999999999'}, 1),
    ],
    ids=lambda value: next(iter(value.values()))[:12] if isinstance(value, dict) else "",
)
def test_a_wait_that_is_asked_for_is_kept_within_bounds(
    bad_hub: FaultyHub, slept: list[float], tmp_path: Path, headers: dict[str, str], longest: int
) -> None:
    name = f"local/asked-{abs(hash(str(headers)))}"
    for at in (0, 6):  # of our own requests, and of those that the client tries again by itself: a large file's
        bad_hub.begin(answer(429, **headers), at=at)
        push_dataset(f"{name}-{at}", tmp_path)
        assert at != 6 or bad_hub.requests[6].startswith("PUT /large_files")
        assert longest - 1 <= sum(slept) <= max(longest, 2)
        slept.clear()


def test_an_asked_date_is_waited_for(bad_hub: FaultyHub, slept: list[float], tmp_path: Path) -> None:
    bad_hub.begin(answer(503, retry_after=formatdate(time.time() + 30, usegmt=True)), at=0)
    push_dataset("local/asked-date", tmp_path)
    assert 28 <= sum(slept) <= 31


def test_a_hub_that_stays_bad_ends_the_push_in_one_line(
    bad_hub: FaultyHub, slept: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def always(*arguments: Any) -> None:
        await answer(429, retry_after="200")(*arguments)

    monkeypatch.setattr(bad_hub, "_app", lambda *arguments: always(bad_hub, *arguments))
    with pytest.raises(InputError, match=r"`hub_dataset_id` local/x: the Hub answered HTTP 429") as refusal:
        push_dataset("local/x", tmp_path)
    assert "\n" not in str(refusal.value)
    assert sum(slept) <= 600


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_the_hub_refuses_is_not_tried_again(
    bad_hub: FaultyHub, slept: list[float], tmp_path: Path, status: int
) -> None:
    bad_hub.begin(answer(status), at=0)
    with pytest.raises(InputError, match="`hub_dataset_id` local/x"):
        push_dataset("local/x", tmp_path)
    assert len(bad_hub.requests) == 1 and not slept


def test_a_commit_that_came_between_is_built_upon(bad_hub: FaultyHub, slept: list[float], tmp_path: Path) -> None:
    push_dataset("local/between", tmp_path)
    bad_hub.begin()
    (tmp_path / "data" / "train-0.parquet").write_bytes(b"\3" * 300_000)

    async def other_commit(hub: FaultyHub, scope: Any, receive: Any, send: Any) -> None:
        """Somebody else's commit arrives just before ours."""
        import asyncio

        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        await asyncio.to_thread(
            api.upload_file,
            repo_id="local/between", repo_type="dataset", path_in_repo="theirs.txt", path_or_fileobj=b"theirs",
        )  # fmt: skip
        await hub._app(scope, receive, send)

    run = [request for request in _requests_of_a_push(bad_hub, tmp_path, slept) if "/commit/" in request]
    assert len(run) == 1
    (tmp_path / "data" / "train-0.parquet").write_bytes(b"\4" * 300_000)
    commit_at = bad_hub.requests.index(run[0])
    bad_hub.begin(other_commit, at=commit_at)
    push(tmp_path, "local/between", private=True)
    assert "theirs.txt" in HfApi().list_repo_files("local/between", repo_type="dataset")
    assert slept == [1]
    file = huggingface_hub.HfFileSystem(endpoint=bad_hub.endpoint, token=bad_hub.token, skip_instance_cache=True)
    assert file.read_bytes("datasets/local/between/data/train-0.parquet") == b"\4" * 300_000


def _requests_of_a_push(hub: FaultyHub, folder: Path, slept: list[float]) -> list[str]:
    hub.begin()
    push(folder, "local/between", private=True)
    assert not slept
    return list(hub.requests)


@pytest.mark.parametrize(
    "fault", ["429", *(pytest.param(name, marks=pytest.mark.faults) for name in ("500", "connection reset"))]
)
def test_a_fault_at_any_one_request_costs_a_reading_of_base_and_dataset_nothing(
    bad_hub: FaultyHub, fault: str, slept: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    tiny_base: Path, tiny_dataset: Path,
) -> None:  # fmt: skip
    api = HfApi()
    for name, folder, repo_type in (("base", tiny_base, "model"), ("data", tiny_dataset, "dataset")):
        if not api.repo_exists(f"local/read-{name}", repo_type=repo_type):
            api.create_repo(f"local/read-{name}", repo_type=repo_type)
            api.upload_folder(repo_id=f"local/read-{name}", folder_path=folder, repo_type=repo_type)
    tried, at = 0, 0
    while at == tried:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / str(at)))
        bad_hub.begin(FAULTS[fault], at=at)
        with argument("d"), argument("d"):
            load_split(locate("local/read-data", repo_type="dataset"), "train")
        with argument("b"):
            base = locate("local/read-base")
        load_processor(base)
        with argument("b"):
            load_config(base)
        with argument("b"):
            download(base, patterns=["*.safetensors"])
        tried += len(bad_hub.requests) > at
        at += 1
    assert tried > 20


# ---- Visibility ----------------------------------------------------------------------------------------------------


def test_an_adapters_repo_is_private_unless_told_otherwise_and_stays_as_it_is(hub: Any) -> None:
    from training.options import TrainingOptions

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


# ---- Offline -------------------------------------------------------------------------------------------------------


@pytest.fixture
def repo(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repo of two commits with a branch and a tag; nothing of it in the cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    api, name = HfApi(), f"local/offline-{secrets.token_hex(4)}"
    api.create_repo(name, private=True)
    api.upload_file(repo_id=name, path_in_repo="a.json", path_or_fileobj=b"1")
    api.create_branch(name, branch="dev/x")
    api.create_tag(name, tag="v1")
    api.upload_file(repo_id=name, path_in_repo="a.json", path_or_fileobj=b"2")
    api.upload_file(repo_id=name, path_in_repo="b.json", path_or_fileobj=b"2")
    return name


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.parametrize("revision", ["", "@main", "@dev/x", "@v1", "@COMMIT", "@SHORT"])
def test_offline_a_repo_is_pinned_to_the_commit_that_it_was_online(
    repo: str, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    sha = str(HfApi().model_info(repo).sha)
    name = repo + revision.replace("COMMIT", sha).replace("SHORT", sha[:10])
    with argument("adapter"):
        online = locate(name)
    with argument("adapter"):
        folder = download(online, patterns=["a.json"])
    go_offline(monkeypatch)
    with argument("adapter"):
        offline = locate(name)
    assert offline == online and offline.folder is None and len(str(offline.revision)) == 40
    assert download(offline, patterns=["a.json"]) == folder
    assert (folder / "a.json").read_text() == ("1" if revision in ("@dev/x", "@v1") else "2")
    assert list_files(offline) == list_files(online)


def test_offline_what_was_never_online_is_one_line(repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with argument("adapter"), argument("adapter"):
        download(locate(repo), patterns=["a.json"])
    go_offline(monkeypatch)
    for name in (f"{repo}@v1", f"{repo}@{'0' * 40}", "local/never"):
        with (
            pytest.raises(InputError, match=rf"^`adapter` {name.partition('@')[0]}.* is not in the cache"),
            argument("adapter"),
        ):
            locate(name)
    with pytest.raises(InputError, match="is not in the cache, or only in part, and HF_HUB_OFFLINE"):
        download(locate(repo), patterns=["b.json"])
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        open_repo("local/x", private=True)


# ---- The environment -----------------------------------------------------------------------------------------------

LOCATE = """
from product_vqa.cli import InputError
from product_vqa.hub import locate
try:
    print(locate("local/tiny-base").name)
except InputError as error:
    print("error:", error)
"""


def located(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOCATE],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip()


def test_an_endpoint_and_a_token_that_are_nearly_right_work(hub: Any, tiny_repos: tuple[str, str]) -> None:
    address = hub.endpoint.removeprefix("http://")
    assert located(HF_ENDPOINT=f" {address}// ", HF_TOKEN=f"  {hub.token}\r\n") == "local/tiny-base"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://hub.example/", "https://hub.example"),
        ("https://hub.example", "https://hub.example"),
        ("hub.example", "https://hub.example"),
        (" hub.example:8443/x/\n", "https://hub.example:8443/x"),
        ("127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("localhost:8765/", "http://localhost:8765"),
        ("", None),
        (" / ", None),
    ],
)
def test_an_endpoint_is_completed(monkeypatch: pytest.MonkeyPatch, given: str, used: str | None) -> None:
    from product_vqa import _complete_endpoint

    monkeypatch.setenv("HF_ENDPOINT", given)
    _complete_endpoint()
    assert os.environ.get("HF_ENDPOINT") == used


@pytest.mark.parametrize(
    ("token", "endpoint", "message"),
    [
        ("hf_tökén", None, "the token .* contains a space or a character that is not ASCII"),
        ("hf_a b", None, "the token .* contains a space"),
        ("hf_a\x07b", None, "the token .* contains a space"),
        (None, "ftp://hub.example", "HF_ENDPOINT is 'ftp://hub.example', which is not an http URL"),
        (None, "http://", "HF_ENDPOINT is 'http://', which is not an http URL"),
        (None, "http://127.0.0.1:9", "no Hub answers at http://127.0.0.1:9"),
    ],
)
def test_a_wrong_token_or_endpoint_is_one_line(
    hub: Any,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    endpoint: str | None,
    message: str,
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    if endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    for ask in (lambda: locate("local/x"), lambda: open_repo("local/x", private=True)):
        with pytest.raises(InputError, match=message) as refusal:
            ask()
        assert "\n" not in str(refusal.value)


def test_a_folder_is_its_own_location(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.json").touch()
    location = Location(str(tmp_path))
    assert list_files(location) == ["a/b.json"]
    assert download(location, patterns=["*"]) == tmp_path
