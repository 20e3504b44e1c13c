"""python -m local_hub --root folder --port 8765"""

import argparse
import logging
import os
import secrets
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn import Server

HOST = "127.0.0.1"
DESCRIPTION = """
A Hugging Face Hub on loopback: the unmodified clients push to it and pull from it.
The token of its one user, `local`, is the HF_TOKEN of the environment, or else a random one that is printed.
LOCAL_HUB_READER_TOKEN adds a second account, `reader`, who only reads what is public and not gated.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local_hub", description=DESCRIPTION)
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the repos; made if missing")
    parser.add_argument("--port", type=int, default=8765, help="0: any free one (default: %(default)s)")
    parser.add_argument(
        "--until_stdin_closes", action="store_true", help="stop with the process that started this one"
    )
    return parser.parse_args()


def listen(port: int) -> socket.socket:
    try:
        listener = socket.create_server((HOST, port), backlog=128)
        # Connections inherit it. asyncio would not set it on them, and each answer would take 40 ms longer.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError) as error:
        sys.exit(f"local_hub: cannot listen on {HOST}:{port}: {error}")


def main() -> None:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.WARNING)

    import uvicorn

    from local_hub.accounts import Accounts
    from local_hub.app import create_app
    from local_hub.store import RootInUseError, Store

    try:
        store = Store(arguments.root)
    except RootInUseError as error:
        sys.exit(f"local_hub: {error}")
    except OSError as error:
        sys.exit(f"local_hub: cannot write to the root {arguments.root}: {error}")
    listener = listen(arguments.port)
    given = os.environ.get("HF_TOKEN")
    token = given or f"hf_{secrets.token_urlsafe(24)}"
    accounts = Accounts(token=token, reader_token=os.environ.get("LOCAL_HUB_READER_TOKEN"))
    # httptools and uvloop are not needed on loopback; without them the behaviour is the same on every system.
    config = uvicorn.Config(
        create_app(store, accounts=accounts),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    if arguments.until_stdin_closes:
        threading.Thread(target=wait_for_end_of_stdin, args=(server,), daemon=True).start()
    # Whoever connects from here on is answered: the listener keeps connections until the server takes them.
    port = listener.getsockname()[1]
    shown = "$HF_TOKEN" if given else token
    print(f"Local Hub: HF_ENDPOINT=http://{HOST}:{port} HF_TOKEN={shown} HF_HUB_DISABLE_XET=1", flush=True)
    server.run(sockets=[listener])
    store.close()


def wait_for_end_of_stdin(server: "Server") -> None:
    sys.stdin.buffer.read()
    server.should_exit = True


if __name__ == "__main__":
    main()
