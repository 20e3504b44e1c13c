"""The Hub's bad moments: requests are retried, and the waits that it asks for are bounded."""

import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from product_vqa.dataset import load_split
from product_vqa.errors import InputError, argument
from product_vqa.hub import MAX_WAIT_S, download, locate, retries
from product_vqa.modeling.loading import load_config, load_processor
from tests.faulty_hub import FaultyHub, answer, done_but_500, done_but_reset, hang, reset
from tests.product_vqa.hub.pushes import PUSHES, push_dataset

FAULTS: dict[str, Any] = {
    "429": answer(429, retry_after="1"),
    "500": answer(500),
    "502 of a proxy": answer(502, b"<html>Bad gateway", content_type="text/html"),
    "connection reset": reset,
    "done, but 500": done_but_500,
    "done, but connection reset": done_but_reset,
}


CASES = [("dataset", fault) for fault in ("429", "connection reset", "done, but 500")]
CASES += [(kind, "done, but 500") for kind in ("adapter", "calibration", "space")]
MORE = [("dataset", fault) for fault in ("500", "502 of a proxy", "done, but connection reset")]
MORE += [(kind, "429") for kind in ("adapter", "calibration", "space")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fault"), [*CASES, *(pytest.param(*case, marks=pytest.mark.faults) for case in MORE)]
)
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
    assert tried > 15


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


@pytest.mark.faults
def test_a_hub_that_never_answers_is_asked_again(
    bad_hub: FaultyHub, slept: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The client itself sets no time limit for most of its requests."""
    monkeypatch.setitem(retries.TIMEOUTS_S, "read", 0.3)
    at, hung = 0, 0
    while at == hung:
        bad_hub.begin(hang, at=at)
        push_dataset("local/hanging", tmp_path)
        hung += bool(slept)
        slept.clear()
        at += 1
    assert hung >= 5


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


async def refuse_midway(hub: FaultyHub, scope: Any, receive: Any, send: Any) -> None:
    """Answers HTTP 401 after the first piece of the body, as if the token were revoked while a file is sent."""
    await receive()
    await send({"type": "http.response.start", "status": 401, "headers": []})
    await send({"type": "http.response.body", "body": b'{"error": "Invalid username or password."}'})


@pytest.mark.parametrize("at", [6, *(pytest.param(at, marks=pytest.mark.faults) for at in range(11) if at != 6)])
def test_a_token_that_is_refused_in_the_middle_of_a_push_is_one_line(
    bad_hub: FaultyHub, slept: list[float], tmp_path: Path, at: int
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "validation-00000-of-00001.parquet").write_bytes(bytes(8_000_000))  # more than is buffered
    name = f"local/revoked-{at}"
    bad_hub.begin(refuse_midway, at=at)
    with pytest.raises(InputError, match=rf"^`hub_dataset_id` {name}: .*401") as refusal:
        push_dataset(name, tmp_path)
    assert at != 6 or bad_hub.requests[6].startswith("PUT /large_files")
    assert "\n" not in str(refusal.value) and not slept
