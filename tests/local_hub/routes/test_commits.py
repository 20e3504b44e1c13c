import base64
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError

from local_hub import LocalHub
from local_hub.lfs import Pointer
from tests.local_hub.raw_requests import Send, commit_body, pointer_to, request_upload, upload_path


def test_an_unchanged_file_makes_no_commit(api: HfApi, repo: str) -> None:
    first = api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc").oid
    assert api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc").oid == first


def test_ignored_files_are_not_uploaded(api: HfApi, repo: str, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\nbuild/\n")
    for path in ("kept.txt", "run.log", "build/x.txt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x")
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert set(api.list_repo_files(repo)) == {".gitattributes", ".gitignore", "kept.txt"}


def test_a_regular_file_that_is_too_large_is_refused(hub: LocalHub, repo: str) -> None:
    line = b'{"key":"file","value":{"content":"' + b"A" * (17 * 2**20)
    url = f"{hub.endpoint}/api/models/{repo}/commit/main"
    headers = {"Authorization": f"Bearer {hub.token}"}
    assert get_session().post(url, content=line, headers=headers).status_code == 413


def test_a_pull_request_is_refused(api: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError, match="no pull requests"):
        api.upload_file(repo_id=repo, path_in_repo="x", path_or_fileobj=b"x", create_pr=True)


def test_an_lfs_upload_needs_a_signed_url_and_no_token(repo: str, send: Send) -> None:
    pointer = pointer_to(b"content")
    assert send("PUT", upload_path(send, repo, pointer), b"content", token=None).status == 200
    assert "actions" not in request_upload(send, repo, pointer)
    assert send("POST", f"/{repo}.git/info/lfs/objects/verify", json.dumps(vars(pointer))).status == 200


def test_the_sha256_of_a_file_in_another_repo_does_not_give_access_to_it(api: HfApi, repo: str, send: Send) -> None:
    content = os.urandom(100)
    private = api.create_repo(f"{repo}-private", private=True).repo_id
    api.upload_file(repo_id=private, path_in_repo="x.bin", path_or_fileobj=content)
    pointer = pointer_to(content)
    assert "actions" in request_upload(send, repo, pointer)  # it has to be uploaded to this repo too
    lfs_file = {"path": "x.bin", "algo": "sha256", "oid": pointer.oid, "size": pointer.size}
    pointer_file = {"path": "x.bin", "content": base64.b64encode(pointer.format()).decode(), "encoding": "base64"}
    for operation in (("lfsFile", lfs_file), ("file", pointer_file)):
        response = send("POST", f"/api/models/{repo}/commit/main", commit_body(operation))
        assert response.status == 400 and "has not been uploaded" in response.json["error"]
    assert not api.file_exists(repo, "x.bin")


def test_a_commit_of_an_lfs_file_with_another_size_is_refused(repo: str, send: Send) -> None:
    pointer = pointer_to(b"content")
    send("PUT", upload_path(send, repo, pointer), b"content", token=None)
    value = {"path": "x.bin", "algo": "sha256", "oid": pointer.oid, "size": 8}
    assert send("POST", f"/api/models/{repo}/commit/main", commit_body(("lfsFile", value))).status == 400
    assert request_upload(send, repo, Pointer(pointer.oid, 8))["error"]["code"] == 422


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("sent", [b"CONTENT", b"conten", b"content and more", b""])
def test_an_lfs_upload_of_other_content_is_refused_and_leaves_no_file(
    hub: LocalHub, repo: str, send: Send, repo_folder: Callable[[str], Path], sent: bytes
) -> None:
    pointer = pointer_to(b"content")
    response = send("PUT", upload_path(send, repo, pointer), sent, token=None)
    assert response.status == 400 and pointer.oid in response.json["error"]
    assert files_below(hub.root / "arrivals") == files_below(repo_folder(repo) / "large_files") == []
    assert send("POST", f"/{repo}.git/info/lfs/objects/verify", json.dumps(vars(pointer))).status == 404
    assert send("PUT", upload_path(send, repo, pointer), b"content", token=None).status == 200


def test_a_commit_holds_a_limited_number_of_values_and_operations(repo: str, send: Send) -> None:
    url = f"/api/models/{repo}/commit/main"
    assert send("POST", url, b'{"key":"header","value":{"x":[' + b"1," * 40_000 + b"1]}}").status == 413
    deletions = '{"key":"deletedFile","value":{"path":"x"}}\n' * 50_001
    assert send("POST", url, deletions).status == 413


def test_a_preupload_lists_a_limited_number_of_files(repo: str, send: Send) -> None:
    files = [{"path": str(number), "size": 1} for number in range(1001)]
    for count, status in ((1000, 200), (1001, 413)):
        body = json.dumps({"files": files[:count]})
        assert send("POST", f"/api/models/{repo}/preupload/main", body).status == status


@pytest.mark.parametrize("size", [True, -1, 1.0, 10**16, 10**400, "1", None])
def test_a_size_that_is_not_a_number_of_bytes_is_refused(repo: str, send: Send, size: object) -> None:
    body = json.dumps({"operation": "upload", "objects": [{"oid": "0" * 64, "size": size}]})
    assert send("POST", f"/{repo}.git/info/lfs/objects/batch", body).status == 400


def test_an_upload_that_does_not_fit_on_the_disk_is_refused(repo: str, send: Send) -> None:
    path = upload_path(send, repo, Pointer("0" * 64, 10**15))
    response = send("PUT", path, b"x", token=None)
    assert response.status == 507 and "no space left" in response.json["error"]
