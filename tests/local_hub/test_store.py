import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from local_hub import LocalHub
from local_hub.store import Store, is_repo_name
from tests.local_hub.raw_requests import Send


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
