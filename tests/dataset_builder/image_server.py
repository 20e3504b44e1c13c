"""An HTTP server for images, and the faulty responses that it can give."""

import contextlib
import gzip
import socket
import ssl
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[BaseHTTPRequestHandler], None]


class ImageServer:
    """Answers each path with bytes, or with a function. Counts the requests for each path, and the connections."""

    def __init__(self, *, port: int = 0, certificate: tuple[Path, Path] | None = None) -> None:
        """`certificate`, with its key, is for https."""
        self.answers: dict[str, bytes | Answer] = {}
        self.requests: Counter[str] = Counter()
        self.clients: set[tuple[str, int]] = set()  # the address and port of each connection
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or else each second answer comes 40 ms later

            def do_GET(self) -> None:
                server.requests[self.path] += 1
                server.clients.add(self.client_address)
                answer = server.answers.get(self.path)
                if callable(answer):
                    answer(self)
                elif answer is None:
                    send(self, b"nothing here", status=404)
                else:
                    send(self, answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # the client hung up, as a killed one does

        self._server = Server(("127.0.0.1", port), Handler)
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def send(handler: BaseHTTPRequestHandler, body: bytes, *, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def first_then(first: Answer, then: bytes) -> Answer:
    """Calls `first` for the first request, and answers every later one with the bytes."""
    seen = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(1)
        if len(seen) == 1:
            first(handler)
        else:
            send(handler, then)

    return answer


def slowly(body: bytes, *, pause_s: float) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(pause_s)
        send(handler, body)

    return answer


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Announces a thousand bytes, sends ten, and hangs up."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"\xff\xd8" + b"x" * 8)
    handler.close_connection = True


def status(code: int, **headers: str) -> Answer:
    return lambda handler: send(handler, b"no", status=code, **headers)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Sends a byte now and then, and never ends."""
    handler.send_response(200)
    handler.send_header("Content-Length", "900")
    handler.end_headers()
    for _ in range(30):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    """Sends a byte of a header now and then, and never ends."""
    handler.send_response(200)
    handler.flush_headers()
    for _ in range(600):
        handler.wfile.write(b"X")
        time.sleep(0.1)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"x" * 4096)


def packed(body: bytes, *, encoding: str = "gzip") -> Answer:
    content = gzip.compress(body) if encoding.lower() == "gzip" else zlib.compress(body)
    return lambda handler: send(handler, content, Content_Encoding=encoding)


def until_closed(*pieces: bytes, **headers: str) -> Answer:
    """Sends the pieces, 20 ms apart, and hangs up. Announces no length but that among the headers."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        for number, piece in enumerate(pieces):
            time.sleep(0.02 if number else 0)
            handler.wfile.write(piece)
        handler.close_connection = True

    return answer


def length(body: bytes, promised: int) -> Answer:
    """Announces another number of bytes than it sends, and hangs up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(promised))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return answer


def closed_port() -> str:
    """A URL of this machine where no server listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@contextlib.contextmanager
def full_port() -> Iterator[int]:
    """A port that leaves those who want to connect without an answer."""
    with contextlib.ExitStack() as opened:
        port: int = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0)).getsockname()[1]
        for _ in range(3):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port whose first connection is given to a function."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    answer(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
