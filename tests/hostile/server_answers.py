"""Answers of servers that are malformed, endless, slow or wrong, and a server that gives them byte for byte."""

import contextlib
import gzip
import random
import selectors
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product, repeat

from tests.dataset_builder.files import huge_png, jpeg

IMAGE = jpeg(1)
OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: %d\r\n" % len(IMAGE)
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NUM_ENDLESS = 10**9


@dataclass(frozen=True)
class HostileAnswer:
    """The pieces of an answer, and the pause before each of them. Then the server hangs up."""

    kind: str
    name: str
    pieces: tuple[bytes, ...]
    num_repeats: int = 1  # of the last piece
    pause_s: float = 0

    def stream(self) -> Iterator[bytes]:
        return chain(self.pieces[:-1], repeat(self.pieces[-1], self.num_repeats))


STATUS_LINES = {
    "nothing": b"", "line_end": b"\r\n", "no_status": b"HTTP/1.1\r\n\r\n", "letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "version_9": b"HTTP/9.9 200 OK\r\n\r\n", "version_0.9": b"HTTP/0.9 200 OK\r\n\r\n" + IMAGE,
    "status_99": b"HTTP/1.1 99 Low\r\n\r\n", "status_1000": b"HTTP/1.1 1000 High\r\n\r\n",
    "negative": b"HTTP/1.1 -200 OK\r\n\r\n", "very_many_digits": b"HTTP/1.1 " + b"2" * 60_000 + b" OK\r\n\r\n",
    "superscript": b"HTTP/1.1 \xb2\xb0\xb0 OK\r\n\r\n", "underscores": b"HTTP/1.1 2_0_0 OK\r\n\r\n" + IMAGE,
    "too_long": b"HTTP/1.1 200 " + b"O" * 100_000 + b"\r\n\r\n", "no_line_end": b"HTTP/1.1 200 OK",
    "nul": b"HTTP/1.1 200 \0\r\n\r\n" + IMAGE, "icy": b"ICY 200 OK\r\n\r\n" + IMAGE, "smtp": b"220 mail ESMTP\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "tls_alert": b"\x15\x03\x03\0\x02\x02\x28",
    "only_an_image": IMAGE, "zeros": bytes(1000), "escape": b"HTTP/1.1 500 \x1b[2J\r\n\r\n",
}  # fmt: skip
STATUSES = [100, 101, 102, 103, 199, 201, 204, 205, 206, 226, 299, 300, 301, 304, 305, 306, 308, 400, 401, 402, 403]
STATUSES += [405, 406, 407, 408, 416, 418, 421, 425, 429, 451, 499, 500, 501, 502, 504, 507, 511, 599, 600, 999]
PAUSES = [
    b"Wed, 21 Oct 2026 07:28:00 -9223372036854775808", b"Wed, 21 Oct 99999999999 07:28:00 GMT", b"9" * 400,
    b"Mon, 01 Jan 0001 00:00:00 +2359", b"Fri, 31 Dec 9999 23:59:59 -2359", b"Fri, 31 Dec 9999 23:59:59 GMT", b"inf",
    b"-inf", b"nan", b"1e400", b"-1", b"\xb2", b"", b"0", b"\0", b"GMT", b"," * 5000, b"1 1", b"0x10", b"299", b"301",
    b"Wed, 21 Oct 2026 99:99:99 GMT", b"Wed, 99 Foo 2026 07:28:00 +99999999999999999999", b"9" * 5000,
]  # fmt: skip
HEADERS = {
    "no_colon": b"nonsense\r\n", "empty_name": b": value\r\n", "only_spaces": b"   \r\n", "nul": b"X-\0: \0\r\n",
    "latin_1": b"X: \xe9\xff\r\n", "two_hundred": b"X: y\r\n" * 200, "bare_cr": b"X: a\rContent-Length: 5\r\n",
    "one_of_70_kb": b"X: " + b"y" * 70_000 + b"\r\n", "six_mb": (b"X: " + b"y" * 60_000 + b"\r\n") * 99,
    "quadratic": b"Content-Type: multipart/x" + (b";" * 60_000 + b"\r\n ") * 90 + b"\r\n",
    "cookies": b"".join(b"Set-Cookie: a%d=b\r\n" % number for number in range(90)), "folded": b"X: a\r\n b\r\n\tc\r\n",
    "multipart": b"Content-Type: multipart/mixed; boundary=x\r\n", "rfc822": b"Content-Type: message/rfc822\r\n",
    "keep_and_close": b"Connection: close, keep-alive\r\nKeep-Alive: timeout=-1, max=9999999999999\r\n",
    "upgrade": b"Connection: Upgrade\r\nUpgrade: h2c\r\n", "escape": b"X: \x1b]0;title\x07\r\n",
    "encoded_name": b"=?utf-8?q?a?=: =?utf-8?b?////?=\r\n", "from_line": b"From nobody Mon\r\n",
}  # fmt: skip
LENGTHS = [
    b"-1", b"-0", b"+5", b"5, 5", b"5, 6", b"5\r\nContent-Length: 6", b"\xb2", b"1_0", b"0x10", b"1e3", b"nan", b"",
    b"9" * 20, b"9" * 5000, b"9223372036854775808", b"1", b"0", b" 7 ", b"7;", b"\0", b"33554433", b"33554432",
]  # fmt: skip
LOCATIONS = [
    b"", b"http://", b"//", b"http://[", b"http://[::1", b"http://[v1.x]/", b"http://\xff\xfe/",
    b"http://a" + b"b" * 64,
    b"http://" + b"a." * 300 + b"b/", b"/" + b"x" * 60_000, b"http://xn--a/", b"http://\xe9.example.invalid/",
    b"http://user:word@127.0.0.1/", b"http://127.0.0.1:99999/", b"http://127.0.0.1:-1/", b"http://127.0.0.1:x/",
    b"http://127.0.0.1:0/", b"ftp://127.0.0.1/", b"file:///etc/passwd", b"data:image/png;base64,AAAA", b"gopher://h/",
    b"javascript:alert(1)", b"/\0", b"/\x1b[2J", b"/\x85", b"?", b"#", b"http:///a.jpg", b"http:a.jpg",
    b"\\\\h\\a.jpg",
    b"http://127.0.0.1%00.example/", b"http://%31%32%37.0.0.1/", b"https://127.0.0.1:1/",
    b"HTTP://[::ffff:1.2.3.4%25]/",
    b"http://a\r\n .example.invalid/", b"http://1.2.3.4.5.6/", b"http://.../", b"http://\xad/", b"/%zz%",
    b"../" * 5000,
]  # fmt: skip
CHUNKS = {
    "no_size": b"\r\n", "not_hex": b"zz\r\n", "negative": b"-5\r\nabcde\r\n", "huge": b"f" * 60_000 + b"\r\nabc",
    "int64": b"ffffffffffffffff\r\nabc", "prefix": b"0x5\r\nabcde\r\n0\r\n\r\n", "underscore": b"1_0\r\nabc",
    "superscript": b"\xb2\r\nab\r\n", "too_long_line": b"5;" + b"x" * 70_000 + b"\r\nabcde\r\n", "nul": b"\0\r\n",
    "no_end": b"5\r\nabcde\r\n", "wrong_end": b"5\r\nabcdefgh\r\n0\r\n\r\n", "only_end": b"0\r\n\r\n",
    "trailers": b"0\r\n" + b"X: y\r\n" * 5000 + b"\r\n", "long_trailer": b"0\r\nX: " + b"y" * 70_000,
    "space": b" \r\n",
    "nothing": b"",
}  # fmt: skip
ENCODED = {
    "not_gzip": (b"gzip", IMAGE), "cut": (b"gzip", gzip.compress(IMAGE)[:-20]), "empty": (b"gzip", b""),
    "two": (b"gzip", gzip.compress(IMAGE) * 2), "garbage": (b"gzip", gzip.compress(IMAGE) + bytes(100_000)),
    "twice": (b"gzip, gzip", gzip.compress(gzip.compress(IMAGE))), "brotli": (b"br", IMAGE), "nul": (b"\0", IMAGE),
    "raw_deflate": (b"deflate", zlib.compress(IMAGE)[2:-4]), "bomb": (b"gzip", gzip.compress(bytes(64 * 1024**2))),
    "deflate_bomb": (b"deflate", zlib.compress(bytes(64 * 1024**2))), "long": (b"x" * 60_000, IMAGE),
    "dictionary": (b"deflate", zlib.compressobj(zdict=b"abc").compress(b"abc") + b"x\xbb\0\0\0\0"),
}  # fmt: skip
BODIES = {
    "empty": b"", "page": b"<html>\x1b[2J</html>", "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "text": b"no",
    "half": IMAGE[: len(IMAGE) // 2], "pixels": huge_png(50_000, 50_000), "magic": b"\xff\xd8\xff\xe0",
    "noise": random.Random(0).randbytes(5000), "gif": b"GIF89a" + bytes(5000),
    "tiff": b"II*\0\x08\0\0\0\xff\xff" * 500,
    "webp": b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(100),
    "bmp": b"BM" + struct.pack("<IHHIIii", 99, 0, 0, 54, 40, -1, -1),
    "avif": b"\0\0\0\x1cftypavif" + bytes(100), "postscript": b"%!PS-Adobe-3.0\n%%BoundingBox: 0 0 1 1\n",
}  # fmt: skip
SLOW = {  # (before, the piece that comes again and again)
    "status_line": (b"HTTP/1.1 200 ", b"O"), "header_name": (OK, b"X"), "header_value": (OK + b"X: ", b"y"),
    "headers": (OK, b"X: y\r\n"), "body": (SIZED + b"\r\n", b"x"), "chunk_size": (CHUNKED, b"0"),
    "chunk_extension": (CHUNKED + b"5;", b"x"), "chunks": (CHUNKED, b"1\r\nx\r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n"),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"), "silence": (b"", b""),
    "early_hints": (b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "until_closed": (OK + b"\r\n" + IMAGE, b"x"),
    "packed_nothing": (OK + b"Content-Encoding: deflate\r\n\r\nx\x9c", b"\0\0\0\xff\xff"),
}  # fmt: skip
ENDLESS = {  # the same without pauses
    "status_line": SLOW["status_line"], "headers": SLOW["headers"], "continue": SLOW["continue"],
    "body": (OK + b"\r\n", bytes(60_000)), "chunks": (CHUNKED, b"fff\r\n" + bytes(0xFFF) + b"\r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 1000), "extensions": (CHUNKED + b"5;", b"x" * 60_000),
    "packed_nothing": (OK + b"Content-Encoding: deflate\r\n\r\nx\x9c", b"\0\0\0\xff\xff" * 10_000),
    "after_gzip": (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"x"), bytes(60_000)),
}  # fmt: skip


def hostile_answers(*, pause_s: float = 0.05) -> list[HostileAnswer]:
    """At least 100 answers with different names, always the same. Slow ones send a piece every `pause_s`."""
    answers = [HostileAnswer("status_line", name, (line,)) for name, line in STATUS_LINES.items()]
    for status in STATUSES:
        head = b"HTTP/1.1 %d Status\r\nContent-Length: %d\r\n\r\n" % (status, len(IMAGE))
        answers.append(HostileAnswer("status", str(status), (head, IMAGE)))
    for number, (status, pause) in enumerate(product((429, 503), PAUSES)):
        head = b"HTTP/1.1 %d Busy\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % (status, pause)
        answers.append(HostileAnswer("retry_after", f"{status}_{number}", (head,)))
    for name, header in HEADERS.items():
        answers.append(HostileAnswer("header", name, (SIZED + header + b"\r\n" + IMAGE,)))
    for number, length in enumerate(LENGTHS):
        answers.append(HostileAnswer("length", str(number), (OK + b"Content-Length: %b\r\n\r\n" % length, IMAGE)))
    for number, location in enumerate(LOCATIONS):
        status = (301, 302, 303, 307, 308)[number % 5]
        head = b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, location)
        answers.append(HostileAnswer("location", str(number), (head,)))
    answers += [HostileAnswer("chunk", name, (CHUNKED, chunk)) for name, chunk in CHUNKS.items()]
    for name, (encoding, body) in ENCODED.items():
        head = OK + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (encoding, len(body))
        answers.append(HostileAnswer("encoding", name, (head, body)))
    for name, body in BODIES.items():
        answers.append(HostileAnswer("body", name, (OK + b"Content-Length: %d\r\n\r\n" % len(body), body)))
    answers += [HostileAnswer("slow", name, pieces, NUM_ENDLESS, pause_s) for name, pieces in SLOW.items()]
    answers += [HostileAnswer("endless", name, pieces, NUM_ENDLESS) for name, pieces in ENDLESS.items()]
    return answers


class HostileServer:
    """Gives each answer at an address of its own, since a `Retry-After` is meant for all URLs of its host.

    Every other path than that of the answer has an image.
    """

    def __init__(self, answers: list[HostileAnswer]) -> None:
        self._selector = selectors.DefaultSelector()
        self._is_open = True
        self.urls: dict[str, str] = {}  # of the answers, by kind and name
        self.good_urls: list[str] = []
        for number, answer in enumerate(answers):
            listener = socket.create_server((f"127.0.{1 + number // 250}.{1 + number % 250}", 0), backlog=64)
            self._selector.register(listener, selectors.EVENT_READ, answer)
            host, port = listener.getsockname()
            self.urls[f"{answer.kind} {answer.name}"] = f"http://{host}:{port}/hostile.jpg"
            if answer.kind != "retry_after":
                self.good_urls.append(f"http://{host}:{port}/good.jpg")
        assert len(self.urls) == len(answers)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "HostileServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False

    def _accept(self) -> None:
        while self._is_open:
            for key, _ in self._selector.select(timeout=0.1):
                connection, _ = key.fileobj.accept()  # type: ignore[union-attr]
                threading.Thread(target=self._answer, args=(connection, key.data), daemon=True).start()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]

    def _answer(self, connection: socket.socket, answer: HostileAnswer) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as requests:
            connection.settimeout(60)
            while line := requests.readline():
                while requests.readline() not in (b"\r\n", b""):
                    pass
                if b"hostile" not in line:
                    connection.sendall(SIZED + b"\r\n" + IMAGE)
                    continue
                for piece in answer.stream():
                    connection.sendall(piece)
                    if answer.pause_s:
                        time.sleep(answer.pause_s)
                    if not self._is_open:
                        break
                return
