import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub, auth
from local_hub.lfs import Pointer

from .conftest import Send, commit_body


def pointer_to(content: bytes) -> Pointer:
    return Pointer(hashlib.sha256(content).hexdigest(), len(content))


def ask(send: Send, repo: str, pointer: Pointer) -> dict[str, str]:
    """Batch's answer for one object."""
    body = {"operation": "upload", "objects": [{"oid": pointer.oid, "size": pointer.size}], "hash_algo": "sha256"}
    return send("POST", f"/{repo}.git/info/lfs/objects/batch", json.dumps(body)).json["objects"][0]


def link_to(send: Send, repo: str, pointer: Pointer) -> str:
    return "/" + ask(send, repo, pointer)["actions"]["upload"]["href"].split("/", 3)[3]


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_upload_needs_no_token_but_its_own_link(repo: str, send: Send) -> None:
    pointer = pointer_to(b"content")
    assert send("PUT", link_to(send, repo, pointer), b"content", token=None).status == 200
    assert "actions" not in ask(send, repo, pointer)
    assert send("POST", f"/{repo}.git/info/lfs/objects/verify", json.dumps(vars(pointer))).status == 200


@pytest.mark.parametrize("sent", [b"CONTENT", b"conten", b"content and more", b""])
def test_other_content_than_announced_is_refused_and_leaves_nothing(
    hub: LocalHub, repo: str, send: Send, folder_of: Callable[[str], Path], sent: bytes
) -> None:
    pointer = pointer_to(b"content")
    answer = send("PUT", link_to(send, repo, pointer), sent, token=None)
    assert answer.status == 400 and pointer.oid in answer.json["error"]
    assert files_below(hub.root / "arrivals") == files_below(folder_of(repo) / "large_files") == []
    assert send("POST", f"/{repo}.git/info/lfs/objects/verify", json.dumps(vars(pointer))).status == 404
    assert send("PUT", link_to(send, repo, pointer), b"content", token=None).status == 200


def test_a_link_is_good_for_the_one_file_it_was_given_for(repo: str, send: Send) -> None:
    pointer, other = pointer_to(b"content"), pointer_to(b"another")
    link = link_to(send, repo, pointer)
    path, _, query = link.partition("?")
    for forged in (
        path,
        link.replace(pointer.oid, other.oid),
        link.replace(f"/{pointer.size}?", f"/{pointer.size + 1}?"),
        link.replace(repo, "local/other"),
        f"{path}?{query.replace('expires=', 'expires=9')}",
        f"{path}?expires=x&signature=",
    ):
        assert send("PUT", forged, b"content", token=None).status == 403, forged


@pytest.mark.parametrize(("minutes", "status"), [(59, 200), (61, 403)])
def test_a_link_is_good_for_an_hour(
    hub: LocalHub, repo: str, send: Send, monkeypatch: pytest.MonkeyPatch, minutes: int, status: int
) -> None:
    pointer = pointer_to(b"content")
    path = link_to(send, repo, pointer).partition("?")[0]
    given_out_at = time.time() - 60 * minutes
    monkeypatch.setattr(auth, "time", SimpleNamespace(time=lambda: given_out_at))
    query = auth.Accounts(token=hub.token).sign(path)
    assert send("PUT", f"{path}?{query}", b"content", token=None).status == status
    assert ("actions" in ask(send, repo, pointer)) == (status == 403)


def test_to_know_the_sha256_of_a_file_in_another_repo_is_not_to_have_it(api: HfApi, repo: str, send: Send) -> None:
    secret = os.urandom(100)
    private = api.create_repo(f"{repo}-private", private=True).repo_id
    api.upload_file(repo_id=private, path_in_repo="x.bin", path_or_fileobj=secret)
    pointer = pointer_to(secret)
    assert "actions" in ask(send, repo, pointer)  # it would have to be uploaded here too
    large = ("lfsFile", {"path": "x.bin", "algo": "sha256", "oid": pointer.oid, "size": pointer.size})
    import base64

    small = {"path": "x.bin", "content": base64.b64encode(pointer.format()).decode(), "encoding": "base64"}
    for operation in (large, ("file", small)):
        answer = send("POST", f"/api/models/{repo}/commit/main", commit_body(operation))
        assert answer.status == 400 and "has not been uploaded" in answer.json["error"]
    assert not api.file_exists(repo, "x.bin")


def test_a_commit_of_a_large_file_with_another_size_is_refused(repo: str, send: Send) -> None:
    pointer = pointer_to(b"content")
    send("PUT", link_to(send, repo, pointer), b"content", token=None)
    value = {"path": "x.bin", "algo": "sha256", "oid": pointer.oid, "size": 8}
    assert send("POST", f"/api/models/{repo}/commit/main", commit_body(("lfsFile", value))).status == 400
    assert ask(send, repo, Pointer(pointer.oid, 8))["error"]["code"] == 422
