"""Who asks the session's hub: its owner, its reader, nobody in particular, and a sender of what no client sends."""

import http.client
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Send = Callable[..., Answer]


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


@pytest.fixture
def repo(api: HfApi) -> str:
    return api.create_repo(f"local/{secrets.token_hex(6)}").repo_id


@pytest.fixture
def folder_of(hub: LocalHub) -> Callable[[str], Path]:
    return lambda repo: hub.root / "models" / repo


@pytest.fixture(scope="session")
def send(hub: LocalHub) -> Send:
    return sender(hub)


def sender(hub: LocalHub) -> Send:
    """Requests that no client would send: the path goes out as it is. The owner's token goes with them by default."""

    def send(
        method: str, path: str, body: bytes | str | None = None, *, token: str | None = hub.token, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", int(hub.endpoint.rpartition(":")[2]), timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.putrequest(method, path, skip_host="Host" in named, skip_accept_encoding=True)
            if token is not None:
                named["Authorization"] = f"Bearer {token}"
            content = body.encode() if isinstance(body, str) else body or b""
            for name, value in (named | {"Content-Length": str(len(content))}).items():
                connection.putheader(name, value)
            connection.endheaders(content)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    return send


def commit_body(*operations: tuple[str, dict[str, Any]], parent: str | None = None) -> str:
    header = {"summary": "a commit", "description": ""} | ({"parentCommit": parent} if parent else {})
    lines = [("header", header), *operations]
    return "".join(json.dumps({"key": key, "value": value}) + "\n" for key, value in lines)
