import secrets
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from local_hub import LocalHub
from local_hub.auth import Accounts
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
    for path in (
        f"/api/models/{private_repo}",
        f"/{private_repo}/resolve/main/a.txt",
        f"/api/models/{private_repo}/tree/main",
    ):
        statuses = [send("GET", path, token=token).status for token in (None, hub.reader_token)]
        assert statuses == [401, 404], path
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
