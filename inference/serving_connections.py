"""The server process: how long a connection may take, and how it ends. SIGTERM lets what was accepted be answered."""

import asyncio
import json
import signal
import socket
import threading
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from product_vqa.errors import InputError

HEADERS_TIMEOUT_S = 10.0  # for the headers of a request, from the start of the connection or the last response
KEEP_ALIVE_S = 60  # for an idle connection
GRACE_S = 180  # after SIGTERM; longer than a request may take
MAX_CONNECTIONS = 1024
MAX_HEADERS_BYTES = 32 * 1024


class Connection(H11Protocol):
    """A connection of a client. uvicorn itself waits for headers without a limit."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headers_timer: asyncio.TimerHandle | None = None

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if self._is_idle and self._headers_timer is None:
            self._start_timer()
        super().data_received(data)
        if not self._is_idle:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the form of the other errors."""
        self._stop_timer()
        error = {"message": msg, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _start_timer(self) -> None:
        self._headers_timer = self.loop.call_later(HEADERS_TIMEOUT_S, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None


class Server(uvicorn.Server):
    """Ends with exit code 0 after SIGTERM or SIGINT, once what was accepted is answered; at once after a second."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        signal.signal(sig, signal.SIG_DFL)

    def serve_until_stopped(self, listener: socket.socket) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again at its end
                signal.signal(number, _do_nothing)
        self.run(sockets=[listener])


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def bind(host: str, port: int) -> socket.socket:
    """Reserve an address, without accepting connections yet. Raises InputError if it cannot be used."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        raise InputError(f"`port` {port}: cannot listen on {host} ({error}); choose another one") from error
    return listener


def make_server(app: ASGIApp) -> Server:
    return Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=1024,
            limit_concurrency=MAX_CONNECTIONS,
            h11_max_incomplete_event_size=MAX_HEADERS_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
