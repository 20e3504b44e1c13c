import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from local_hub import LocalHub

from .conftest import Send


@pytest.fixture
def private(api: HfApi) -> str:
    name = api.create_repo(f"local/{secrets.token_hex(6)}", private=True).repo_id
    api.upload_file(repo_id=name, path_in_repo="a.txt", path_or_fileobj=b"x")
    return name


@pytest.fixture
def gated(api: HfApi, repo: str) -> str:
    api.upload_file(repo_id=repo, path_in_repo="a.txt", path_or_fileobj=b"x")
    api.update_repo_settings(repo, gated="auto")
    return repo


def test_each_token_names_its_account(api: HfApi, reader: HfApi, send: Send) -> None:
    assert (api.whoami()["name"], reader.whoami()["name"]) == ("local", "reader")
    assert send("GET", "/api/whoami-v2", token=None).status == 401


def test_a_private_repo_is_hidden_from_everybody_else(
    api: HfApi, reader: HfApi, anonymous: HfApi, private: str, send: Send, hub: LocalHub, tmp_path: Path
) -> None:
    assert Path(api.hf_hub_download(private, "a.txt", cache_dir=tmp_path / "owner")).read_text() == "x"
    for other in (reader, anonymous):
        with pytest.raises(RepositoryNotFoundError):
            other.model_info(private)
        with pytest.raises(RepositoryNotFoundError):
            other.hf_hub_download(private, "a.txt", cache_dir=tmp_path / "other")
        assert private not in {model.id for model in other.list_models()}
    assert private in {model.id for model in api.list_models()}
    for path in (f"/api/models/{private}", f"/{private}/resolve/main/a.txt", f"/api/models/{private}/tree/main"):
        hidden = [send("GET", path, token=token).status for token in (None, hub.reader_token)]
        assert hidden == [401, 404], path
    assert private.encode() not in send("GET", "/", token=None).body
    assert send("GET", f"/{private}", token=None).status == 401


def test_a_hidden_repo_answers_like_one_that_does_not_exist(private: str, send: Send, hub: LocalHub) -> None:
    for token in (None, hub.reader_token):
        hidden, absent = (send("GET", f"/api/models/{name}", token=token) for name in (private, "local/nope"))
        assert (hidden.status, hidden.body) == (absent.status, absent.body)


def test_a_gated_repo_shows_its_metadata_and_keeps_its_files(
    api: HfApi, reader: HfApi, anonymous: HfApi, gated: str, hub: LocalHub, tmp_path: Path
) -> None:
    assert Path(api.hf_hub_download(gated, "a.txt", cache_dir=tmp_path / "owner")).read_text() == "x"
    for other, status in ((reader, 403), (anonymous, 401)):
        assert other.model_info(gated).gated == "auto"
        with pytest.raises(GatedRepoError, match=f"{hub.endpoint}/{gated}") as refused:
            other.hf_hub_download(gated, "a.txt", cache_dir=tmp_path / "other")
        assert refused.value.response.status_code == status
        with pytest.raises(GatedRepoError):
            other.auth_check(gated)
    api.auth_check(gated)
    api.update_repo_settings(gated, gated=False)
    reader.hf_hub_download(gated, "a.txt", cache_dir=tmp_path / "reader")


def test_settings_change_who_sees_a_repo(api: HfApi, reader: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, private=True)
    assert not reader.repo_exists(repo) and api.model_info(repo).private
    api.update_repo_settings(repo, private=False)
    assert reader.repo_exists(repo)


WRITES = [
    ("POST", "/api/repos/create", '{"name":"x"}'),
    ("DELETE", "/api/repos/delete", '{"name":"NAME"}'),
    ("POST", "/api/repos/move", '{"fromRepo":"local/NAME","toRepo":"local/other","type":"model"}'),
    ("PUT", "/api/models/local/NAME/settings", '{"visibility":"private"}'),
    ("POST", "/api/models/local/NAME/branch/x", "{}"),
    ("DELETE", "/api/models/local/NAME/branch/x", None),
    ("POST", "/api/models/local/NAME/tag/main", '{"tag":"x"}'),
    ("DELETE", "/api/models/local/NAME/tag/x", None),
    ("POST", "/api/models/local/NAME/preupload/main", '{"files":[]}'),
    ("POST", "/api/models/local/NAME/commit/main", '{"key":"header","value":{"summary":"x"}}'),
    ("POST", "/local/NAME.git/info/lfs/objects/batch", '{"operation":"upload","objects":[]}'),
    ("POST", "/local/NAME.git/info/lfs/objects/verify", f'{{"oid":"{"0" * 64}","size":1}}'),
    ("GET", "/api/models/local/NAME/auth-check/write", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_nobody_else_writes(
    api: HfApi, hub: LocalHub, repo: str, send: Send, method: str, path: str, body: str | None
) -> None:
    before = api.model_info(repo).sha
    name = repo.partition("/")[2]
    path, body = path.replace("NAME", name), body and body.replace("NAME", name)
    statuses = [send(method, path, body, token=token).status for token in (None, hub.reader_token)]
    assert statuses == [401, 403]
    assert api.model_info(repo).sha == before and len(api.list_repo_refs(repo).branches) == 1


@pytest.mark.parametrize("header", ["Bearer hf_wrong", "Bearer ", "Basic TOKEN", "Bearer TOKENx", "TOKEN", "\xff"])
def test_a_wrong_token_is_refused_everywhere(hub: LocalHub, repo: str, send: Send, header: str) -> None:
    everywhere = [
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
    for method, path in everywhere:
        path = path.replace("NAME", repo.partition("/")[2])
        answer = send(method, path, token=None, Authorization=header.replace("TOKEN", hub.token))
        message = answer.headers["x-error-message"]
        assert (answer.status, message) == (401, "Invalid credentials in Authorization header"), (method, path)


def test_a_wrong_token_is_refused_although_a_large_body_is_on_its_way(api: HfApi, hub: LocalHub, repo: str) -> None:
    intruder = HfApi(endpoint=hub.endpoint, token="hf_wrong")
    with pytest.raises(HfHubHTTPError) as refused:
        intruder.upload_file(repo_id=repo, path_in_repo="evil.txt", path_or_fileobj=b"!" * 9_000_000)
    assert refused.value.response.status_code == 401
    assert not api.file_exists(repo, "evil.txt")


def test_only_the_owners_namespace_takes_repos(api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("somebody/else")


def test_a_page_that_calls_itself_by_another_name_reads_nothing(repo: str, send: Send) -> None:
    assert send("GET", "/api/models", token=None, Host="evil.example").status == 400
    assert send("GET", "/api/models", token=None, Host="localhost:1").status == 200


def test_no_token_is_ever_written_out(tmp_path: Path) -> None:
    token, reader_token = "hf_the_owners_secret", "hf_the_readers_secret"
    environment = os.environ | {"HF_TOKEN": token, "LOCAL_HUB_READER_TOKEN": reader_token}
    process = subprocess.Popen(
        [sys.executable, "-m", "local_hub", "--root", str(tmp_path), "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    api = HfApi(endpoint=first.split("HF_ENDPOINT=")[1].split()[0], token=token)
    repo = api.create_repo("local/broken").repo_id
    (tmp_path / "models" / repo / "settings.json").write_text("not json")
    with pytest.raises(HfHubHTTPError, match="Internal error") as failed:
        api.model_info(repo)
    process.send_signal(signal.SIGTERM)
    said = first + process.communicate(timeout=20)[0]
    assert failed.value.response.status_code == 500 and "Traceback" in said
    for text in (said, str(failed.value), failed.value.response.text):
        assert token not in text and reader_token not in text
