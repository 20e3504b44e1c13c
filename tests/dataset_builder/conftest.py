"""Small pictures and CSVs, a picture server of the tests' own, and the commands in processes of their own."""

import csv
import importlib
import io
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

TRAIN_COLUMNS = ["image_link", "group_id", "entity_name", "entity_value"]
TEST_COLUMNS = ["index", "image_link", "group_id", "entity_name"]


def jpeg(seed: int = 0, *, size: tuple[int, int] = (48, 32)) -> bytes:
    """A picture of noise, another one for each seed."""
    noise = Image.frombytes("RGB", size, random.Random(seed).randbytes(size[0] * size[1] * 3))
    stream = io.BytesIO()
    noise.save(stream, "JPEG", quality=60)
    return stream.getvalue()


def write_csv(file: Path, columns: list[str], rows: list[list[object]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return file


class Shop:
    """Twelve labelled rows about ten pictures, four test rows about three others, and the pictures in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image_dir = folder / "images"
        self.image_dir.mkdir()
        self.train_links = [f"https://shop.example/p/train{number}.jpg" for number in range(10)]
        self.test_links = [f"https://shop.example/p/test{number}.jpg" for number in range(3)]
        self.pictures = {link: jpeg(number) for number, link in enumerate(self.train_links + self.test_links)}
        for link, picture in self.pictures.items():
            self.file(link).write_bytes(picture)
        self.train_rows = [
            [link, f"g{number % 3}", "item_weight", f"{number + 1} gram"]
            for number, link in enumerate(self.train_links)
        ]
        self.train_rows.insert(3, [self.train_links[0], "g0", "item_weight", "[1.0, 2.0] gram"])
        self.train_rows.append([self.train_links[0], "g0", "height", "2.50 inch"])
        self.test_rows = [
            [7, self.test_links[0], "g1", "width"],
            [3, self.test_links[1], "g1", "voltage"],
            [11, self.test_links[0], "g1", "depth"],
            [12, self.test_links[2], "9", "item_volume"],
        ]
        self.train_csv = write_csv(folder / "train.csv", TRAIN_COLUMNS, self.train_rows)
        self.test_csv = write_csv(folder / "test.csv", TEST_COLUMNS, self.test_rows)

    def file(self, link: str) -> Path:
        return self.image_dir / link.rsplit("/", 1)[-1]

    def options(self) -> dict[str, str]:
        return {"train_csv": str(self.train_csv), "test_csv": str(self.test_csv), "image_dir": str(self.image_dir)}

    def arguments(self) -> list[str]:
        return [argument for name, value in self.options().items() for argument in (f"--{name}", value)]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def run_command(name: str, *arguments: object, cwd: Path, env: dict[str, str] | None = None):
    """`python -m dataset_builder.NAME` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", f"dataset_builder.{name}", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"HF_HOME": str(cwd / "hf_home")} | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


ELSEWHERE = "import sys; sys.modules |= {'dataset_builder': None, 'product_vqa': None}\n"


def run_elsewhere(program: str, *arguments: object, cwd: Path, env: dict[str, str] | None = None) -> list[str]:
    """The lines printed by what somebody runs who has never heard of this project: its packages cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE + program, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"HF_HOME": str(cwd / "hf_elsewhere"), "HF_HUB_OFFLINE": "1"} | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def run_here(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    """The same in this process: a second faster, and an InputError is raised."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    importlib.import_module(f"dataset_builder.{name}").main()


Answer = Callable[[BaseHTTPRequestHandler], None]


class PictureServer:
    """Answers a path with bytes, or as the function given for it does; counts the requests for each path."""

    def __init__(self, *, port: int = 0) -> None:
        self.answers: dict[str, bytes | Answer] = {}
        self.requests: Counter[str] = Counter()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.requests[self.path] += 1
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
                pass  # a client that hung up, as those that are killed do

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
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
    """Answers once in one way, ever after with the bytes."""
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
    """Promises a thousand bytes, sends ten, and hangs up."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"\xff\xd8" + b"x" * 8)
    handler.close_connection = True


@pytest.fixture
def server() -> Iterator[PictureServer]:
    server = PictureServer()
    yield server
    server.close()
