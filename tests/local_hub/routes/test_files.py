import hashlib

import pytest
from huggingface_hub import HfApi

from tests.local_hub.raw_requests import Send


def test_the_answer_for_a_missing_file_names_the_commit(api: HfApi, repo: str, send: Send) -> None:
    response = send("HEAD", f"/{repo}/resolve/main/nope")
    assert (response.status, response.headers["x-error-code"]) == (404, "EntryNotFound")
    assert response.headers["x-repo-commit"] == api.model_info(repo).sha


def test_an_expanded_tree_has_the_last_commit_of_each_path(api: HfApi, repo: str) -> None:
    api.upload_file(repo_id=repo, path_in_repo="a/old.txt", path_or_fileobj=b"1", commit_message="first")
    api.upload_file(repo_id=repo, path_in_repo="a/new.txt", path_or_fileobj=b"2", commit_message="second")
    listed = api.list_repo_tree(repo, recursive=True, expand=True)
    titles = {entry.path: entry.last_commit.title for entry in listed if entry.last_commit}
    assert titles == {".gitattributes": "initial commit", "a": "second", "a/old.txt": "first", "a/new.txt": "second"}


@pytest.mark.parametrize(
    ("requested", "status", "expected", "content_range"),
    [
        ("bytes=0-9", 206, b"0123456789", "bytes 0-9/20"),
        ("bytes=15-", 206, b"fghij", "bytes 15-19/20"),
        ("bytes=-3", 206, b"hij", "bytes 17-19/20"),
        ("bytes=10-1000000", 206, b"abcdefghij", "bytes 10-19/20"),
        ("bytes=20-", 416, b"", "bytes */20"),
        (f"bytes={'9' * 5000}-", 200, b"0123456789abcdefghij", None),
        ("lines=0-1", 200, b"0123456789abcdefghij", None),
    ],
)
@pytest.mark.parametrize("path", ["small.txt", "large.bin"])
def test_a_range_of_a_file_is_answered(
    api: HfApi, send: Send, path: str, requested: str, status: int, expected: bytes, content_range: str | None
) -> None:
    api.create_repo("local/ranges", exist_ok=True)
    api.upload_file(repo_id="local/ranges", path_in_repo=path, path_or_fileobj=b"0123456789abcdefghij")
    response = send("GET", f"/local/ranges/resolve/main/{path}", Range=requested)
    if path == "large.bin" and status == 200:
        assert response.status in (200, 400, 416)  # Starlette refuses a range that it cannot parse
        return
    assert (response.status, response.body, response.headers.get("content-range")) == (status, expected, content_range)


@pytest.mark.parametrize("path", ["large.bin", "small.txt", "page.html", "README.md"])
def test_a_browser_revalidates_a_file_and_does_not_guess_its_type(
    api: HfApi, repo: str, send: Send, path: str
) -> None:
    api.upload_file(repo_id=repo, path_in_repo=path, path_or_fileobj=b"<script>alert(1)</script>")
    full = send("GET", f"/{repo}/resolve/main/{path}")
    responses = [
        full,
        send("HEAD", f"/{repo}/resolve/main/{path}"),
        send("GET", f"/{repo}/resolve/main/{path}", Range="bytes=0-3"),
        send("GET", f"/{repo}/resolve/main/{path}", If_None_Match=full.headers["etag"]),
    ]
    assert [response.status for response in responses] == [200, 200, 206, 304]
    for response in responses:
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert {response.headers["content-type"] for response in responses[:3]} == {"application/octet-stream"}


def test_the_headers_of_a_file_let_the_client_cache_it(api: HfApi, repo: str, send: Send) -> None:
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc")
    head = send("HEAD", f"/{repo}/resolve/main/x.bin")
    sha256 = hashlib.sha256(b"abc").hexdigest()
    assert head.headers["x-linked-etag"] == head.headers["etag"] == f'"{sha256}"'
    assert head.headers["content-length"] == head.headers["x-linked-size"] == "3"
    assert "content-encoding" not in head.headers
    assert send("GET", f"/{repo}/resolve/main/x.bin", If_None_Match=f'"{sha256}"').status == 304
