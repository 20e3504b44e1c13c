"""Hide tokens and passwords in what a command prints."""

import os
import re

import huggingface_hub

HIDDEN = "***"
_SECRET_NAMES = re.compile(r"(TOKEN|API_?KEY|SECRET|PASSWORD)S?$", re.IGNORECASE)  # of environment variables
_MIN_LENGTH = 6  # a shorter value would be hidden within other words
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/?#@]+@")
_SIGNED_QUERY = re.compile(r"(?<=[\w/])\?[^\s'\"]*(?:sig|token|credential|key-pair)[^\s'\"]*", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


def hide_secrets(text: str, *, secrets: tuple[str, ...] = ()) -> str:
    """Replace `secrets`, the Hub's token, and passwords and signatures in URLs.

    The values of variables like WANDB_API_KEY are replaced too.
    """
    known = {value.strip() for name, value in os.environ.items() if _SECRET_NAMES.search(name)}
    known |= {*secrets, huggingface_hub.get_token() or ""}
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= _MIN_LENGTH:
            text = text.replace(secret, HIDDEN)
    text = _URL_PASSWORD.sub(f"{HIDDEN}@", text)
    return _HUB_TOKEN.sub(HIDDEN, _SIGNED_QUERY.sub(f"?{HIDDEN}", text))
