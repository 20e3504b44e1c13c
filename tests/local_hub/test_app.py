import errno
import json
import os
import resource
from pathlib import Path

import httpx2  # huggingface_hub's own client
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from local_hub import LocalHub
from local_hub.blobs import BlobFile
from local_hub.routes import files
from tests.faulty_hub import faulty_hub
from tests.local_hub.raw_requests import Send


def test_a_request_for_another_host_name_is_refused(repo: str, send: Send) -> None:
    assert send("GET", "/api/models", token=None, Host="evil.example").status == 400
    assert send("GET", "/api/models", token=None, Host="localhost:1").status == 200


def test_an_unknown_endpoint_is_answered_in_json(repo: str, send: Send) -> None:
    for method, path in (("GET", "/api/nope"), ("POST", f"/api/models/{repo}/super-squash/main"), ("PATCH", "/x")):
        response = send(method, path)
        assert response.status == 404 and "error" in response.json, (method, path)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/repos/create", "{"),
        ("/api/repos/create", "[]"),
        ("/api/repos/create", "{}"),
        ("/api/repos/create", json.dumps({"name": "x", "type": "thing"})),
        ("/api/repos/create", json.dumps({"name": "x", "visibility": "secret"})),
        ("/api/models/REPO/preupload/main", json.dumps({"files": [1]})),
        ("/api/models/REPO/preupload/main", json.dumps({"files": [{"path": "a", "size": "1"}]})),
        ("/api/models/REPO/commit/main", "no json\n"),
        ("/api/models/REPO/commit/main", '{"key":"header"}\n'),
        ("/api/models/REPO/commit/main", ""),
        ("/api/models/REPO/commit/main", '{"key":"rename","value":{"path":"a"}}\n'),
        ("/api/models/REPO/commit/main", '{"key":"file","value":{"path":"a","content":"?","encoding":"base64"}}\n'),
        ("/REPO.git/info/lfs/objects/batch", json.dumps({"operation": "upload", "objects": [{"oid": "../x"}]})),
        ("/REPO.git/info/lfs/objects/batch", json.dumps({"operation": "download"})),
    ],
)
def test_a_malformed_request_is_answered_with_400(repo: str, send: Send, path: str, body: str) -> None:
    response = send("POST", path.replace("REPO", repo), body)
    assert response.status == 400 and response.json["error"]


WRONG = [None, True, -1, 1.5, 10**400, "", "../x", "\x00", "\ud800", "x" * 2000, [], {}, [1], [{}], {"path": []}]
FIELDS = {
    "/api/validate-yaml": ["content", "repoType"],
    "/api/repos/create": ["name", "organization", "type", "visibility", "private"],
    "/api/repos/move": ["fromRepo", "toRepo", "type"],
    "/api/models/REPO/branch/x": ["startingPoint"],
    "/api/models/REPO/tag/main": ["tag", "message"],
    "/api/models/REPO/preupload/main": ["files", "gitIgnore"],
    "/REPO.git/info/lfs/objects/batch": ["operation", "objects", "hash_algo"],
    "/REPO.git/info/lfs/objects/verify": ["oid", "size"],
}


@pytest.mark.parametrize("path", FIELDS)
def test_no_value_of_a_field_is_an_internal_error(repo: str, send: Send, path: str) -> None:
    usual = {"name": "x", "fromRepo": repo, "toRepo": "local/y", "tag": "t", "operation": "upload", "objects": []}
    for field in FIELDS[path]:
        for value in WRONG:
            body = json.dumps(usual | {"oid": "0" * 64, "size": 1, field: value})
            response = send("POST", path.replace("REPO", repo), body)
            assert response.status < 500, (field, value, response.body)


def test_no_value_in_a_line_of_a_commit_is_an_internal_error(repo: str, send: Send) -> None:
    usual = {"path": "a", "content": "YQ==", "encoding": "base64", "oid": "0" * 64, "algo": "sha256", "size": 1}
    for key in ("header", "file", "lfsFile", "deletedFile", "deletedFolder", None, 1, []):
        for field in ("path", "content", "oid", "size", "summary", "parentCommit"):
            for value in WRONG[::2]:
                line = json.dumps({"key": key, "value": usual | {field: value}})
                body = f'{{"key":"header","value":{{"summary":"x"}}}}\n{line}\n'
                assert send("POST", f"/api/models/{repo}/commit/main", body).status < 500, (key, field, value)


def test_no_query_is_an_internal_error(repo: str, send: Send) -> None:
    url = f"/api/models/{repo}"
    for path in ("/api/models", url, f"{url}/tree/main", f"{url}/commits/main"):
        for query in (
            "cursor=-1",
            f"cursor={'9' * 30}",
            "limit=x",
            "limit=0",
            "at=%ff",
            "search=%ff",
            "%",
            "expand=1",
        ):
            assert send("GET", f"{path}?{query}").status < 500, (path, query)


def test_a_file_that_cannot_be_written_is_507_and_one_line(hub: LocalHub, capfd: pytest.CaptureFixture[str]) -> None:
    """A limit on the size of files stands for a full disk."""
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    api.create_repo("local/full")
    assert hub.process is not None
    limits = resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(HfHubHTTPError) as refusal:
            api.create_commit("local/full", [CommitOperationAdd("a.txt", os.urandom(5000))], commit_message="Add")
    finally:
        resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, limits)
    assert refusal.value.response.status_code == 507
    assert api.list_repo_files("local/full") == [".gitattributes"]
    assert "Traceback" not in capfd.readouterr().err
    api.create_commit("local/full", [CommitOperationAdd("a.txt", b"small")], commit_message="Add")


@pytest.mark.slow
def test_a_file_that_the_disk_stops_reading_is_cut_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    content = b"text\n" * (files.CHUNK_SIZE // 2)
    with faulty_hub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("local/texts")
        api.upload_file(repo_id="local/texts", path_in_repo="a.txt", path_or_fileobj=content)

        def read_once(self: BlobFile, offset: int, size: int) -> bytes:
            if offset:
                raise OSError(errno.EIO, "Input/output error")
            return content[:size]

        monkeypatch.setattr(BlobFile, "read", read_once)
        url = f"{hub.endpoint}/local/texts/resolve/main/a.txt"
        headers = {"Authorization": f"Bearer {hub.token}"}
        with pytest.raises(httpx2.RemoteProtocolError, match="without sending complete message body"):
            httpx2.get(url, headers=headers)
        monkeypatch.undo()
        assert httpx2.get(url, headers=headers).content == content
    (line,) = [record for record in caplog.records if record.name == "local_hub.app"]
    assert (
        line.getMessage() == "GET /local/texts/resolve/main/a.txt: [Errno 5] Input/output error: the response is cut"
    )
    assert not [record for record in caplog.records if record.exc_info]
