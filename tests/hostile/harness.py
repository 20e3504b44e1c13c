"""Run commands on hostile input, and see that they end in time, in one line, and touch nothing that is not theirs."""

import faulthandler
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from product_vqa.errors import InputError
from tests.commands import call
from tests.hostile.adapters import Sources

LIMIT_S = 100  # for one case, on a busy machine; most take a tenth of a second
OLD = 10**9  # seconds since 1970: when the secret was last read


def as_params(cases: Sequence[Any], *, share: int) -> list[Any]:
    """The cases for `parametrize`. Every `share`-th runs in `make test`, all in `make faults`."""
    return [
        pytest.param(case, id=ascii(case.name), marks=() if number % share == 0 else pytest.mark.faults)
        for number, case in enumerate(cases)
    ]


class Trap:
    """A secret file, a server and a mark that hostile input points at. `check` fails if one of them was reached."""

    def __init__(self, folder: Path, server: HTTPServer, requests: list[str]) -> None:
        self._requests = requests
        self.sources = Sources(folder / "secret.png", f"http://127.0.0.1:{server.server_port}", folder / "code ran")
        for file in (self.sources.secret, self.sources.secret.with_suffix(".parquet")):
            file.write_text("a secret")
            os.utime(file, (OLD, OLD))

    def check(self) -> None:
        assert self._requests == [], "the server was asked"
        assert not self.sources.mark.exists(), "code ran"
        for file in (self.sources.secret, self.sources.secret.with_suffix(".parquet")):
            assert file.stat().st_atime == OLD, "the secret was read"  # unless the file system records no access


@contextmanager
def make_trap(folder: Path) -> Iterator[Trap]:
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Trap(folder, server, requests)
    finally:
        server.shutdown()
        server.server_close()


def predict_arguments(folder: Path, dataset: Path, *models: str | Path) -> list[str | Path]:
    options: list[str | Path] = ["--dataset", dataset, "--split", "validation", "--output", folder / "s.csv"]
    return [*models, *options, "--dtype", "float32", "--batch_size", "1"]


def outcome(
    main: Callable[[], int | None], monkeypatch: pytest.MonkeyPatch, *arguments: str | Path, names: str
) -> str | None:
    """Run a command; returns its error, which must be one line that contains `names`, or None if it succeeds.

    Anything else that it raises is a failure of the test. A case that hangs ends the test process, with a traceback.
    """
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    try:
        call(main, monkeypatch, *arguments)
    except InputError as error:
        message = str(error)
        assert message and "\n" not in message and message.isprintable(), ascii(message)
        assert len(message) < 2500, message
        assert names in message, message
        return message
    finally:
        faulthandler.cancel_dump_traceback_later()
    return None
