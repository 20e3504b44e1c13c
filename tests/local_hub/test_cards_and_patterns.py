import pytest

from local_hub.cards import list_tags, parse_card
from local_hub.lfs import LFS_PATTERNS, format_attributes, is_matched, parse_attributes, parse_gitignore


@pytest.mark.parametrize(
    ("text", "card"),
    [
        ("", {}),
        ("# No metadata", {}),
        ("---\n---\n", {}),
        ("---\nlicense: mit\n---\n# Title", {"license": "mit"}),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        ("---\na: |\n  ---x\nb: 1\n---\nc: 2\n---\n", {"a": "---x\n", "b": 1}),
        ("---\nday: 2024-05-06\n---", {"day": "2024-05-06"}),
        ("text\n---\na: 1\n---\n", {}),
    ],
)
def test_metadata_is_the_yaml_at_the_top(text: str, card: dict[str, object]) -> None:
    assert parse_card(text) == card


@pytest.mark.parametrize("yaml", ["a: [", "- a", "just words", "a: .nan", "a: !!python/name:os.system", "[" * 500])
def test_metadata_that_is_not_a_mapping_is_refused(yaml: str) -> None:
    with pytest.raises(ValueError, match=r"YAML of README\.md"):
        parse_card(f"---\n{yaml}\n---\n")


def test_tags_name_what_they_are_of() -> None:
    card = {"license": "mit", "datasets": ["a/b"], "base_model": "c/d", "tags": ["x", "x"], "language": "en"}
    assert list_tags(card) == ["x", "en", "license:mit", "dataset:a/b", "base_model:c/d"]


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
def test_patterns_match_as_git_matches_them(path: str, patterns: list[str], matched: bool) -> None:
    assert is_matched(path, patterns=patterns) == matched


def test_attributes_are_read_as_they_are_written() -> None:
    assert parse_attributes(format_attributes(LFS_PATTERNS) + "*.txt text\n\n") == LFS_PATTERNS


def test_comments_and_empty_lines_ignore_nothing() -> None:
    assert parse_gitignore("# comment\n\n*.log  \n") == ["*.log"]
