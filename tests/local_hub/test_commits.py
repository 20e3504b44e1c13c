"""A commit is whole or absent, whoever else commits and whenever the hub is killed."""

import base64
import contextlib
import http.client
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError

from local_hub import LocalHub

from .conftest import commit_body, sender

REPO = "local/killed"


def test_a_stale_parent_is_refused(api: HfApi, repo: str) -> None:
    old = api.model_info(repo).sha
    new = api.upload_file(repo_id=repo, path_in_repo="a", path_or_fileobj=b"1", parent_commit=old).oid
    with pytest.raises(HfHubHTTPError) as refused:
        api.upload_file(repo_id=repo, path_in_repo="b", path_or_fileobj=b"2", parent_commit=old)
    assert refused.value.response.status_code == 412
    api.upload_file(repo_id=repo, path_in_repo="b", path_or_fileobj=b"2", parent_commit=new[:7])
    assert set(api.list_repo_files(repo)) == {".gitattributes", "a", "b"}


def test_commits_that_arrive_together_all_land(api: HfApi, repo: str) -> None:
    def commit(number: int) -> None:
        api.create_commit(repo, [CommitOperationAdd(f"{number}.txt", b"x" * 100_000)], commit_message=str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(commit, range(16)))
    assert set(api.list_repo_files(repo)) == {".gitattributes", *(f"{number}.txt" for number in range(16))}
    assert len(api.list_repo_commits(repo)) == 17


def test_of_two_commits_on_one_parent_one_lands(api: HfApi, repo: str) -> None:
    parent = api.model_info(repo).sha

    def commit(number: int) -> int:
        try:
            operations = [CommitOperationAdd(f"{number}.txt", b"x")]
            api.create_commit(repo, operations, commit_message="x", parent_commit=parent)
            return 200
        except HfHubHTTPError as error:
            return error.response.status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(commit, range(8)))
    assert sorted(statuses) == [200] + 7 * [412]


def test_a_file_that_is_too_large_for_git_is_refused(hub: LocalHub, repo: str) -> None:
    line = b'{"key":"file","value":{"content":"' + b"A" * (17 * 2**20)
    url, headers = f"{hub.endpoint}/api/models/{repo}/commit/main", {"Authorization": f"Bearer {hub.token}"}
    assert get_session().post(url, content=line, headers=headers).status_code == 413


def post_commit(hub: LocalHub, body: bytes) -> int | None:
    """Status, None if the hub went away meanwhile."""
    connection = http.client.HTTPConnection("127.0.0.1", int(hub.endpoint.rpartition(":")[2]), timeout=30)
    try:
        headers = {"Authorization": f"Bearer {hub.token}"}
        connection.request("POST", f"/api/models/{REPO}/commit/main", body, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def big_commit(files: dict[str, bytes]) -> bytes:
    values = [
        {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
        for path, content in files.items()
    ]
    return commit_body(*(("file", value) for value in values)).encode()


def make_files(folder: str) -> dict[str, bytes]:
    return {f"{folder}/{number}.txt": os.urandom(20_000) for number in range(150)}


def list_files(hub: LocalHub) -> list[str]:
    return HfApi(endpoint=hub.endpoint, token=hub.token).list_repo_files(REPO)


def check_health(hub: LocalHub, *, contents: dict[str, bytes]) -> None:
    """The repo holds exactly `contents`, and git finds nothing wrong with it."""
    git = hub.root / "models" / REPO / "git"
    subprocess.run(["git", "--git-dir", str(git), "fsck", "--full", "--strict"], check=True, capture_output=True)
    assert set(list_files(hub)) == {".gitattributes", *contents}
    send = sender(hub)
    for path in (*list(contents)[:3], *list(contents)[-3:]):
        assert send("GET", f"/{REPO}/resolve/main/{path}").body == contents[path]


def kill_during_commits(root: Path, *, shares: list[float]) -> int:
    """Kill the hub after each share of the time that a commit takes, start it again, push again, and check it.

    Returns how many of the commits were absent afterwards.
    """
    contents = make_files("0")
    interrupted = 0
    with LocalHub(root) as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo(REPO)
        start = time.monotonic()
        assert post_commit(hub, big_commit(contents)) == 200
        takes_s = time.monotonic() - start
        for share in shares:
            new = make_files(str(share))
            body = big_commit(new)
            with ThreadPoolExecutor(1) as pool:
                pushed = pool.submit(post_commit, hub, body)
                time.sleep(share * takes_s)
                assert hub.process is not None
                hub.process.kill()
            hub.start()
            landed = len(list_files(hub)) > len(contents) + 1
            assert landed or pushed.result(timeout=60) is None  # what was acknowledged is there
            interrupted += not landed
            check_health(hub, contents=contents | new if landed else contents)
            assert post_commit(hub, body) == 200
            contents |= new
            check_health(hub, contents=contents)
    return interrupted


@pytest.mark.slow
def test_a_kill_during_a_commit_leaves_the_old_state_or_the_new(tmp_path: Path) -> None:
    assert kill_during_commits(tmp_path, shares=[0.05, 0.2, 0.4, 0.6, 0.8, 1.0]) >= 1


@pytest.mark.faults
def test_twenty_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    assert kill_during_commits(tmp_path, shares=[rng.uniform(0, 1.1) for _ in range(20)]) >= 5


@pytest.mark.slow
def test_a_kill_during_the_upload_of_a_large_file_leaves_nothing_of_it(tmp_path: Path) -> None:
    content = os.urandom(60_000_000)
    with LocalHub(tmp_path) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo(REPO)
        upload = {"repo_id": REPO, "path_in_repo": "x.bin", "path_or_fileobj": content}
        pusher = threading.Thread(target=push_quietly, args=(api, upload))
        pusher.start()
        arrivals = tmp_path / "arrivals"
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in arrivals.iterdir()):
            assert time.monotonic() < deadline and pusher.is_alive()
            time.sleep(0.001)
        assert hub.process is not None
        hub.process.kill()
    with LocalHub(tmp_path, port=int(hub.endpoint.rpartition(":")[2]), token=hub.token) as hub:
        pusher.join(timeout=60)  # the client tries again by itself
        api.upload_file(**upload)
        assert list(arrivals.iterdir()) == []
        assert api.get_paths_info(REPO, "x.bin")[0].size == len(content)


def push_quietly(api: HfApi, upload: dict[str, object]) -> None:
    with contextlib.suppress(Exception):  # the hub goes away: whatever the client makes of it
        api.upload_file(**upload)  # type: ignore[arg-type]


def test_the_lock_files_of_a_killed_process_do_not_block_a_branch(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo(REPO)
    git = tmp_path / "models" / REPO / "git"
    for lock in ("refs/heads/main.lock", "HEAD.lock", "packed-refs.lock", "config.lock"):
        (git / lock).touch()
    (git / "objects" / "tmp_object_git2_0123456789abcdef").write_bytes(b"half")
    with LocalHub(tmp_path) as hub:
        assert post_commit(hub, big_commit({"a": b"1"})) == 200
        check_health(hub, contents={"a": b"1"})
    assert not list(git.rglob("*.lock"))


def test_a_push_by_git_itself_is_seen(api: HfApi, repo: str, folder_of: Callable[[str], Path]) -> None:
    git = ["git", "--git-dir", str(folder_of(repo) / "git")]
    subprocess.run([*git, "gc", "--quiet"], check=True)
    subprocess.run([*git, "branch", "side", "main"], check=True)
    api.upload_file(repo_id=repo, path_in_repo="a", path_or_fileobj=b"1", revision="side")
    assert api.file_exists(repo, "a", revision="side") and not api.file_exists(repo, "a")
