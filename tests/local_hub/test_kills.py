"""A commit is complete or absent, and a restarted hub works, whenever the hub is killed."""

import base64
import contextlib
import http.client
import os
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from local_hub import LocalHub
from tests.local_hub.raw_requests import commit_body, make_send, port_of

REPO = "local/killed"


def post_commit(hub: LocalHub, body: bytes) -> int | None:
    """The status, None if the hub was killed before it answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(hub), timeout=30)
    try:
        headers = {"Authorization": f"Bearer {hub.token}"}
        connection.request("POST", f"/api/models/{REPO}/commit/main", body, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def commit_files(files: dict[str, bytes]) -> bytes:
    values = [
        {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
        for path, content in files.items()
    ]
    return commit_body(*(("file", value) for value in values)).encode()


def random_files(folder: str) -> dict[str, bytes]:
    return {f"{folder}/{number}.txt": os.urandom(20_000) for number in range(150)}


def list_files(hub: LocalHub) -> list[str]:
    return HfApi(endpoint=hub.endpoint, token=hub.token).list_repo_files(REPO)


def check_repo(hub: LocalHub, *, contents: dict[str, bytes]) -> None:
    """Assert that the repo holds exactly `contents` and that git finds no error in it."""
    git = hub.root / "models" / REPO / "git"
    subprocess.run(["git", "--git-dir", str(git), "fsck", "--full", "--strict"], check=True, capture_output=True)
    assert set(list_files(hub)) == {".gitattributes", *contents}
    send = make_send(hub)
    for path in (*list(contents)[:3], *list(contents)[-3:]):
        assert send("GET", f"/{REPO}/resolve/main/{path}").body == contents[path]


def kill_during_commits(root: Path, *, shares: list[float]) -> int:
    """Kill the hub after each share of the time of a commit. Restart it, check the repo, and commit again.

    Returns how many of the killed commits were not made.
    """
    contents = random_files("0")
    interrupted = 0
    with LocalHub(root) as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo(REPO)
        start = time.monotonic()
        assert post_commit(hub, commit_files(contents)) == 200
        duration_s = time.monotonic() - start
        for share in shares:
            new = random_files(str(share))
            body = commit_files(new)
            with ThreadPoolExecutor(1) as pool:
                status = pool.submit(post_commit, hub, body)
                time.sleep(share * duration_s)
                assert hub.process is not None
                hub.process.kill()
            hub.start()
            is_committed = len(list_files(hub)) > len(contents) + 1
            assert is_committed or status.result(timeout=60) is None  # a commit that was answered is there
            interrupted += not is_committed
            check_repo(hub, contents=contents | new if is_committed else contents)
            assert post_commit(hub, body) == 200
            contents |= new
            check_repo(hub, contents=contents)
    return interrupted


@pytest.mark.faults
def test_a_kill_during_a_commit_leaves_the_old_state_or_the_new(tmp_path: Path) -> None:
    assert kill_during_commits(tmp_path, shares=[0.05, 0.2, 0.4, 0.6, 0.8, 1.0]) >= 1


@pytest.mark.faults
def test_twenty_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    assert kill_during_commits(tmp_path, shares=[rng.uniform(0, 1.1) for _ in range(20)]) >= 5


def upload(api: HfApi, content: bytes) -> None:
    api.upload_file(repo_id=REPO, path_in_repo="x.bin", path_or_fileobj=content)


def upload_to_killed_hub(api: HfApi, content: bytes) -> None:
    with contextlib.suppress(Exception):  # the client may fail in any way
        upload(api, content)


@pytest.mark.slow
def test_a_kill_during_an_lfs_upload_leaves_no_file(tmp_path: Path) -> None:
    content = os.urandom(60_000_000)
    with LocalHub(tmp_path) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo(REPO)
        thread = threading.Thread(target=upload_to_killed_hub, args=(api, content))
        thread.start()
        unfinished = tmp_path / "arrivals"
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in unfinished.iterdir()):
            assert time.monotonic() < deadline and thread.is_alive()
            time.sleep(0.001)
        assert hub.process is not None
        hub.process.kill()
    with LocalHub(tmp_path, port=port_of(hub), token=hub.token) as hub:
        thread.join(timeout=60)  # the client retries by itself
        upload(api, content)
        assert list(unfinished.iterdir()) == []
        (stored,) = api.get_paths_info(REPO, "x.bin")
        assert isinstance(stored, RepoFile) and stored.size == len(content)


@pytest.mark.slow
def test_the_lock_files_of_a_killed_process_do_not_block_a_branch(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo(REPO)
    git = tmp_path / "models" / REPO / "git"
    for lock in ("refs/heads/main.lock", "HEAD.lock", "packed-refs.lock", "config.lock"):
        (git / lock).touch()
    (git / "objects" / "tmp_object_git2_0123456789abcdef").write_bytes(b"unfinished")
    with LocalHub(tmp_path) as hub:
        assert post_commit(hub, commit_files({"a": b"1"})) == 200
        check_repo(hub, contents={"a": b"1"})
    assert not list(git.rglob("*.lock"))
