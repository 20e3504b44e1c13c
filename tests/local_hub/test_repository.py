import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from huggingface_hub import CommitOperation, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from local_hub import LocalHub
from local_hub.repository import is_ref_name
from tests.local_hub.raw_requests import Send, commit_body


def test_a_stale_parent_is_refused(api: HfApi, repo: str) -> None:
    old = api.model_info(repo).sha
    new = api.upload_file(repo_id=repo, path_in_repo="a", path_or_fileobj=b"1", parent_commit=old).oid
    with pytest.raises(HfHubHTTPError) as refused:
        api.upload_file(repo_id=repo, path_in_repo="b", path_or_fileobj=b"2", parent_commit=old)
    assert refused.value.response.status_code == 412
    api.upload_file(repo_id=repo, path_in_repo="b", path_or_fileobj=b"2", parent_commit=new[:7])
    assert set(api.list_repo_files(repo)) == {".gitattributes", "a", "b"}


def test_concurrent_commits_all_succeed(api: HfApi, repo: str) -> None:
    def commit(number: int) -> None:
        api.create_commit(repo, [CommitOperationAdd(f"{number}.txt", b"x" * 100_000)], commit_message=str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(commit, range(16)))
    assert set(api.list_repo_files(repo)) == {".gitattributes", *(f"{number}.txt" for number in range(16))}
    assert len(api.list_repo_commits(repo)) == 17


def test_of_concurrent_commits_with_one_parent_one_succeeds(api: HfApi, repo: str) -> None:
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


def test_one_commit_adds_deletes_and_replaces(api: HfApi, repo: str) -> None:
    api.create_commit(repo, [CommitOperationAdd(p, b"1") for p in ("a", "d/x", "d/y")], commit_message="one")
    operations: list[CommitOperation] = [
        CommitOperationDelete("a"),
        CommitOperationDelete("d/"),
        CommitOperationAdd("a/b", b"2"),
    ]
    api.create_commit(repo, operations, commit_message="two", commit_description="the details")
    assert set(api.list_repo_files(repo)) == {".gitattributes", "a/b"}
    newest = api.list_repo_commits(repo)[0]
    assert (newest.title, newest.message) == ("two", "the details")


def test_a_file_and_a_folder_cannot_share_a_path(repo: str, send: Send) -> None:
    add = [("file", {"path": path, "content": "", "encoding": "base64"}) for path in ("a", "a/b")]
    for operations in (add, add[::-1]):
        response = send("POST", f"/api/models/{repo}/commit/main", commit_body(*operations))
        assert response.status == 400 and "a would be a file and a folder" in response.json["error"]


@pytest.mark.parametrize(
    "path",
    [
        *("", "/abs", "../x", "a/../x", "a/./x", "./x", "a//x", "a/", ".git/config", "a/.GIT/x", "git~1/x", "a\\x"),
        *("a\0x", "a\nx", "\ud800", 7, None),
    ],
)
@pytest.mark.parametrize("key", ["file", "lfsFile", "deletedFile"])
def test_a_commit_of_an_invalid_path_is_refused(repo: str, send: Send, key: str, path: object) -> None:
    body = commit_body((key, {"path": path, "content": "", "encoding": "base64"}))
    status = send("POST", f"/api/models/{repo}/commit/main", body).status
    if key == "deletedFile" and path == "git~1/x":
        assert status == 404  # only libgit2 refuses this path, when it would be written
    else:
        assert status == 400


@pytest.mark.parametrize("name", ["..", "a..b", "a/../b", "/a", "a/", "a b", "a\0b", "a~1", "a^", "a:b", "x.lock", ""])
def test_invalid_names_of_branches_and_tags_are_refused(repo: str, send: Send, name: str) -> None:
    assert not is_ref_name(f"refs/heads/{name}")
    assert send("POST", f"/api/models/{repo}/tag/main", json.dumps({"tag": name})).status == 400
    if name and "/" not in name:
        assert send("POST", f"/api/models/{repo}/branch/{quote(name, safe='')}", "{}").status == 400


def test_a_branch_that_git_itself_created_is_found(api: HfApi, repo: str, repo_folder: Callable[[str], Path]) -> None:
    git = ["git", "--git-dir", str(repo_folder(repo) / "git")]
    subprocess.run([*git, "gc", "--quiet"], check=True)
    subprocess.run([*git, "branch", "side", "main"], check=True)
    api.upload_file(repo_id=repo, path_in_repo="a", path_or_fileobj=b"1", revision="side")
    assert api.file_exists(repo, "a", revision="side") and not api.file_exists(repo, "a")


def test_git_itself_reads_the_repo_and_the_pointers_of_lfs_files(
    api: HfApi, repo: str, repo_folder: Callable[[str], Path]
) -> None:
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc")
    git = ["git", "--git-dir", str(repo_folder(repo) / "git")]
    shown = subprocess.run([*git, "show", "main:x.bin"], capture_output=True, text=True, check=True).stdout
    sha256_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert shown == f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256_of_abc}\nsize 3\n"
    subprocess.run([*git, "fsck", "--strict"], check=True, capture_output=True)


@pytest.mark.parametrize(
    "path",
    [
        *("x" * 256, "é" * 128, "/".join("x" * 51), "/".join(["x" * 200] * 6), ".git.", ".git ", ".GIT/x", "a/.git:x"),
        *(".g\u200cit/x", "...", "a/ /b", "\u200d"),
    ],
)
def test_a_path_that_some_system_cannot_store_is_refused(repo: str, send: Send, path: str) -> None:
    body = commit_body(("file", {"path": path, "content": "", "encoding": "base64"}))
    assert send("POST", f"/api/models/{repo}/commit/main", body).status == 400


@pytest.mark.parametrize("path", ["x" * 255, "/".join("x" * 50), "/".join(["x" * 200] * 5), "a.", "x.git/y", "gité"])
def test_a_long_or_odd_path_is_stored(api: HfApi, repo: str, path: str) -> None:
    api.upload_file(repo_id=repo, path_in_repo=path, path_or_fileobj=b"x")
    assert path in api.list_repo_files(repo)


def test_a_long_name_of_a_branch_is_refused_without_a_path_of_the_server(repo: str, send: Send, hub: LocalHub) -> None:
    for name in ("x" * 256, "x" * 244, "main%2Fx"):
        response = send("POST", f"/api/models/{repo}/branch/{name}", "{}")
        assert response.status == (200 if name == "x" * 244 else 400), name
        assert str(hub.root).encode() not in response.body


@pytest.mark.slow
def test_a_commit_of_many_operations_takes_no_quadratic_time(repo: str, send: Send) -> None:
    empty = {"content": "", "encoding": "base64"}
    files = [("file", {"path": f"{number % 100}/{number}", **empty}) for number in range(5000)]
    folders = [("deletedFolder", {"path": f"{number}"}) for number in range(100)]
    start = time.monotonic()
    url = f"/api/models/{repo}/commit/main"
    assert send("POST", url, commit_body(*files, *folders, ("file", {"path": "kept", **empty}))).status == 200
    assert time.monotonic() - start < 15
    assert send("POST", url, commit_body(*files[:2], *([("deletedFolder", {"path": "0"})] * 1001))).status == 400


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 30, b'{"private": tr', b'{"privatf": true}', b"[]", b'{"private": 1}', b"\xff", b'{"gated": 5}'],
)
def test_damaged_settings_hide_the_repo_and_the_answer_says_what_to_do(
    api: HfApi, reader: HfApi, repo: str, repo_folder: Callable[[str], Path], send: Send, content: bytes
) -> None:
    settings = repo_folder(repo) / "settings.json"
    intact = settings.read_bytes()
    settings.write_bytes(content)
    answer = send("GET", f"/api/models/{repo}")
    assert answer.status == 500
    assert f"models/{repo}/settings.json (restore it, or write" in answer.body.decode()
    assert send("GET", f"/api/models/{repo}", token=reader.token).status == 404
    assert send("GET", f"/api/models/{repo}", token=None).status == 401  # as for a repo that does not exist
    api.list_models(author="local")
    settings.write_bytes(b'{"private": true}')
    assert api.model_info(repo).private
    settings.write_bytes(intact)
