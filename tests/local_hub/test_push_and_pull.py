import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from local_hub import LocalHub

from .conftest import Send


def test_a_folder_comes_back_byte_for_byte_large_files_included(api: HfApi, repo: str, tmp_path: Path) -> None:
    sent = {
        "config.json": b"{}",
        "a/b/odd é #?%.txt": b"odd",
        "empty.txt": b"",
        "model.safetensors": os.urandom(3_000_000),
        "big.txt": b"x" * 10_000_001,
    }
    for path, content in sent.items():
        (tmp_path / "sent" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sent" / path).write_bytes(content)
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "sent")
    got = Path(api.snapshot_download(repo, local_dir=tmp_path / "got", cache_dir=tmp_path / "cache"))
    assert {path: (got / path).read_bytes() for path in sent} == sent
    large = {file.path for file in api.list_repo_tree(repo, recursive=True) if getattr(file, "lfs", None)}
    assert large == {"model.safetensors", "big.txt"}


def test_git_itself_reads_the_repo_and_finds_pointers_for_large_files(
    api: HfApi, repo: str, folder_of: Callable[[str], Path]
) -> None:
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc")
    git = ["git", "--git-dir", str(folder_of(repo) / "git")]
    shown = subprocess.run([*git, "show", "main:x.bin"], capture_output=True, text=True, check=True).stdout
    sha256_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert shown == f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256_of_abc}\nsize 3\n"
    subprocess.run([*git, "fsck", "--strict"], check=True, capture_output=True)


def test_an_unchanged_file_makes_no_commit(api: HfApi, repo: str) -> None:
    first = api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc").oid
    assert api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc").oid == first


def test_ignored_files_are_not_sent(api: HfApi, repo: str, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\nbuild/\n")
    for path in ("kept.txt", "run.log", "build/x.txt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x")
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert set(api.list_repo_files(repo)) == {".gitattributes", ".gitignore", "kept.txt"}


@pytest.mark.slow
def test_a_dataset_is_pushed_and_loaded_by_the_datasets_library(hub: LocalHub, tmp_path: Path) -> None:
    script = """
import datasets
from PIL import Image
datasets.config.USE_PARQUET_EXPORT = False
rows = {"image": [Image.new("RGB", (8, 6), (i, 0, 0)) for i in range(20)], "text": [f"t{i}" for i in range(20)]}
features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
made = datasets.Dataset.from_dict(rows, features=features)
splits = datasets.DatasetDict({"train": made, "test": made.select(range(5))})
splits.push_to_hub("local/pictures", num_shards={"train": 2, "test": 1})
whole = datasets.load_dataset("local/pictures")
assert {name: len(split) for name, split in whole.items()} == {"train": 20, "test": 5}, whole
assert whole["train"][3]["image"].size == (8, 6) and whole["train"][3]["text"] == "t3"
assert len(list(datasets.load_dataset("local/pictures", split="train", streaming=True))) == 20
print("loaded")
"""
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | hub.environment | {"HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip().endswith("loaded"), done.stderr


def test_what_is_missing_raises_the_clients_own_exceptions(api: HfApi, repo: str, tmp_path: Path) -> None:
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "nope.txt", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(repo, ".gitattributes", revision="nope", cache_dir=tmp_path)
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "no/folder"))
    for name in ("local/nope", "gpt2"):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info(name)
    with pytest.raises(EntryNotFoundError):
        api.delete_file("nope.txt", repo)


def test_a_missing_file_names_the_commit_it_is_missing_from(api: HfApi, repo: str, send: Send) -> None:
    answer = send("HEAD", f"/{repo}/resolve/main/nope")
    assert (answer.status, answer.headers["x-error-code"]) == (404, "EntryNotFound")
    assert answer.headers["x-repo-commit"] == api.model_info(repo).sha


def test_branches_and_tags_with_slashes_are_one_segment(api: HfApi, repo: str, tmp_path: Path) -> None:
    api.create_branch(repo, branch="dev/x")
    api.upload_file(repo_id=repo, path_in_repo="d.txt", path_or_fileobj=b"dev", revision="dev/x")
    api.create_tag(repo, tag="v/1", revision="dev/x", tag_message="first")
    refs = api.list_repo_refs(repo)
    assert {branch.name for branch in refs.branches} == {"main", "dev/x"}
    assert refs.tags[0].target_commit == api.model_info(repo, revision="dev/x").sha
    for revision in ("dev/x", "v/1", "refs/tags/v/1", refs.tags[0].target_commit, refs.tags[0].target_commit[:7]):
        assert Path(api.hf_hub_download(repo, "d.txt", revision=revision, cache_dir=tmp_path)).read_text() == "dev"
    assert not api.file_exists(repo, "d.txt")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch(repo, branch="dev/x")
    with pytest.raises(HfHubHTTPError, match="there are refs beneath"):
        api.create_branch(repo, branch="dev")
    api.delete_branch(repo, branch="dev/x")
    api.delete_tag(repo, tag="v/1")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.delete_branch(repo, branch="main")


def test_long_listings_come_in_pages_of_one_commit(api: HfApi, repo: str, send: Send) -> None:
    files = [CommitOperationAdd(f"f{number:04}.txt", b"%d" % number) for number in range(1100)]
    api.create_commit(repo, files, commit_message="many")
    assert len(api.list_repo_files(repo)) == 1101
    assert len(list(api.list_repo_tree(repo))) == 1101
    first = send("GET", f"/api/models/{repo}/tree/main")
    assert len(first.json) == 1000
    api.create_commit(repo, [CommitOperationDelete("f0000.txt")], commit_message="meanwhile")
    following = first.headers["link"].partition(">")[0].partition("127.0.0.1")[2].partition("/")[2]
    assert [file["path"] for file in send("GET", f"/{following}").json][-1] == "f1099.txt"
    assert len(send("GET", f"/{following}").json) == 101


def test_the_last_commit_of_each_path_is_told(api: HfApi, repo: str) -> None:
    api.upload_file(repo_id=repo, path_in_repo="a/old.txt", path_or_fileobj=b"1", commit_message="first")
    api.upload_file(repo_id=repo, path_in_repo="a/new.txt", path_or_fileobj=b"2", commit_message="second")
    listed = api.list_repo_tree(repo, recursive=True, expand=True)
    titles = {entry.path: entry.last_commit.title for entry in listed if entry.last_commit}
    assert titles == {".gitattributes": "initial commit", "a": "second", "a/old.txt": "first", "a/new.txt": "second"}


def test_one_commit_adds_deletes_and_replaces(api: HfApi, repo: str) -> None:
    api.create_commit(repo, [CommitOperationAdd(p, b"1") for p in ("a", "d/x", "d/y")], commit_message="one")
    operations = [CommitOperationDelete("a"), CommitOperationDelete("d/"), CommitOperationAdd("a/b", b"2")]
    api.create_commit(repo, operations, commit_message="two", commit_description="told at length")
    assert set(api.list_repo_files(repo)) == {".gitattributes", "a/b"}
    newest = api.list_repo_commits(repo)[0]
    assert (newest.title, newest.message) == ("two", "told at length")


def test_the_card_says_what_the_search_finds(api: HfApi, repo: str) -> None:
    named = "license: gemma\nlibrary_name: peft\npipeline_tag: image-text-to-text\ntags: [x]\nbase_model: a/b"
    api.upload_file(repo_id=repo, path_in_repo="README.md", path_or_fileobj=f"---\n{named}\n---\nHi".encode())
    info = api.model_info(repo)
    assert (info.library_name, info.pipeline_tag) == ("peft", "image-text-to-text")
    assert info.card_data is not None and info.card_data.license == "gemma"
    assert info.tags == ["peft", "image-text-to-text", "x", "license:gemma", "base_model:a/b"]
    found = api.list_models(author="local", search=repo[-6:], filter=["license:gemma", "x"])
    assert [model.id for model in found] == [repo]
    assert not list(api.list_models(search=repo[-6:], filter="y"))


def test_a_search_goes_on_over_pages_and_stops_at_its_limit(api: HfApi, send: Send) -> None:
    for number in range(3):
        api.create_repo(f"local/page-{number}", repo_type="dataset")
    assert len(list(api.list_datasets(search="page-"))) == 3
    assert len(list(api.list_datasets(search="page-", limit=2))) == 2
    assert 'rel="next"' in send("GET", "/api/datasets?search=page-&limit=2").headers["link"]


def test_broken_yaml_in_a_card_is_refused_before_the_upload(api: HfApi, repo: str) -> None:
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.upload_file(repo_id=repo, path_in_repo="README.md", path_or_fileobj=b"---\na: [\n---\n")


def test_a_repo_is_created_once_moved_and_deleted(api: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo(repo)
    assert api.create_repo(repo, exist_ok=True).repo_id == repo
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc")
    api.move_repo(repo, f"{repo}-moved")
    assert not api.repo_exists(repo) and api.file_exists(f"{repo}-moved", "x.bin")
    api.delete_repo(f"{repo}-moved")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(f"{repo}-moved")


@pytest.mark.parametrize(
    ("asked", "status", "expected", "content_range"),
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
def test_ranges_are_answered(
    api: HfApi, send: Send, path: str, asked: str, status: int, expected: bytes, content_range: str | None
) -> None:
    api.create_repo("local/ranges", exist_ok=True)
    api.upload_file(repo_id="local/ranges", path_in_repo=path, path_or_fileobj=b"0123456789abcdefghij")
    answer = send("GET", f"/local/ranges/resolve/main/{path}", Range=asked)
    if path == "large.bin" and status == 200:
        assert answer.status in (200, 400, 416)  # starlette refuses what it does not understand
        return
    assert (answer.status, answer.body, answer.headers.get("content-range")) == (status, expected, content_range)


def test_a_seek_in_a_remote_file_reads_only_what_follows(api: HfApi, hub: LocalHub, repo: str) -> None:
    content = os.urandom(2_000_000)
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=content)
    with HfFileSystem(endpoint=hub.endpoint, token=hub.token).open(f"{repo}/x.bin", block_size=1000) as file:
        file.seek(1_234_567)
        assert file.read(100) == content[1_234_567:1_234_667]


@pytest.mark.parametrize("path", ["large.bin", "small.txt", "page.html", "README.md"])
def test_no_browser_keeps_a_file_without_asking_again_or_guesses_what_it_is(
    api: HfApi, repo: str, send: Send, path: str
) -> None:
    api.upload_file(repo_id=repo, path_in_repo=path, path_or_fileobj=b"<script>alert(1)</script>")
    whole = send("GET", f"/{repo}/resolve/main/{path}")
    answers = [
        whole,
        send("HEAD", f"/{repo}/resolve/main/{path}"),
        send("GET", f"/{repo}/resolve/main/{path}", Range="bytes=0-3"),
        send("GET", f"/{repo}/resolve/main/{path}", If_None_Match=whole.headers["etag"]),
    ]
    assert [answer.status for answer in answers] == [200, 200, 206, 304]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert {answer.headers["content-type"] for answer in answers[:3]} == {"application/octet-stream"}


def test_headers_of_a_file_let_the_client_cache_it(api: HfApi, repo: str, send: Send) -> None:
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc")
    head = send("HEAD", f"/{repo}/resolve/main/x.bin")
    sha256 = api.get_paths_info(repo, "x.bin")[0].lfs.sha256
    assert head.headers["x-linked-etag"] == head.headers["etag"] == f'"{sha256}"'
    assert head.headers["content-length"] == head.headers["x-linked-size"] == "3"
    assert "content-encoding" not in head.headers
    assert send("GET", f"/{repo}/resolve/main/x.bin", If_None_Match=f'"{sha256}"').status == 304


def test_the_pages_for_people_escape_what_they_show(api: HfApi, repo: str, send: Send) -> None:
    api.upload_file(repo_id=repo, path_in_repo="README.md", path_or_fileobj=b"<script>alert(1)</script>")
    page = send("GET", f"/{repo}", token=None)
    assert page.status == 200 and b"<script>" not in page.body and b"&lt;script&gt;" in page.body
    assert repo.encode() in send("GET", "/", token=None).body


def test_an_unknown_endpoint_is_answered_in_json(repo: str, send: Send) -> None:
    for method, path in (("GET", "/api/nope"), ("POST", f"/api/models/{repo}/super-squash/main"), ("PATCH", "/x")):
        answer = send(method, path)
        assert (answer.status, "error" in answer.json) == (404, True)


def test_a_pull_request_is_refused_with_a_reason(api: HfApi, repo: str) -> None:
    with pytest.raises(HfHubHTTPError, match="no pull requests"):
        api.upload_file(repo_id=repo, path_in_repo="x", path_or_fileobj=b"x", create_pr=True)


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
def test_a_malformed_request_is_refused_not_failed_at(repo: str, send: Send, path: str, body: str) -> None:
    answer = send("POST", path.replace("REPO", repo), body)
    assert answer.status == 400 and answer.json["error"]
