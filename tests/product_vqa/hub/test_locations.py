"""A name becomes a folder, or a repo at a commit: online, and the same one offline."""

import os
import secrets
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, download, find_file, list_files, locate, page_url, read_file
from training.push import open_repo


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


def test_a_folder_is_its_own_location(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.json").touch()
    location = Location(str(tmp_path))
    assert list_files(location) == ["a/b.json"]
    assert download(location, patterns=["*"]) == tmp_path


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == Location(str(tmp_path))
    with pytest.raises(InputError, match=r"is a folder and has no revision 'v1'"):
        locate(str(tmp_path), revision="v1")
    with pytest.raises(InputError, match="no such folder"):
        locate(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"user/x@v1 already names a revision; drop `revision` 'v2'"):
        locate("user/x@v1", revision="v2")


def test_a_file_is_read_at_a_revision_and_without_the_cache(repo: str, tmp_path: Path) -> None:
    assert (read_file(repo, "a.json"), read_file(repo, "a.json", revision="dev/x")) == (b"2", b"1")
    assert not (tmp_path / "cache").exists()


def test_a_file_that_is_larger_than_expected_is_not_read_into_memory(repo: str) -> None:
    HfApi().upload_file(repo_id=repo, path_in_repo="large.json", path_or_fileobj=b" " * 2_000_000)
    assert len(read_file(repo, "large.json")) == 2_000_000
    with pytest.raises(InputError, match=r"its file 'large\.json' has more than 1000000 bytes"):
        read_file(repo, "large.json", max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("repo_type", "path"), [("model", "user/x"), ("dataset", "datasets/user/x"), ("space", "spaces/user/x")]
)
def test_the_page_of_a_repo_is_on_the_hub_in_use(monkeypatch: pytest.MonkeyPatch, repo_type: str, path: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert page_url("user/x", repo_type=repo_type) == f"http://127.0.0.1:9/{path}"


def test_only_a_regular_file_within_the_folder_is_found(tmp_path: Path) -> None:
    folder, location = tmp_path / "folder", Location(str(tmp_path / "folder"))
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("a")
    (folder / "inside").symlink_to(folder / "sub" / "a")
    (tmp_path / "outside").write_text("b")
    (folder / "outside").symlink_to(tmp_path / "outside")
    (folder / "dangling").symlink_to(tmp_path / "none")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    assert find_file(location, folder, "none") is None
    assert find_file(location, folder, "sub/a") == folder / "sub" / "a"
    assert find_file(location, folder, "inside") == folder / "inside"
    for name, reason in {
        "outside": "a link out of the folder", "../outside": "a link out of the folder", "sub": "not a regular file",
        "pipe": "not a regular file", "dangling": "a link to a file that does not exist", "loop": "cannot be read",
        "x" * 5000: "cannot be read", "a\0": "cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=reason):
            find_file(location, folder, name)


@pytest.mark.parametrize("name", ["x" * 5000, "\ud800", "a\0b"], ids=ascii)
def test_a_name_that_no_file_can_have_is_one_line(name: str) -> None:
    with pytest.raises(InputError) as refusal:
        locate(name)
    assert "\n" not in str(refusal.value)
