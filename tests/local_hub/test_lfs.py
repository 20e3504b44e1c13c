from pathlib import Path

import pytest
from huggingface_hub import HfApi, get_session

from local_hub import LocalHub
from local_hub.lfs import LFS_PATTERNS, format_attributes, is_matched, parse_attributes, parse_gitignore


@pytest.mark.parametrize(
    ("path", "patterns", "matched"),
    [
        ("model.safetensors", LFS_PATTERNS, True),
        ("data/train-00000-of-00001.parquet", LFS_PATTERNS, True),
        ("a/b/photo.png", LFS_PATTERNS, True),
        ("x.tar.gz", LFS_PATTERNS, True),
        ("runs/events.out.tfevents.123", LFS_PATTERNS, True),
        ("saved_model/variables/x", LFS_PATTERNS, True),
        ("config.json", LFS_PATTERNS, False),
        ("binary", LFS_PATTERNS, False),
        ("a/b.log", ["*.log"], True),
        ("build/x", ["build/"], True),
        ("a/build/x", ["build/"], True),
        ("a/build/x", ["/build/"], False),
        ("build", ["build/"], False),
        ("a/b/c", ["a/**/c"], True),
        ("a/c", ["a/**/c"], True),
        ("a/b/c", ["a/*/c"], True),
        ("a/b/b/c", ["a/*/c"], False),
        ("m.pyc", ["*.py[co]"], True),
        ("m.pyx", ["*.py[!co]"], True),
        ("m.pyc", ["*.py[!co]"], False),
        ("a[b", ["a[b"], True),
        ("[b", ["[b"], True),
        ("keep.log", ["*.log", "!keep.log"], False),
        ("keep.log", ["!keep.log", "*.log"], True),
        ("a.b", ["a?b"], True),
        ("axb", ["a.b"], False),
    ],
)
def test_patterns_match_as_in_git(path: str, patterns: list[str], matched: bool) -> None:
    assert is_matched(path, patterns=patterns) == matched


def test_attributes_are_parsed_as_they_are_formatted() -> None:
    assert parse_attributes(format_attributes(LFS_PATTERNS) + "*.txt text\n\n") == LFS_PATTERNS


def test_a_gitignore_may_have_comments_and_blank_lines() -> None:
    assert parse_gitignore("# comment\n\n*.log  \n") == ["*.log"]


@pytest.mark.slow
def test_a_large_file_that_the_disk_has_damaged_is_not_served_and_an_upload_replaces_it(tmp_path: Path) -> None:
    """The size is as it was. Only a new process checks: one that has written a file knows it."""
    content = bytes(range(256)) * 100

    def download(api: HfApi) -> bytes:
        return Path(api.hf_hub_download("local/large", "x.bin", cache_dir=tmp_path / "cache")).read_bytes()

    with LocalHub(tmp_path / "root") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("local/large")
        api.upload_file(repo_id="local/large", path_in_repo="x.bin", path_or_fileobj=content)
    (file,) = tmp_path.glob("root/models/local/large/large_files/*/*")
    file.chmod(0o644)
    file.write_bytes(content[:-1] + b"\0")
    with LocalHub(tmp_path / "root") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        url = f"{hub.endpoint}/local/large/resolve/main/x.bin"
        answer = get_session().get(url, headers={"Authorization": f"Bearer {hub.token}"}, follow_redirects=True)
        assert answer.status_code == 500 and content[:10] not in answer.content
        api.upload_file(repo_id="local/large", path_in_repo="x.bin", path_or_fileobj=content)
        assert download(api) == content
