"""A commit builds upon others, sends only what is missing, and drops what is obsolete."""

import asyncio
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi

from dataset_builder.push import push
from product_vqa.hub import commit_files
from tests.faulty_hub import FaultyHub
from tests.product_vqa.hub.pushes import push_dataset


def test_a_commit_that_came_between_is_built_upon(bad_hub: FaultyHub, slept: list[float], tmp_path: Path) -> None:
    push_dataset("local/between", tmp_path)
    bad_hub.begin()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"\3" * 300_000)

    async def other_commit(hub: FaultyHub, scope: Any, receive: Any, send: Any) -> None:
        """Somebody else's commit arrives just before ours."""

        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        await asyncio.to_thread(
            api.upload_file,
            repo_id="local/between", repo_type="dataset", path_in_repo="theirs.txt", path_or_fileobj=b"theirs",
        )  # fmt: skip
        await hub._app(scope, receive, send)

    run = [request for request in _requests_of_a_push(bad_hub, tmp_path, slept) if "/commit/" in request]
    assert len(run) == 1
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"\4" * 300_000)
    commit_at = bad_hub.requests.index(run[0])
    bad_hub.begin(other_commit, at=commit_at)
    push(tmp_path, "local/between", private=True)
    assert "theirs.txt" in HfApi().list_repo_files("local/between", repo_type="dataset")
    assert slept == [1]
    file = huggingface_hub.HfFileSystem(endpoint=bad_hub.endpoint, token=bad_hub.token, skip_instance_cache=True)
    assert file.read_bytes("datasets/local/between/data/train-00000-of-00001.parquet") == b"\4" * 300_000


def _requests_of_a_push(hub: FaultyHub, folder: Path, slept: list[float]) -> list[str]:
    hub.begin()
    push(folder, "local/between", private=True)
    assert not slept
    return list(hub.requests)


def test_files_that_the_repo_already_has_are_not_committed_again(bad_hub: FaultyHub) -> None:
    api = HfApi()
    api.create_repo("local/twice")
    files = {"a.json": b"1", "b.bin": bytes(300_000)}
    first = commit_files("local/twice", files, message="first")
    again = commit_files("local/twice", files, message="again")
    assert again.oid == first.oid
    assert next(iter(api.list_repo_commits("local/twice"))).title == "first"


def test_obsolete_files_are_deleted_and_others_kept(bad_hub: FaultyHub) -> None:
    api = HfApi()
    api.create_repo("local/obsolete")
    commit_files(
        "local/obsolete", {"data/0.bin": b"0", "data/1.bin": b"1", "notes.txt": b"mine"}, message="two shards"
    )
    commit_files(
        "local/obsolete",
        {"data/0.bin": b"new"},
        message="one shard",
        is_obsolete=lambda name: name.startswith("data/"),
    )
    assert set(api.list_repo_files("local/obsolete")) - {".gitattributes"} == {"data/0.bin", "notes.txt"}
    assert len(api.list_repo_commits("local/obsolete")) == 3
