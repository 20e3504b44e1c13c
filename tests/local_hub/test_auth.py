import asyncio
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from starlette.datastructures import QueryParams

from local_hub import LocalHub
from local_hub.admission import GuestShare, OwnerShare
from local_hub.auth import Accounts, AdmissionMiddleware, AuthenticationMiddleware
from tests.local_hub.raw_requests import Send, pointer_to, request_upload, upload_path
from tests.local_hub.raw_sockets import WRITES


@pytest.fixture
def private_repo(api: HfApi) -> str:
    repo = api.create_repo(f"local/{secrets.token_hex(6)}", private=True).repo_id
    api.upload_file(repo_id=repo, path_in_repo="a.txt", path_or_fileobj=b"x")
    return repo


@pytest.fixture
def gated_repo(api: HfApi, repo: str) -> str:
    api.upload_file(repo_id=repo, path_in_repo="a.txt", path_or_fileobj=b"x")
    api.update_repo_settings(repo, gated="auto")
    return repo


def test_each_token_belongs_to_an_account(api: HfApi, reader: HfApi, send: Send) -> None:
    assert (api.whoami()["name"], reader.whoami()["name"]) == ("local", "reader")
    assert send("GET", "/api/whoami-v2", token=None).status == 401


@pytest.mark.parametrize(("name", "role"), [("local", "write"), ("reader", "read")])
def test_whoami_describes_the_account(api: HfApi, reader: HfApi, name: str, role: str) -> None:
    token = {"displayName": name, "role": role, "createdAt": "2024-01-01T00:00:00.000Z"}
    assert {"local": api, "reader": reader}[name].whoami() == {
        "name": name, "fullname": name, "email": f"{name}@localhost", "type": "user", "orgs": [],
        "auth": {"type": "access_token", "accessToken": token},
    }  # fmt: skip


def test_the_forms_of_an_authorization_header() -> None:
    accounts = Accounts(token="hf_owner", reader_token="hf_reader")
    for header in ("Bearer hf_owner", "bearer hf_owner", "BEARER   hf_owner "):
        account = accounts.authenticate(header)
        assert account is not None and account.name == "local" and account.may_write
    account = accounts.authenticate("Bearer hf_reader")
    assert account is not None and account.name == "reader" and not account.may_write
    for header in ("", "Bearer", "Bearer ", "hf_owner", "Basic hf_owner", "Bearer hf_owner x", "Bearer hf_Owner"):
        assert accounts.authenticate(header) is None, header
    for header in ("Bearer hf_reader", "Bearer ", "Bearer None"):
        assert Accounts(token="hf_owner").authenticate(header) is None, header


def test_a_signature_is_that_of_path_and_time_and_ends_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """printf '/large_files/x 4600' | openssl dgst -sha256 -hmac hf_owner"""
    accounts = Accounts(token="hf_owner")
    signature = "272bc8dec731a6657b649ec250f0ac6068f648d852466ecd8ec0c9de09e4d2e3"
    monkeypatch.setattr(time, "time", lambda: 1000.5)
    assert accounts.sign("/large_files/x") == f"expires=4600&signature={signature}"
    for now, query, is_signed in (
        (1000.5, {"expires": "4600", "signature": signature}, True),
        (4600.0, {"expires": "4600", "signature": signature}, True),
        (4600.1, {"expires": "4600", "signature": signature}, False),
        (1000.5, {"expires": "4601", "signature": signature}, False),
        (1000.5, {"expires": "4600"}, False),
        (1000.5, {"signature": signature}, False),
        (1000.5, {"expires": "x", "signature": ""}, False),
    ):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert accounts.is_signed("/large_files/x", query=QueryParams(query)) is is_signed, (now, query)
    assert not accounts.is_signed("/large_files/y", query=QueryParams({"expires": "4600", "signature": signature}))


@dataclass
class Connection:
    """What the middleware knows of a connection."""

    is_closed: bool = False
    is_owners: bool = False


def run_requests(*requests: dict[str, Any], bodies: int = 0) -> list[dict[str, Any]]:
    """Send requests through the middleware; returns the state of each one that it passes on.

    The application answers with `bodies` messages of a megabyte each.
    """
    states = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        states.append(scope["state"])
        for _ in range(bodies):
            await send({"type": "http.response.body", "body": bytes(1_000_000)})

    async def send(message: Any) -> None:
        pass

    async def run() -> None:
        middleware = AdmissionMiddleware(app, accounts=Accounts(token="hf_owner", reader_token="hf_reader"))
        for request in requests:
            await middleware({"type": "http", "path": "/", "query_string": b"", "headers": []} | request, send, send)

    asyncio.run(run())
    return states


def with_token(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())]


def test_owner_reader_and_anonymous_clients_each_have_a_share() -> None:
    upload = "/large_files/models/local/x/0/1"
    signed = Accounts(token="hf_owner").sign(upload).encode()
    connections = [Connection() for _ in range(7)]
    requests = [
        {"headers": with_token("hf_owner")},
        {"path": upload, "query_string": signed},
        {"headers": with_token("hf_reader")},
        {},
        {"headers": with_token("hf_wrong")},
        {"path": upload},
        {"headers": with_token("hf_owner")},
    ]
    for request, connection in zip(requests[:-1], connections, strict=False):
        request["extensions"] = {"local_hub.connection": connection}
    owner, uploader, reader, anonymous, intruder, forger, elsewhere = run_requests(*requests)
    assert [connection.is_owners for connection in connections] == [True, True, False, False, False, False, False]
    assert isinstance(owner["share"], OwnerShare)
    assert uploader["share"] is elsewhere["share"] is owner["share"], "also where the server has no such extension"
    assert isinstance(reader["share"], GuestShare) and isinstance(anonymous["share"], GuestShare)
    assert reader["share"] is not anonymous["share"], "the reader does not wait for anonymous clients"
    assert intruder["share"] is forger["share"] is anonymous["share"]
    states = (owner, uploader, reader, anonymous, intruder, forger)
    assert [state["account"] and state["account"].name for state in states] == [
        "local", None, "reader", None, None, None,
    ]  # fmt: skip
    assert [state["is_signed_upload"] for state in states] == [False, True, False, False, False, False]
    assert [state["has_invalid_token"] for state in states] == [False, False, False, False, True, False]


def test_no_answer_is_made_for_a_client_that_is_gone() -> None:
    for is_closed in (False, True):
        connection = Connection(is_closed=is_closed)
        assert len(run_requests({"extensions": {"local_hub.connection": connection}})) == (not is_closed)


def test_what_strangers_receive_is_within_their_bandwidth() -> None:
    """100 MB/s: before the last megabyte, eleven others have taken 0.11 s."""
    start = time.monotonic()
    run_requests({}, bodies=12)
    assert time.monotonic() - start > 0.1


def test_the_start_of_the_server_needs_no_account() -> None:
    calls = []

    async def app(*arguments: Any) -> None:
        calls.append(arguments)

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "lifespan", "state": {}}
    middleware = AdmissionMiddleware(AuthenticationMiddleware(app), accounts=Accounts(token="hf_owner"))
    asyncio.run(middleware(scope, receive, send))
    assert calls == [(scope, receive, send)]


def test_refusals_say_why(send: Send, hub: LocalHub, gated_repo: str) -> None:
    file = f"/{gated_repo}/resolve/main/a.txt"
    write = f"/api/models/{gated_repo}/branch/x"
    restricted = f"Access to model {gated_repo} is restricted."
    visit = f"Visit {hub.endpoint}/{gated_repo} to ask for access."
    for method, path, token, status, code, message in (
        ("GET", file, None, 401, "GatedRepo", f"{restricted} You must be authenticated to access it. {visit}"),
        ("GET", file, hub.reader_token, 403, "GatedRepo", f"{restricted} {visit}"),
        ("POST", write, None, 401, None, "Invalid username or password."),
        ("POST", write, hub.reader_token, 403, None, "Forbidden: this token has no write access"),
        ("GET", "/api/models/local/%ff", hub.token, 400, None, "name is not UTF-8: %ff"),
        ("GET", "/api/models/%c3%28/x", hub.token, 400, None, "namespace is not UTF-8: %c3%28"),
        ("GET", "/api/models/local/nope", hub.token, 404, "RepoNotFound", "Repository not found"),
    ):
        response = send(method, path, "{}" if method == "POST" else None, token=token)
        headers = response.headers
        assert (response.status, headers.get("x-error-code"), headers["x-error-message"]) == (status, code, message)


def test_a_gated_dataset_is_refused_under_its_own_url(api: HfApi, hub: LocalHub, send: Send) -> None:
    repo = api.create_repo(f"local/{secrets.token_hex(6)}", repo_type="dataset").repo_id
    api.update_repo_settings(repo, gated="auto", repo_type="dataset")
    file = f"/datasets/{repo}/resolve/main/.gitattributes"
    assert send("GET", file).status == 200
    assert send("GET", f"/{repo}/resolve/main/.gitattributes").status == 404, "there is no model of this name"
    assert send("GET", file, token=hub.reader_token).json["error"] == (
        f"Access to dataset {repo} is restricted. Visit {hub.endpoint}/datasets/{repo} to ask for access."
    )


def test_a_private_repo_is_hidden_from_other_accounts(
    api: HfApi, reader: HfApi, anonymous: HfApi, private_repo: str, send: Send, hub: LocalHub, tmp_path: Path
) -> None:
    assert Path(api.hf_hub_download(private_repo, "a.txt", cache_dir=tmp_path / "owner")).read_text() == "x"
    for other in (reader, anonymous):
        with pytest.raises(RepositoryNotFoundError):
            other.model_info(private_repo)
        with pytest.raises(RepositoryNotFoundError):
            other.hf_hub_download(private_repo, "a.txt", cache_dir=tmp_path / "other")
        assert private_repo not in {model.id for model in other.list_models()}
    assert private_repo in {model.id for model in api.list_models()}
    for method, path in (
        ("GET", f"/api/models/{private_repo}"),
        ("GET", f"/{private_repo}/resolve/main/a.txt"),
        ("GET", f"/api/models/{private_repo}/tree/main"),
        ("POST", f"/api/models/{private_repo}/paths-info/main"),
    ):
        statuses = [send(method, path, token=token).status for token in (None, hub.reader_token, hub.token)]
        assert statuses == [401, 404, 200], path
    assert private_repo.encode() not in send("GET", "/", token=None).body
    assert send("GET", f"/{private_repo}", token=None).status == 401


def test_a_hidden_repo_is_answered_like_a_missing_one(private_repo: str, send: Send, hub: LocalHub) -> None:
    for token in (None, hub.reader_token):
        hidden = send("GET", f"/api/models/{private_repo}", token=token)
        missing = send("GET", "/api/models/local/nope", token=token)
        assert (hidden.status, hidden.body) == (missing.status, missing.body)


def test_a_gated_repo_shows_its_metadata_but_not_its_files(
    api: HfApi, reader: HfApi, anonymous: HfApi, gated_repo: str, hub: LocalHub, tmp_path: Path
) -> None:
    assert Path(api.hf_hub_download(gated_repo, "a.txt", cache_dir=tmp_path / "owner")).read_text() == "x"
    for other, status in ((reader, 403), (anonymous, 401)):
        assert other.model_info(gated_repo).gated == "auto"
        with pytest.raises(GatedRepoError, match=f"{hub.endpoint}/{gated_repo}") as refused:
            other.hf_hub_download(gated_repo, "a.txt", cache_dir=tmp_path / "other")
        assert refused.value.response.status_code == status
        with pytest.raises(GatedRepoError):
            other.auth_check(gated_repo)
    api.auth_check(gated_repo)
    api.update_repo_settings(gated_repo, gated=False)
    reader.hf_hub_download(gated_repo, "a.txt", cache_dir=tmp_path / "reader")


def test_settings_change_who_sees_a_repo(api: HfApi, reader: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, private=True)
    assert not reader.repo_exists(repo) and api.model_info(repo).private
    api.update_repo_settings(repo, private=False)
    assert reader.repo_exists(repo)


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_only_the_owner_writes(
    api: HfApi, hub: LocalHub, repo: str, send: Send, method: str, path: str, body: str | None
) -> None:
    before = api.model_info(repo).sha
    name = repo.partition("/")[2]
    url = path.replace("NAME", name)
    content = body.replace("NAME", name) if body else None
    statuses = [send(method, url, content, token=token).status for token in (None, hub.reader_token)]
    assert statuses == [401, 403]
    assert api.model_info(repo).sha == before and len(api.list_repo_refs(repo).branches) == 1


@pytest.mark.parametrize("header", ["Bearer hf_wrong", "Bearer ", "Basic TOKEN", "Bearer TOKENx", "TOKEN", "\xff"])
def test_a_wrong_token_is_refused_everywhere(hub: LocalHub, repo: str, send: Send, header: str) -> None:
    requests = [
        *((method, path) for method, path, _ in WRITES),
        ("GET", "/"),
        ("GET", "/api/whoami-v2"),
        ("GET", "/api/models"),
        ("GET", "/api/models/local/NAME"),
        ("GET", "/local/NAME/resolve/main/.gitattributes"),
        ("HEAD", "/local/NAME/resolve/main/.gitattributes"),
        ("PUT", f"/large_files/models/local/NAME/{'0' * 64}/1"),
        ("GET", "/no/such/endpoint"),
    ]
    for method, path in requests:
        path = path.replace("NAME", repo.partition("/")[2])
        response = send(method, path, token=None, Authorization=header.replace("TOKEN", hub.token))
        message = response.headers["x-error-message"]
        assert (response.status, message) == (401, "Invalid credentials in Authorization header"), (method, path)


def test_a_wrong_token_is_refused_during_a_large_upload(api: HfApi, hub: LocalHub, repo: str) -> None:
    intruder = HfApi(endpoint=hub.endpoint, token="hf_wrong")
    with pytest.raises(HfHubHTTPError) as refused:
        intruder.upload_file(repo_id=repo, path_in_repo="evil.txt", path_or_fileobj=b"!" * 9_000_000)
    assert refused.value.response.status_code == 401
    assert not api.file_exists(repo, "evil.txt")


def test_a_signed_url_is_valid_for_one_file_only(repo: str, send: Send) -> None:
    pointer = pointer_to(b"content")
    other = pointer_to(b"another")
    url = upload_path(send, repo, pointer)
    path, _, query = url.partition("?")
    for forged in (
        path,
        url.replace(pointer.oid, other.oid),
        url.replace(f"/{pointer.size}?", f"/{pointer.size + 1}?"),
        url.replace(repo, "local/other"),
        f"{path}?{query.replace('expires=', 'expires=9')}",
        f"{path}?expires=x&signature=",
    ):
        assert send("PUT", forged, b"content", token=None).status == 403, forged


@pytest.mark.parametrize(("minutes", "status"), [(59, 200), (61, 403)])
def test_a_signed_url_is_valid_for_an_hour(
    hub: LocalHub, repo: str, send: Send, monkeypatch: pytest.MonkeyPatch, minutes: int, status: int
) -> None:
    pointer = pointer_to(b"content")
    path = upload_path(send, repo, pointer).partition("?")[0]
    signed_at = time.time() - 60 * minutes
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: signed_at)  # in this process; the hub has its own clock
        query = Accounts(token=hub.token).sign(path)
    assert send("PUT", f"{path}?{query}", b"content", token=None).status == status
    assert ("actions" in request_upload(send, repo, pointer)) == (status == 403)
