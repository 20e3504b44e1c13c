"""Connections to the hub: how long they may take, how many there may be, and when they are closed.

uvicorn limits neither the time for the headers of a request nor the time for reading a response, and it reads a body
to its end even if nobody wants it.
"""

import asyncio
import contextlib
import json
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX = 512  # beyond them, the one that is the least useful is closed
HEADERS_TIMEOUT_S = 10.0  # for the headers of a request
READ_TIMEOUT_S = 60.0  # for a client to read any part of a response
LINGER_S = 1.0  # between a response to a request that was not read to its end, and the reset that discards the rest
HEADERS_SIZE_MAX = 32 * 2**10  # bytes, with the URL
HEADERS_MAX = 100
CHUNKS_MIN = 32  # in so many chunks of a body ...
CHUNK_SIZE_MIN = 32  # ... they must have so many bytes on average: each one takes time to parse
ERRORS_PER_S = 100  # answers to malformed requests; more of them wait ...
ERROR_DELAY_MAX_S = 1.0  # ... but no longer than this
READ_SIZE = 64 * 2**10  # bytes received at once


class RequestParser(h11.Connection):
    """h11's parser, with limits on what is expensive to parse, and without ambiguous framing."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=HEADERS_SIZE_MAX)
        self._num_chunks = 0
        self._body_size = 0

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            head = self.trailing_data[0].partition(b"\r\n\r\n")[0]
            if len(head) > HEADERS_SIZE_MAX or head.count(b"\n") > HEADERS_MAX:
                raise h11.RemoteProtocolError("too many headers", error_status_hint=431)
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._num_chunks = self._body_size = 0
            names = {name for name, _ in event.headers}
            if b"content-length" in names and b"transfer-encoding" in names:  # where does the request end?
                raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
        elif isinstance(event, h11.Data):
            self._num_chunks += event.chunk_start
            self._body_size += len(event.data)
            if self._num_chunks >= CHUNKS_MIN and self._body_size < CHUNK_SIZE_MIN * self._num_chunks:
                raise h11.RemoteProtocolError("chunks that are too small")
        return event

    def send(self, event: Any) -> Any:
        """A response that comes before the end of the request's body says that the connection closes.

        Not by h11, or uvicorn would close it at once, and the client might not get to read the response.
        """
        data = super().send(event)
        if data is not None and isinstance(event, h11.Response) and self.their_state is h11.SEND_BODY:
            data = data.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n"
        return data


class Connection(H11Protocol):
    """One connection of a client, for `uvicorn.Config(http=Connection)`."""

    _errors_until = 0.0  # the time up to which answers to malformed requests are due, of all connections

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = RequestParser()
        self._wrapped_app: Any = self.app
        self.app = self._run_app
        self.is_owners = False  # whether it has sent a request of the owner
        self._last_active = time.monotonic()
        self._headers_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._is_lingering = False

    @property
    def is_closed(self) -> bool:
        return self.transport.is_closing()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self._is_lingering or self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.max_size = READ_SIZE
        self._start_headers_timer()
        if len(self.connections) > CONNECTIONS_MAX:
            self._close_one()

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            return
        self._last_active = time.monotonic()
        super().data_received(data)
        if self._is_lingering:
            return
        if not self.is_idle:
            self._stop_headers_timer()
        elif self._headers_timer is None:
            self._start_headers_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_headers_timer()
        self._stop_read_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._linger()
        else:
            super().on_response_complete()
            if not self.is_idle:  # a pipelined request has started
                self._stop_headers_timer()

    def send_400_response(self, msg: str) -> None:
        self._stop_headers_timer()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the endpoint is still waiting for the rest of the body
            self.cycle.message_event.set()
        self._is_lingering = True
        self.flow.pause_reading()
        now = time.monotonic()
        Connection._errors_until = max(Connection._errors_until, now - 1) + 1 / ERRORS_PER_S
        self.loop.call_later(min(Connection._errors_until - now, ERROR_DELAY_MAX_S), self._send_error, msg)

    def _send_error(self, msg: str) -> None:
        if self.transport.is_closing():
            return
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = json.dumps({"error": msg}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self._linger()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_read_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_read_timer()

    async def _run_app(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._wrapped_app({**scope, "extensions": {"local_hub.connection": self}}, receive, send)
        except asyncio.CancelledError:  # the hub stops; without an answer, the client knows that nothing is confirmed
            self.transport.abort()
        if self.is_closed:
            self.cycle.disconnected = True  # so that uvicorn expects no response

    def _start_headers_timer(self) -> None:
        self._headers_timer = self.loop.call_later(HEADERS_TIMEOUT_S, self.transport.abort)

    def _stop_headers_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _start_read_timer(self) -> None:
        """Close the connection unless the client has read a part of the response meanwhile."""
        size = self.transport.get_write_buffer_size()

        def check() -> None:
            if self.transport.get_write_buffer_size() >= size:
                self.transport.abort()
            else:
                self._start_read_timer()

        self._read_timer = self.loop.call_later(READ_TIMEOUT_S, check)

    def _linger(self) -> None:
        """Close the connection without reading on, but not before the client can have read the response."""
        self._is_lingering = True
        self.flow.pause_reading()
        with contextlib.suppress(OSError):  # the client is gone
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self._finish)

    def _finish(self) -> None:
        if self.transport.get_write_buffer_size():  # the timer above closes it if the client does not read
            self.loop.call_later(LINGER_S, self._finish)
        else:
            self.transport.abort()

    def _close_one(self) -> None:
        """Close the connection that has been silent for the longest time, rather not the owner's."""
        now = time.monotonic()
        others = [other for other in self.connections if isinstance(other, Connection) and not other.is_closed]

        def usefulness(other: Connection) -> tuple[bool, bool, bool, float]:
            is_new = now - other._last_active < 2  # it may be the owner's: its request may be on the way
            return other.is_owners, is_new, not other.is_idle, other._last_active

        min(others, key=usefulness).transport.abort()
