import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import httpx2  # huggingface_hub's own client
import pygit2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from local_hub import LocalHub
from local_hub.store import Store, is_repo_name
from tests.local_hub.raw_requests import Send, make_send, pointer_to, upload_path


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("a", True),
        ("Foo-BAR_foo.bar123", True),
        ("x" * 96, True),
        ("x" * 97, False),
        ("", False),
        (".", False),
        ("..", False),
        ("a..b", False),
        ("a--b", False),
        (".a", False),
        ("a-", False),
        ("a.git", False),
        ("a/b", False),
        ("a b", False),
        ("é", False),
        ("a\n", False),
        (None, False),
    ],
)
def test_repo_names_follow_the_hubs_rule(send: Send, name: str | None, allowed: bool) -> None:
    assert is_repo_name(name) == allowed
    if not allowed and name is not None:
        for path, body in (
            ("create", {"name": name}),
            ("move", {"fromRepo": "local/nope", "toRepo": f"local/{name}", "type": "model"}),
        ):
            assert send("POST", f"/api/repos/{path}", json.dumps(body)).status in (400, 404)


def test_other_users_of_the_machine_cannot_read_the_root(tmp_path: Path) -> None:
    earlier = os.umask(0)  # the most permissive one
    try:
        Store(tmp_path / "created" / "hub").close()
    finally:
        os.umask(earlier)
    assert stat.S_IMODE((tmp_path / "created" / "hub").stat().st_mode) == 0o700


def test_a_repo_is_created_once_then_moved_and_deleted(api: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(repo)
    assert api.create_repo(repo, exist_ok=True).repo_id == repo
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc")
    api.move_repo(repo, f"{repo}-moved")
    assert not api.repo_exists(repo) and api.file_exists(f"{repo}-moved", "x.bin")
    api.delete_repo(f"{repo}-moved")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(f"{repo}-moved")


def test_symbolic_links_on_disk_are_not_followed(
    api: HfApi, hub: LocalHub, repo: str, send: Send, tmp_path: Path, repo_folder: Callable[[str], Path]
) -> None:
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc")
    secret = b"outside the root"
    stored = next(path for path in (repo_folder(repo) / "large_files").rglob("*") if path.is_file())
    (tmp_path / "secret.txt").write_bytes(secret)
    stored.unlink()
    stored.symlink_to(tmp_path / "secret.txt")
    assert secret not in send("GET", f"/{repo}/resolve/main/x.bin").body
    repo_folder(repo).rename(tmp_path / "moved")
    repo_folder(repo).symlink_to(tmp_path / "moved")
    assert send("GET", f"/api/models/{repo}").status == 404


@pytest.mark.faults
def test_an_old_upload_that_was_never_committed_is_deleted_at_the_next_start(tmp_path: Path) -> None:
    names = {}
    with LocalHub(tmp_path) as hub:
        api, send = HfApi(endpoint=hub.endpoint, token=hub.token), make_send(hub)
        api.create_repo("local/x")
        for name in ("committed", "old", "new"):
            content = name.encode()
            names[pointer_to(content).oid] = name
            send("PUT", upload_path(send, "local/x", pointer_to(content)), content, token=None)
        api.upload_file(repo_id="local/x", path_in_repo="x.bin", path_or_fileobj=b"committed")
        api.upload_file(repo_id="local/x", path_in_repo="y.bin", path_or_fileobj=b"committed too")
        names[pointer_to(b"committed too").oid] = "committed too"
    two_days_ago = time.time() - 2 * 24 * 3600
    for path in tmp_path.glob("models/local/x/large_files/*/*"):
        if names[path.name] != "new":
            os.utime(path, (two_days_ago, two_days_ago))
        if names[path.name] == "committed too":
            path.chmod(0o644)  # as if the hub had been killed right after the commit
    with LocalHub(tmp_path) as hub:
        stored = {names[path.name] for path in tmp_path.glob("models/local/x/large_files/*/*")}
        assert stored == {"committed", "committed too", "new"}
        send = make_send(hub)
        assert send("GET", "/local/x/resolve/main/y.bin").body == b"committed too"


@pytest.mark.slow
def test_a_truncated_git_object_is_missing_after_a_restart_and_an_upload_replaces_it(tmp_path: Path) -> None:
    root, content = tmp_path / "hub", {f"{number}.txt": f"text {number}\n".encode() * 50 for number in range(3)}
    with LocalHub(root) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("local/texts")
        for name, data in content.items():
            api.upload_file(repo_id="local/texts", path_in_repo=name, path_or_fileobj=data)
    git = root / "models" / "local" / "texts" / "git"
    oid = str(pygit2.hash(content["1.txt"]))
    file = git / "objects" / oid[:2] / oid[2:]
    file.chmod(0o644)
    os.truncate(file, file.stat().st_size // 2)

    with LocalHub(root) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)

        def read(name: str) -> httpx2.Response:
            url = f"{hub.endpoint}/local/texts/resolve/main/{name}"
            return httpx2.get(url, headers={"Authorization": f"Bearer {hub.token}"}, timeout=20)

        assert read("1.txt").status_code == 500
        assert read("0.txt").content == content["0.txt"]
        assert not file.exists() and (git.parent / "damaged" / oid).exists()
        api.upload_file(repo_id="local/texts", path_in_repo="1.txt", path_or_fileobj=content["1.txt"])
        assert read("1.txt").content == content["1.txt"]
        assert len(api.list_repo_commits("local/texts")) > 3
