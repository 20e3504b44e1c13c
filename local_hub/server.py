"""The server process: its limits, and its end. A signal stops it, whatever it is doing at that moment."""

import os
import resource
import select
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from local_hub.connections import Connection

BACKLOG = 1024  # connections that wait to be accepted; each further one would try again after a second
OPEN_FILES = 16_384
KEEP_ALIVE_S = 60  # for idle connections. Clients give them up after 5 s; a request must not meet one that closes
GRACE_S = 3  # for the requests in progress when a signal stops the hub
STOP_TIMEOUT_S = 6.0  # after which the system ends the process
PARENT_CHECK_S = 0.5
SWITCH_INTERVAL_S = 0.001  # after which a thread lets another one work; Python's default is 5 ms


class Server(uvicorn.Server):
    """Stops on SIGTERM and SIGINT. A second signal ends the process at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.stop()
        signal.signal(sig, signal.SIG_DFL)

    def stop(self) -> None:
        self.should_exit = True
        # A thread that still works would keep the process alive. SIGALRM ends it, as nothing handles that signal.
        signal.setitimer(signal.ITIMER_REAL, STOP_TIMEOUT_S)

    def stop_with_parent(self, parent: int) -> None:
        """Wait until standard input closes or the process `parent` ends, then stop.

        Both are needed: another child of that process can hold the other end of standard input open.
        """
        while os.getppid() == parent:
            is_readable = select.select([sys.stdin], [], [], PARENT_CHECK_S)[0]
            if is_readable and not os.read(sys.stdin.fileno(), 4096):
                break
        self.stop()


def serve(app: ASGIApp, listener: socket.socket, *, parent: int | None = None) -> None:
    """Serve until a signal stops the hub or, with `parent`, until that process ends."""
    raise_open_files_limit()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # uvloop and httptools would gain nothing on loopback. Without them the hub behaves the same on every system.
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = Server(config)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # uvicorn raises it again at the end; Python would print a traceback
    if parent is not None:
        threading.Thread(target=server.stop_with_parent, args=(parent,), daemon=True).start()
    server.run(sockets=[listener])


def raise_open_files_limit() -> None:
    """Each connection is an open file, and some systems allow a process only 1,024 of them, or 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
