import base64
import json
import time

import pytest
from huggingface_hub import HfApi

from local_hub.cards import list_tags, parse_card
from tests.local_hub.raw_requests import Send, commit_body


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


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "yaml", [BOMB, "a: &a [*a]", "a: " + "[" * 60_000, f"a: [{'a,' * 200_000}]", f"a: {'9' * 100_000}", "? {}\n: 1"]
)
def test_hostile_metadata_is_refused_at_once(api: HfApi, repo: str, send: Send, yaml: str) -> None:
    text = f"---\n{yaml}\n---\n"
    start = time.monotonic()
    for token in (None, api.token):
        assert send("POST", "/api/validate-yaml", json.dumps({"content": text}), token=token).status in (400, 413)
    content = base64.b64encode(text.encode()).decode()
    body = commit_body(("file", {"path": "README.md", "content": content, "encoding": "base64"}))
    assert send("POST", f"/api/models/{repo}/commit/main", body).status == 200  # git does not parse it
    assert api.model_info(repo).card_data is None
    assert send("GET", "/api/models", token=None).status == 200
    api.delete_repo(repo)
    assert time.monotonic() - start < 10
