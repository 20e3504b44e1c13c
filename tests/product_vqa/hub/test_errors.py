"""What is wrong with a token or an endpoint is one line."""

from typing import Any

import pytest
from huggingface_hub import constants

from product_vqa.errors import InputError
from product_vqa.hub import locate
from training.push import open_repo


@pytest.mark.parametrize(
    ("token", "endpoint", "message"),
    [
        ("hf_tökén", None, "the token .* contains a space or a character that is not ASCII"),
        ("hf_a b", None, "the token .* contains a space"),
        ("hf_a\x07b", None, "the token .* contains a space"),
        ("'hf_quoted'", None, "the token .* contains quotation marks"),
        ('"hf_quoted"', None, "the token .* contains quotation marks"),
        (None, "ftp://hub.example", "HF_ENDPOINT is 'ftp://hub.example', which is not an http URL"),
        (None, "http://", "HF_ENDPOINT is 'http://', which is not an http URL"),
        (None, "http://127.0.0.1:9", "no Hub answers at http://127.0.0.1:9"),
    ],
)
def test_a_wrong_token_or_endpoint_is_one_line(
    hub: Any,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    endpoint: str | None,
    message: str,
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    if endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    for ask in (lambda: locate("local/x"), lambda: open_repo("local/x", private=True)):
        with pytest.raises(InputError, match=message) as refusal:
            ask()
        assert "\n" not in str(refusal.value)
