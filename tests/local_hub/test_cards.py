import pytest

from local_hub.cards import list_tags, parse_card


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
def test_invalid_metadata_is_refused(yaml: str) -> None:
    with pytest.raises(ValueError, match=r"YAML of README\.md"):
        parse_card(f"---\n{yaml}\n---\n")


def test_tags_have_the_prefix_of_their_key() -> None:
    card = {"license": "mit", "datasets": ["a/b"], "base_model": "c/d", "tags": ["x", "x"], "language": "en"}
    assert list_tags(card) == ["x", "en", "license:mit", "dataset:a/b", "base_model:c/d"]
