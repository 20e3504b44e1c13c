"""Hide tokens and passwords in what a command prints, and make it printable."""

import os
import re

import huggingface_hub

HIDDEN = "***"
_SECRET_NAMES = re.compile(r"(TOKEN|API_?KEY|SECRET|PASSWORD)S?$", re.IGNORECASE)  # of environment variables
_MIN_LENGTH = 6  # a shorter value would be hidden within other words
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/?#@]+@")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


def hide_secrets(text: str, *, secrets: tuple[str, ...] = ()) -> str:
    """Replace `secrets`, the Hub's token, the values of variables like WANDB_API_KEY, and passwords in URLs."""
    known = {value.strip() for name, value in os.environ.items() if _SECRET_NAMES.search(name)}
    known |= {*secrets, huggingface_hub.get_token() or ""}
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= _MIN_LENGTH:
            text = text.replace(secret, HIDDEN)
    return _HUB_TOKEN.sub(HIDDEN, _URL_PASSWORD.sub(f"{HIDDEN}@", text))
