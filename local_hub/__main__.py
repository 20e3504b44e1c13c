"""Serve a folder of repos as a Hub on loopback: python -m local_hub --root folder --port 8765"""

import argparse
import logging
import os
import secrets
import socket
import sys
from pathlib import Path

HOST = "127.0.0.1"
DESCRIPTION = """
A Hugging Face Hub on loopback: the unmodified clients push to it and pull from it.
It has one user, `local`, who owns every repo. The token of `local` is HF_TOKEN if that is set, or else a random one,
which is printed. LOCAL_HUB_READER_TOKEN adds a second account, `reader`, which can only read public repos that are
not gated.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local_hub", description=DESCRIPTION)
    parser.add_argument("--root", type=Path, required=True, help="folder of the repos, created if missing")
    parser.add_argument("--port", type=int, default=8765, help="0 for any free port (default: %(default)s)")
    parser.add_argument(
        "--until_stdin_closes",
        action="store_true",
        help="stop when standard input closes, so that the hub ends together with the process that started it",
    )
    return parser.parse_args()


def listen(port: int) -> socket.socket:
    """Open the listening socket. From here on, connections wait until the server accepts them."""
    try:
        listener = socket.create_server((HOST, port), backlog=1024)
        # Connections inherit this option. asyncio does not set it on them, and each response would take 40 ms more.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        sys.exit(f"local_hub: cannot listen on {HOST}:{port}: {error}")


def main() -> None:
    try:
        serve_root(parse_arguments())
    except KeyboardInterrupt:  # before the server handles signals, or after
        sys.exit(130)


def serve_root(arguments: argparse.Namespace) -> None:
    parent = os.getppid()
    logging.basicConfig(level=logging.WARNING)
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)  # their warnings are about what any client can cause

    # Not at the top: --help must not wait for these imports.
    from local_hub.app import create_app
    from local_hub.auth import Accounts
    from local_hub.server import serve
    from local_hub.store import RootInUseError, Store

    try:
        store = Store(arguments.root)
    except RootInUseError as error:
        sys.exit(f"local_hub: {error}")
    except OSError as error:
        sys.exit(f"local_hub: cannot write to the root {arguments.root}: {error}")
    listener = listen(arguments.port)
    token_from_environment = os.environ.get("HF_TOKEN")
    token = token_from_environment or f"hf_{secrets.token_urlsafe(24)}"
    accounts = Accounts(token=token, reader_token=os.environ.get("LOCAL_HUB_READER_TOKEN"))
    port = listener.getsockname()[1]
    printed_token = "$HF_TOKEN" if token_from_environment else token
    print(f"Local Hub: HF_ENDPOINT=http://{HOST}:{port} HF_TOKEN={printed_token} HF_HUB_DISABLE_XET=1", flush=True)
    app = create_app(store, accounts=accounts)
    serve(app, listener, parent=parent if arguments.until_stdin_closes else None)
    store.close()


if __name__ == "__main__":
    main()
