import json

import pytest

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
