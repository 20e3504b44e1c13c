"""A hub in a process of its own, for a script or a test. A client can run in the same process as the script."""

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
    """`with LocalHub("folder") as hub:` serves the repos in `folder` until the block or this process ends.

    The clients read their settings when they are imported. Start them in a process with
    `env=os.environ | hub.environment`, or pass `endpoint=hub.endpoint, token=hub.token` to HfApi.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, port: int = 0, token: str | None = None, reader_token: str | None = None
    ) -> None:
        """Port 0 is any free port. `token` is the owner's, a random one by default.

        `reader_token` adds a second account, which can only read public repos that are not gated.
        """
        self.root = Path(root)
        self.token = token or f"hf_{secrets.token_urlsafe(24)}"
        self.reader_token = reader_token
        self.endpoint = ""  # set by `start`
        self.process: subprocess.Popen[str] | None = None
        self._port = port
        self._last_errors: deque[str] = deque(maxlen=20)
        self._stderr_relay: threading.Thread | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a client's process."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_XET": "1",  # the client would use Xet without asking whether this hub supports it
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def start(self) -> Self:
        """Return when the hub accepts requests. Raises RuntimeError, with its error output, if it does not start."""
        self.stop()
        command = [sys.executable, "-m", "local_hub", "--root", str(self.root.absolute()), "--port", str(self._port)]
        packages = str(Path(__file__).resolve().parents[1])  # so that any working directory will do
        environment = os.environ | {
            "HF_TOKEN": self.token,  # not on the command line, which every user of the machine can read
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
        self._stderr_relay = threading.Thread(target=self._relay_errors, args=(self.process.stderr,), daemon=True)
        self._stderr_relay.start()
        timeout = threading.Timer(START_TIMEOUT_S, self.process.kill)
        timeout.start()
        endpoint = re.search(r"http://[\d.]+:\d+", self.process.stdout.readline())
        timeout.cancel()
        if endpoint is None:
            self.stop()
            errors = "".join(self._last_errors).strip()
            raise RuntimeError(f"the local hub did not start: {errors or 'it printed no error'}")
        self.endpoint = endpoint[0]
        return self

    def stop(self) -> None:
        """Stop the hub. Every change that it has confirmed is kept."""
        if self.process is None:
            return
        assert self.process.stdin is not None and self.process.stdout is not None and self._stderr_relay is not None
        self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._stderr_relay.join(STOP_TIMEOUT_S)
        self.process.stdout.close()
        self.process = None

    def _relay_errors(self, stderr: IO[str]) -> None:
        with stderr:
            for line in stderr:
                self._last_errors.append(line)
                sys.stderr.write(line)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
