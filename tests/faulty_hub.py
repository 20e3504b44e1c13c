"""The local Hub in this process, behind a door that answers one chosen request with a fault."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers.utils.hub
import uvicorn
from huggingface_hub import constants
from huggingface_hub.utils import _http

from local_hub.__main__ import listen
from local_hub.app import create_app
from local_hub.auth import Accounts
from local_hub.store import Store
from product_vqa.hub import retries


class FaultyHub:
    """`requests` are those since `begin`; the one of index `at` is answered by the fault."""

    def __init__(self, root: Path) -> None:
        self.token = f"hf_{secrets.token_urlsafe(24)}"
        self.requests: list[str] = []
        self._fault: Callable[..., Any] | None = None
        self._at = -1
        self._lock = threading.Lock()
        self.store = Store(root)
        self._app = create_app(self.store, accounts=Accounts(token=self.token))
        listener = listen(0)
        self.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            self, loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        return len(self.requests)

    def begin(self, fault: Callable[..., Any] | None = None, *, at: int = -1) -> None:
        with self._lock:
            self.requests, self._fault, self._at = [], fault, at

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._lock:
            fault = self._fault if len(self.requests) == self._at else None
            self.requests.append(f"{scope['method']} {scope['path']}")
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await fault(self, scope, receive, send)

    def hang_up(self, scope: Any) -> None:
        for connection in list(self._server.server_state.connections):
            if connection.scope is scope:
                connection.transport.abort()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self.store.close()


def answer(status: int, body: bytes = b'{"error": "a bad moment"}', **headers: str) -> Callable[..., Any]:
    """Answers so, without looking at the request."""

    async def fault(hub: FaultyHub, scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": named})
        await send({"type": "http.response.body", "body": body})

    return fault


async def reset(hub: FaultyHub, scope: Any, receive: Any, send: Any) -> None:
    """Hangs up."""
    hub.hang_up(scope)


async def hang(hub: FaultyHub, scope: Any, receive: Any, send: Any) -> None:
    """Never answers."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def done_but_500(hub: FaultyHub, scope: Any, receive: Any, send: Any) -> None:
    """Does what was asked for, and says that it failed."""

    async def keep_silent(message: Any) -> None:
        pass

    await hub._app(scope, receive, keep_silent)
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def done_but_reset(hub: FaultyHub, scope: Any, receive: Any, send: Any) -> None:
    """Does what was asked for, and hangs up."""

    async def keep_silent(message: Any) -> None:
        pass

    await hub._app(scope, receive, keep_silent)
    hub.hang_up(scope)


@contextmanager
def faulty_hub(root: Path) -> Iterator[FaultyHub]:
    hub = FaultyHub(root)
    try:
        deadline = time.monotonic() + 20
        while not hub._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield hub
    finally:
        hub.close()


def point_at(hub: FaultyHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the environment had named this Hub when the clients were imported."""
    point_clients_at(hub.endpoint, hub.token, monkeypatch)


def point_clients_at(endpoint: str, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)  # made at its first use, and kept


def skip_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that are to be waited between attempts; nobody waits."""
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(retries, "time", clock)
    monkeypatch.setattr(_http, "time", clock)
    return slept
