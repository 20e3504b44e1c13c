"""The page's server from outside: what strangers, other pages and other hosts get, and what stays on the disk."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

pytest.importorskip("gradio", reason="the page needs the extra `demo`")

from inference import demo, web_server
from inference.web_server import Uploads, upload_folder
from product_vqa.images import MAX_BYTES
from product_vqa.task.schema import CHALLENGE
from tests.commands import ROOT
from tests.tiny import make_image


class Answer:
    prediction, confidence, alternatives, box = "500.0 gram", 0.5, (), None


class Reader:
    """A reader without a model."""

    def read(self, image: Any, entity_name: str, *, ocr: Any) -> Answer:
        return Answer()

    def read_batch(self, images: Any, entity_names: Any, *, ocr: Any) -> list[Answer]:
        return [Answer() for _ in entity_names]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private-folder")
    for number in range(2):
        make_image(number).save(folder / f"example-{number}.png")
    return folder


@pytest.fixture(scope="module")
def served(examples: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a page, and the folder of its files."""
    with upload_folder() as folder:
        uploads = Uploads(folder)
        page = demo.make_page(
            Reader(), title="u/x", examples=demo.find_examples(str(examples)), uploads=uploads, schema=CHALLENGE
        )  # type: ignore[arg-type]
        uploads.keep_all()
        yield demo.serve(page, uploads, folder=folder, host="127.0.0.1", port=0, prevent_thread_lock=True), folder
        page.close()
    assert not folder.exists()


def upload(url: str, content: bytes, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}gradio_api/upload", files={"files": ("a.png", content)}, headers=headers)


def ask(url: str, image: Any, route: str = "read") -> str:
    """The server's last event: the answer, or an error."""
    data = [image, "item_weight"] if route == "read" else [image]
    call = httpx.post(f"{url}gradio_api/call/{route}", json={"data": data})
    return httpx.get(f"{url}gradio_api/call/{route}/{call.json()['event_id']}", timeout=20).text


def file_data(path: str, **more: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def stored(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


@pytest.mark.slow
def test_an_upload_is_deleted_when_it_is_read_and_answers_more_questions(
    served: tuple[str, Path], tmp_path: Path
) -> None:
    url, folder = served
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for number in range(2):
        make_image(100 + number).save(tmp_path / "image.png")
        (path,) = upload(url, (tmp_path / "image.png").read_bytes()).json()
        assert "a.png" in stored(folder)
        for route in ("read", "read_all", "read"):
            assert "500.0 gram" in ask(url, file_data(path), route)
            assert stored(folder) == ["example-0.png", "example-1.png"]


@pytest.mark.slow
def test_the_examples_can_be_read_again_and_again(served: tuple[str, Path]) -> None:
    url, _ = served
    (path, _) = sorted(set(re.findall(r'"path": ?"(/uploads-[^"]+)"', httpx.get(f"{url}config").text)))
    for _ in range(2):
        assert "500.0 gram" in ask(url, file_data(path))
        assert httpx.get(f"{url}gradio_api/file={path}").headers["content-type"] == "image/png"


@pytest.mark.slow
def test_no_answer_shows_a_path_of_the_machine(served: tuple[str, Path], examples: Path, tmp_path: Path) -> None:
    url, folder = served
    (tmp_path / "private.png").write_bytes(b"x")
    texts = [httpx.get(url + route).text for route in ("", "config", "gradio_api/info", "gradio_api/openapi.json")]
    texts.append(upload(url, b"no image").text)
    texts += [
        ask(url, data)
        for data in (
            file_data("/etc/passwd"),
            file_data(str(tmp_path / "private.png")),
            file_data("x", url="http://127.0.0.1:9/x.png"),
            file_data("../../../etc/passwd"),
            file_data(texts[-1][2:-2]),
            "text",
            {"path": 5},
        )
    ]
    assert len(texts) == 12
    for text in texts:
        for path in (folder, examples, ROOT, tmp_path, Path.home()):
            assert f"{path}/" not in text and str(path) + '"' not in text
        assert "Traceback" not in text and "root:" not in text


@pytest.mark.slow
def test_the_headers_say_what_the_page_may_do(served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, _ = served
    for route, status in (("", 200), ("config", 200), ("nowhere", 404)):
        answer = httpx.get(url + route)
        headers = answer.headers
        assert answer.status_code == status
        directives = dict(one.strip().split(" ", 1) for one in headers["content-security-policy"].split(";"))
        assert directives["default-src"] == "'self'" and directives["frame-ancestors"] == "'none'"
        assert "unsafe" not in directives["script-src"] and "http" not in directives["script-src"]
        assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
    monkeypatch.setenv("SPACE_ID", "user/space")
    headers = httpx.get(url).headers
    assert "frame-ancestors https://huggingface.co" in headers["content-security-policy"]
    assert "x-frame-options" not in headers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "route", "headers", "status"),
    [
        ("POST", "gradio_api/call/read", {"Origin": "http://evil.example"}, 403),
        ("POST", "gradio_api/call/read", {"Origin": "null"}, 403),
        ("POST", "gradio_api/queue/join", {"Origin": "http://127.0.0.1:1"}, 403),
        ("POST", "gradio_api/upload", {"Origin": "https://localhost.evil.example"}, 403),
        ("GET", "gradio_api/info", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "", {"Sec-Fetch-Site": "cross-site"}, 200),  # a link to the page
        ("GET", "config", {"Host": "evil.example"}, 421),  # a name that was pointed here
        ("GET", "config", {"Host": "127.0.0.1.evil.example:7860"}, 421),
        ("GET", "config", {"Host": "localhost:1234"}, 200),  # a port that is forwarded
        ("GET", "gradio_api/file=/etc/passwd", {}, 404),
        ("GET", "gradio_api/file=http://127.0.0.1:9/", {}, 404),
        ("GET", "gradio_api/file/etc/passwd", {}, 404),
        ("GET", "file=/etc/passwd", {}, 404),
        ("GET", "gradio_api/proxy=http://127.0.0.1:9/", {}, 404),
        ("HEAD", "gradio_api/proxy=http://127.0.0.1:9/", {}, 404),
        ("GET", "monitoring", {}, 404),
        ("GET", "gradio_api/mcp/sse", {}, 404),
        ("POST", "gradio_api/run/read", {}, 404),
        ("POST", "gradio_api/api/read", {}, 404),
        ("POST", "gradio_api/component_server", {}, 404),
        ("POST", "gradio_api/process_recording", {}, 404),
        ("GET", "gradio_api/runs", {}, 404),
        ("GET", "gradio_api/run-history/records", {}, 404),
        ("GET", "gradio_api/token", {}, 404),
        ("GET", "docs", {}, 404),
        ("DELETE", "config", {}, 404),
        ("PUT", "gradio_api/upload", {}, 404),
        ("POST", "gradio_api/queue/join", {"Content-Length": "2000000"}, 413),
        ("POST", "gradio_api/upload", {"Content-Length": str(MAX_BYTES * 2)}, 413),
        ("POST", "gradio_api/upload", {"Content-Length": "9" * 16}, 413),
    ],
)
def test_what_the_page_does_not_need_is_refused_before_its_body(
    served: tuple[str, Path], method: str, route: str, headers: dict[str, str], status: int
) -> None:
    url, _ = served
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    lines = {"Host": f"{host}:{port}", "Connection": "close"} | headers
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection.sendall(f"{method} /{route} HTTP/1.1\r\n{head}\r\n".encode())  # and no body
        assert connection.recv(100).split()[1] == str(status).encode()


@pytest.mark.slow
def test_a_body_without_a_length_ends_at_the_limit(served: tuple[str, Path]) -> None:
    url, folder = served

    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="large.png"\r\n\r\n'
        for _ in range(MAX_BYTES // 2**20 + 2):
            yield bytes(2**20)
        yield b"\r\n--x--\r\n"

    before = stored(folder)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    with contextlib.suppress(httpx.TransportError):  # the server may close the connection
        assert httpx.post(f"{url}gradio_api/upload", content=body(), headers=headers).status_code == 413
    deadline = time.monotonic() + 10
    while stored(folder) != before and time.monotonic() < deadline:  # it may be closed before the file is deleted
        time.sleep(0.05)
    assert stored(folder) == before


@pytest.mark.slow
def test_one_client_cannot_fill_the_queue_for_ever(served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, _ = served
    monkeypatch.setattr(web_server, "MAX_REQUESTS_PER_MINUTE", 0)
    answer = httpx.post(f"{url}gradio_api/call/read", json={"data": [None, "width"]})
    assert (answer.status_code, answer.text) == (429, "Too many requests; try again in a minute.")
    assert httpx.get(f"{url}config").status_code == 200


def test_uploads_are_kept_within_a_limit_and_the_oldest_go_first(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 10)
        os.utime(file, (number, number))
    uploads = Uploads(tmp_path, max_bytes=25)
    (tmp_path / "example.png").write_bytes(bytes(1000))
    uploads._kept = {tmp_path / "example.png"}
    uploads.make_room()
    assert stored(tmp_path) == ["3.png", "4.png", "example.png"]
    # In memory, too.
    for number in (3, 4):
        assert uploads.read(files[number], max_bytes=10) == bytes([number]) * 10
    assert stored(tmp_path) == ["example.png"]
    files[0].write_bytes(bytes(10))
    uploads.read(files[0], max_bytes=10)
    assert uploads.read(files[4], max_bytes=10) == b"\x04" * 10
    with pytest.raises(FileNotFoundError):
        uploads.read(files[3], max_bytes=10)
    files[1].write_bytes(bytes(11))
    with pytest.raises(OSError, match="11 bytes, more than 10"):
        uploads.read(files[1], max_bytes=10)
    outside = tmp_path.parent / f"{tmp_path.name}.png"
    outside.write_bytes(b"1")
    with pytest.raises(OSError, match="not an upload"):
        uploads.read(outside, max_bytes=10)
    assert outside.is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_folder_of_uploads_is_removed_when_the_page_is_stopped(number: signal.Signals) -> None:
    program = (
        "import signal, time\n"
        "from inference.web_server import upload_folder\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "with upload_folder() as folder:\n"
        "    (folder / 'a.png').touch()\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    assert (folder / "a.png").exists()
    process.send_signal(number)
    process.wait(timeout=30)
    assert not folder.exists()
