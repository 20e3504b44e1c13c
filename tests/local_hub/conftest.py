"""The clients of the session's hub: its owner, its reader, an anonymous one, and one that sends raw requests."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from tests.local_hub.raw_requests import Send, make_send


@pytest.fixture(scope="session")
def api(hub: LocalHub) -> HfApi:
    """The owner's client."""
    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture(scope="session")
def reader(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.reader_token)


@pytest.fixture(scope="session")
def anonymous(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=False)


@pytest.fixture(scope="session")
def send(hub: LocalHub) -> Send:
    return make_send(hub)


@pytest.fixture
def repo(api: HfApi) -> str:
    return api.create_repo(f"local/{secrets.token_hex(6)}").repo_id


@pytest.fixture
def repo_folder(hub: LocalHub) -> Callable[[str], Path]:
    """The folder of a model repo on disk."""
    return lambda repo: hub.root / "models" / repo
