"""A hub as a process of its own, for a script or a test: its client may run in the same process as the script."""

import os
import re
import secrets
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, Self

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class LocalHub:
    """`with LocalHub("folder") as hub:` serves the repos in `folder` until the block, or this process, ends.

    The clients read their settings when they are imported: start them in a process with
    `env=os.environ | hub.environment`, or pass `endpoint=hub.endpoint, token=hub.token` to HfApi.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, port: int = 0, token: str | None = None, reader_token: str | None = None
    ) -> None:
        """Port 0 is any free one. `token` is the owner's (default: a random one), `reader_token` that of a second
        account, who only reads what is public and not gated (default: there is none)."""
        self.root = Path(root)
        self.token = token or f"hf_{secrets.token_urlsafe(24)}"
        self.reader_token = reader_token
        self.endpoint = ""  # known once the hub runs
        self.process: subprocess.Popen[str] | None = None
        self._port = port
        self._errors: deque[str] = deque(maxlen=20)
        self._relay: threading.Thread | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process needs to know."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",  # the Xet client asks no server whether it has a Xet store
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def start(self) -> Self:
        """Returns when the hub answers. Raises RuntimeError, with what it said, if it does not start."""
        self.stop()
        command = [sys.executable, "-m", "local_hub", "--root", str(self.root.absolute()), "--port", str(self._port)]
        packages = str(Path(__file__).resolve().parents[1])  # found from any working directory
        environment = os.environ | {
            "HF_TOKEN": self.token,  # not on the command line, where every user of the machine can read it
            "LOCAL_HUB_READER_TOKEN": self.reader_token or "",
            "PYTHONPATH": os.pathsep.join(filter(None, [packages, os.environ.get("PYTHONPATH")])),
        }
        self.process = subprocess.Popen(
            [*command, "--until_stdin_closes"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        self._relay = threading.Thread(target=self._pass_on, args=(self.process.stderr,), daemon=True)
        self._relay.start()
        patience = threading.Timer(START_TIMEOUT_S, self.process.kill)
        patience.start()
        announced = re.search(r"http://[\d.]+:\d+", self.process.stdout.readline())
        patience.cancel()
        if announced is None:
            self.stop()
            raise RuntimeError(f"the local hub did not start: {''.join(self._errors).strip() or 'it said nothing'}")
        self.endpoint = announced[0]
        return self

    def stop(self) -> None:
        """Ends the hub; what it has answered to is kept."""
        if self.process is None:
            return
        assert self.process.stdin is not None and self.process.stdout is not None and self._relay is not None
        self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._relay.join(STOP_TIMEOUT_S)
        self.process.stdout.close()
        self.process = None

    def _pass_on(self, errors: IO[str]) -> None:
        with errors:
            for line in errors:
                self._errors.append(line)
                sys.stderr.write(line)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
