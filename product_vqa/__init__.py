"""What all stages agree on: the task, its words and units, and how PaliGemma is spoken to."""

import os

__version__ = "0.1.0"


def _complete_endpoint() -> None:
    """HF_ENDPOINT as the clients need it, who read it when they are imported: with a scheme, without a last slash."""
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint is None:
        return
    endpoint = endpoint.strip().rstrip("/")
    if endpoint and "://" not in endpoint:
        is_local = endpoint.startswith(("127.", "localhost", "[::1]"))
        endpoint = f"{'http' if is_local else 'https'}://{endpoint}"
    if endpoint:
        os.environ["HF_ENDPOINT"] = endpoint
    else:
        del os.environ["HF_ENDPOINT"]  # the clients would take it for an address


_complete_endpoint()
