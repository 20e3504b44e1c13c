"""Each account's share of the hub, so that the requests of one account do not block those of another.

Everything that waits for a client (headers, bodies, responses) is asynchronous and holds no thread. What remains is
work: the owner's runs in threads of its own. The others, who may be strangers, have one thread for each account, and a
part of one core.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

import anyio.to_thread
from starlette.requests import ClientDisconnect, Request

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

OWNER_THREADS = 16
LOAD_MAX = 0.25  # of one core, for each account but the owner's
BURST_S = 0.5  # of work at full speed, after a pause
BYTES_PER_S = 100_000_000  # of the responses to each account but the owner
REQUEST_COST_S = 0.001  # of parsing a request and answering it, which is not measured


class OwnerShare:
    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(OWNER_THREADS)

    async def admit(self, is_gone: Callable[[], bool]) -> None:
        pass

    async def send(self, size: int) -> None:
        pass

    async def run(self, function: Callable[[], Result], is_gone: Callable[[], bool]) -> Result:
        return await anyio.to_thread.run_sync(function, limiter=self._limiter)


class GuestShare:
    """One request at a time, in the order of their arrival, and pauses in between once the burst is used up."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._limiter = anyio.CapacityLimiter(1)
        self._paid_until = 0.0  # the time at which the work so far is within the load
        self._sent_until = 0.0  # the time at which the bytes so far are within the bandwidth

    async def admit(self, is_gone: Callable[[], bool]) -> None:
        """Wait for the turn of a request. Raises ClientDisconnect if the client does not wait that long."""
        async with self._turn(is_gone):
            self._pay(REQUEST_COST_S)

    async def run(self, function: Callable[[], Result], is_gone: Callable[[], bool]) -> Result:
        async with self._turn(is_gone):
            start = time.monotonic()
            try:
                return await anyio.to_thread.run_sync(function, limiter=self._limiter)
            finally:
                self._pay(time.monotonic() - start)

    async def send(self, size: int) -> None:
        """Wait until `size` bytes more of a response are within the bandwidth."""
        now = time.monotonic()
        wait_s = self._sent_until - now
        self._sent_until = max(self._sent_until, now) + size / BYTES_PER_S
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def _turn(self, is_gone: Callable[[], bool]) -> AsyncIterator[None]:
        async with self._lock:
            if is_gone():
                raise ClientDisconnect
            await asyncio.sleep(self._paid_until - time.monotonic())
            yield

    def _pay(self, cost_s: float) -> None:
        self._paid_until = max(self._paid_until, time.monotonic() - BURST_S / LOAD_MAX) + cost_s / LOAD_MAX


Share = OwnerShare | GuestShare


async def run_in_thread(
    request: Request, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Run a function within the share of the request's account."""
    share: Share = request.state.share
    return await share.run(partial(function, *args, **kwargs), partial(is_client_gone, request.scope))


def is_client_gone(scope: Any) -> bool:
    """Whether the connection of a request is closed. Unknown, so False, unless the server is `local_hub.server`."""
    connection = scope.get("extensions", {}).get("local_hub.connection")
    return connection is not None and connection.is_closed
