"""No request reads or writes outside the repo that it names."""

import base64
import itertools
import secrets
from urllib.parse import quote

import pytest
from huggingface_hub import HfApi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_hub import LocalHub
from local_hub.repository import is_file_path
from tests.local_hub.raw_requests import Send, commit_body

SECRET = b"outside the repo"
PAYLOADS = [
    "..",
    "../../secret.txt",
    "%2e%2e",
    "%2e%2e%2fsecret.txt",
    "..%2f..%2f..%2fsecret.txt",
    "%2fetc%2fpasswd",
    "..%5c..%5csecret.txt",
    "%252e%252e%252fsecret.txt",
    "a%00b",
    "%00",
    ".git%2fconfig",
    "settings.json",
    "..%2fsettings.json",
    "%ff%fe",
    "%ed%a0%80",
    "//etc/passwd",
    "main%00",
    "HEAD",
    "main%5e",
    "main%40%7b0%7d",
]
ROUTES = [
    ("GET", "/X"),
    ("GET", "/X/X"),
    ("GET", "/datasets/local/X"),
    ("GET", "/local/X/resolve/main/a.txt"),
    ("GET", "/local/REPO/resolve/X/a.txt"),
    ("GET", "/local/REPO/resolve/main/X"),
    ("HEAD", "/local/REPO/resolve/main/X"),
    ("GET", "/datasets/X/X/resolve/main/X"),
    ("GET", "/api/models/X"),
    ("GET", "/api/models/local/X"),
    ("GET", "/api/X/local/REPO"),
    ("GET", "/api/models/local/REPO/revision/X"),
    ("GET", "/api/models/local/REPO/tree/X"),
    ("GET", "/api/models/local/REPO/tree/main/X"),
    ("GET", "/api/models/local/REPO/commits/X"),
    ("GET", "/api/models/local/X/refs"),
    ("POST", "/api/models/local/REPO/paths-info/X"),
    ("POST", "/api/models/local/X/branch/dev"),
    ("DELETE", "/api/models/local/REPO/branch/X"),
    ("DELETE", "/api/models/local/REPO/tag/X"),
    ("POST", "/api/models/local/REPO/preupload/X"),
    ("POST", "/api/models/local/REPO/commit/X"),
    ("POST", "/local/X.git/info/lfs/objects/batch"),
    ("PUT", "/api/models/local/X/settings"),
    ("PUT", "/large_files/models/local/X/X/1"),
    ("PUT", "/large_files/models/X/X/X/X"),
]


@pytest.fixture(scope="module")
def target(api: HfApi, hub: LocalHub) -> str:
    """A repo with a secret file in each folder around it."""
    name = secrets.token_hex(6)
    api.create_repo(f"local/{name}")
    for folder in ("..", ".", "models", "models/local", f"models/local/{name}"):
        (hub.root / folder / "secret.txt").write_bytes(SECRET)
    return name


def test_no_route_reads_or_writes_outside_the_repo(target: str, hub: LocalHub, send: Send) -> None:
    before = {path for path in hub.root.rglob("*") if "objects" not in path.parts}
    count = 0
    for (method, route), payload in itertools.product(ROUTES, PAYLOADS):
        response = send(method, route.replace("REPO", target).replace("X", payload), "{}" if method != "GET" else None)
        assert 400 <= response.status < 500, (method, route, payload, response)
        assert SECRET not in response.body and b"gated" not in response.body, (method, route, payload)
        count += 1
    assert count == len(ROUTES) * len(PAYLOADS)
    assert {path for path in hub.root.rglob("*") if "objects" not in path.parts} == before


pieces = st.lists(
    st.sampled_from(["..", ".", "/", "//", "\\", "%2f", "%2e", "%00", "secret.txt", "git", ".git", "a", "é", "~"]),
    min_size=1,
    max_size=6,
).map("".join)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=pieces)
def test_no_spelling_of_a_path_reads_outside_the_repo(target: str, send: Send, path: str) -> None:
    for spelled in (quote(path, safe="/%"), quote(path, safe="")):
        for url in (f"/local/{target}/resolve/main/{spelled}", f"/api/models/local/{target}/tree/main/{spelled}"):
            response = send("GET", url)
            assert response.status in (200, 400, 404) and SECRET not in response.body
            # Only the root of the tree may answer 200, in any spelling.
            is_root = "/tree/" in url and not spelled.upper().replace("%2F", "/").strip("/")
            assert response.status != 200 or is_root, url


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.one_of(pieces, st.text(st.characters(exclude_categories=()), max_size=12)))
def test_a_committed_path_is_stored_as_it_is_or_refused(hub: LocalHub, target: str, send: Send, path: str) -> None:
    content = base64.b64encode(secrets.token_bytes(8)).decode()
    body = commit_body(("file", {"path": path, "content": content, "encoding": "base64"}))
    response = send("POST", f"/api/models/local/{target}/commit/main", body)
    if response.status == 200:
        assert is_file_path(path)
        assert send("GET", f"/local/{target}/resolve/main/{quote(path, safe='')}").body == base64.b64decode(content)
        send("POST", f"/api/models/local/{target}/commit/main", commit_body(("deletedFile", {"path": path})))
    else:
        assert response.status == 400 and response.json["error"]
    assert {item.name for item in (hub.root / "models/local" / target).iterdir()} == {
        "git",
        "large_files",
        "settings.json",
        "secret.txt",
    }
