import pytest

from product_vqa.redaction import hide_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pass@hub.example/a", "https://***@hub.example/a"),
        ("https://token@hub.example", "https://***@hub.example"),
        ("https://hub.example/user@v1", "https://hub.example/user@v1"),
        ("user/name@v1", "user/name@v1"),
        ("PUT 'http://h/a/b?expires=1&signature=71a' failed", "PUT 'http://h/a/b?***' failed"),
        ("http://h/a.jpg?width=5 failed", "http://h/a.jpg?width=5 failed"),
        ("is it a signature?", "is it a signature?"),
        (f"got hf_{'a' * 34}!", "got ***!"),
        ("hf_hub_download", "hf_hub_download"),
        ("key is 0123456789", "key is ***"),
        ("the short one is abc", "the short one is abc"),
    ],
)
def test_tokens_and_passwords_are_hidden(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", " 0123456789\n")
    monkeypatch.setenv("MY_TOKEN", "abc")
    assert hide_secrets(text) == expected


def test_a_secret_that_is_given_is_hidden() -> None:
    assert hide_secrets("the secret is swordfish", secrets=("swordfish",)) == "the secret is ***"
