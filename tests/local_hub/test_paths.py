"""No request reads or writes outside the repo it names."""

import base64
import itertools
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from huggingface_hub import HfApi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_hub import LocalHub
from local_hub.repository import is_file_path, is_ref_name
from local_hub.store import is_repo_name

from .conftest import Send, commit_body

SECRET = b"what lies outside"
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
    """A repo, with something to be stolen around it."""
    name = secrets.token_hex(6)
    api.create_repo(f"local/{name}")
    for place in ("..", ".", "models", "models/local", f"models/local/{name}"):
        (hub.root / place / "secret.txt").write_bytes(SECRET)
    return name


def test_no_route_leads_out_of_the_repo(target: str, hub: LocalHub, send: Send) -> None:
    before = {path for path in hub.root.rglob("*") if "objects" not in path.parts}
    asked = 0
    for (method, route), payload in itertools.product(ROUTES, PAYLOADS):
        answer = send(method, route.replace("REPO", target).replace("X", payload), "{}" if method != "GET" else None)
        assert 400 <= answer.status < 500, (method, route, payload, answer)
        assert SECRET not in answer.body and b"gated" not in answer.body, (method, route, payload)
        asked += 1
    assert asked == len(ROUTES) * len(PAYLOADS)
    assert {path for path in hub.root.rglob("*") if "objects" not in path.parts} == before


pieces = st.lists(
    st.sampled_from(["..", ".", "/", "//", "\\", "%2f", "%2e", "%00", "secret.txt", "git", ".git", "a", "é", "~"]),
    min_size=1,
    max_size=6,
).map("".join)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=pieces)
def test_no_spelling_of_a_path_reads_outside_the_repo(target: str, send: Send, path: str) -> None:
    for spelled in (quote(path, safe="/%"), quote(path, safe="")):
        for url in (f"/local/{target}/resolve/main/{spelled}", f"/api/models/local/{target}/tree/main/{spelled}"):
            answer = send("GET", url)
            assert answer.status in (200, 400, 404) and SECRET not in answer.body
            # 200 is for the root of the tree alone, however it is spelled.
            is_root = "/tree/" in url and not spelled.upper().replace("%2F", "/").strip("/")
            assert answer.status != 200 or is_root, url


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.one_of(pieces, st.text(st.characters(exclude_categories=()), max_size=12)))
def test_a_committed_path_is_stored_as_it_is_or_refused(hub: LocalHub, target: str, send: Send, path: str) -> None:
    content = base64.b64encode(secrets.token_bytes(8)).decode()
    body = commit_body(("file", {"path": path, "content": content, "encoding": "base64"}))
    answer = send("POST", f"/api/models/local/{target}/commit/main", body)
    if answer.status == 200:
        assert is_file_path(path)
        assert send("GET", f"/local/{target}/resolve/main/{quote(path, safe='')}").body == base64.b64decode(content)
        send("POST", f"/api/models/local/{target}/commit/main", commit_body(("deletedFile", {"path": path})))
    else:
        assert answer.status == 400 and answer.json["error"]
    assert {item.name for item in (hub.root / "models/local" / target).iterdir()} == {
        "git",
        "large_files",
        "settings.json",
        "secret.txt",
    }


@pytest.mark.parametrize(
    "path",
    [
        *("", "/abs", "../x", "a/../x", "a/./x", "./x", "a//x", "a/", ".git/config", "a/.GIT/x", "git~1/x", "a\\x"),
        *("a\0x", "a\nx", "\ud800", 7, None),
    ],
)
@pytest.mark.parametrize("key", ["file", "lfsFile", "deletedFile"])
def test_a_path_that_does_not_stay_inside_is_refused(repo: str, send: Send, key: str, path: object) -> None:
    content = {"content": "", "encoding": "base64"}
    body = commit_body((key, {"path": path} | content))
    assert send("POST", f"/api/models/{repo}/commit/main", body).status in (
        (400, 404) if path == "git~1/x" else (400,)
    )


def test_a_file_and_a_folder_cannot_share_a_path(repo: str, send: Send) -> None:
    add = [("file", {"path": path, "content": "", "encoding": "base64"}) for path in ("a", "a/b")]
    for operations in (add, add[::-1]):
        answer = send("POST", f"/api/models/{repo}/commit/main", commit_body(*operations))
        assert answer.status == 400 and "a would be a file and a folder" in answer.json["error"]


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


@pytest.mark.parametrize("name", ["..", "a..b", "a/../b", "/a", "a/", "a b", "a\0b", "a~1", "a^", "a:b", "x.lock", ""])
def test_branch_names_follow_gits_rule(repo: str, send: Send, name: str) -> None:
    assert not is_ref_name(f"refs/heads/{name}")
    assert send("POST", f"/api/models/{repo}/tag/main", json.dumps({"tag": name})).status == 400
    if name and "/" not in name:
        assert send("POST", f"/api/models/{repo}/branch/{quote(name, safe='')}", "{}").status == 400


def test_links_on_the_disk_are_not_followed(
    api: HfApi, hub: LocalHub, repo: str, send: Send, tmp_path: Path, folder_of: Callable[[str], Path]
) -> None:
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc")
    stored = next(path for path in (folder_of(repo) / "large_files").rglob("*") if path.is_file())
    (tmp_path / "secret.txt").write_bytes(SECRET)
    stored.unlink()
    stored.symlink_to(tmp_path / "secret.txt")
    assert SECRET not in send("GET", f"/{repo}/resolve/main/x.bin").body
    folder_of(repo).rename(tmp_path / "moved")
    folder_of(repo).symlink_to(tmp_path / "moved")
    assert send("GET", f"/api/models/{repo}").status == 404
