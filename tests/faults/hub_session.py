"""A local Hub and a client that changes its repos step by step: `python -m tests.faults.hub_session root log steps`.

Each step that the Hub has confirmed is a line in `log`. A rerun does what is missing. At the end, the client reads
every file back. A step that fails is one line on stderr and exit code 2, as with the project's commands.
"""

import contextlib
import http.client
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from local_hub.__main__ import main as serve

REPO, MOVED, DATASET = "local/first", "local/second", "local/data"
SMALL = {f"texts/{number}.txt": f"text {number}\n".encode() * 50 for number in range(3)}
LARGE = {"weights.safetensors": bytes(range(256)) * 1000, "more.bin": b"more" * 5000}


def steps(api: HfApi) -> list[tuple[str, Callable[[], object]]]:
    """Each may be done twice."""

    def commit(files: dict[str, bytes], repo_id: str = REPO, repo_type: str = "model") -> object:
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        return api.create_commit(repo_id, operations, commit_message="Add", repo_type=repo_type)

    def delete_one() -> object:
        if not api.file_exists(REPO, "texts/0.txt"):
            return None
        operations = [CommitOperationDelete("texts/0.txt"), CommitOperationAdd("texts/4.txt", b"new")]
        return api.create_commit(REPO, operations, commit_message="Replace")

    def delete_dataset() -> object:
        return api.delete_repo(DATASET, repo_type="dataset", missing_ok=True)

    first = [
        ("create", lambda: api.create_repo(REPO, exist_ok=True)),
        ("commit", lambda: commit(SMALL)),
        ("large files", lambda: commit(LARGE)),
        ("settings", lambda: api.update_repo_settings(REPO, private=True)),
        ("replace", delete_one),
        ("branch", lambda: api.create_branch(REPO, branch="side", exist_ok=True)),
        ("tag", lambda: api.create_tag(REPO, tag="v1", exist_ok=True)),
        ("move", lambda: api.move_repo(REPO, MOVED)),
    ]
    if api.repo_exists(MOVED):
        first = [(name, lambda: None) for name, _ in first]
    return [
        *first,
        ("create dataset", lambda: api.create_repo(DATASET, repo_type="dataset", exist_ok=True)),
        ("fill dataset", lambda: commit(LARGE, DATASET, "dataset")),
        ("delete dataset", delete_dataset),
        ("read", lambda: read_back(api)),
    ]


def read_back(api: HfApi) -> None:
    """Every file of the repo, byte by byte."""
    expected = {"texts/1.txt", "texts/2.txt", "texts/4.txt", *LARGE}
    found = set(api.list_repo_files(MOVED)) - {".gitattributes"}
    contents = SMALL | LARGE | {"texts/4.txt": b"new"}
    headers = {"Authorization": f"Bearer {api.token}"}
    for name in sorted(found):
        answer = httpx2.get(f"{api.endpoint}/{MOVED}/resolve/main/{name}", headers=headers, follow_redirects=True)
        answer.raise_for_status()
        if answer.content != contents[name]:
            end(3, f"WRONG: {name} is not what was uploaded")
    if found != expected:
        end(3, f"WRONG: the repo holds {found}")


def end(code: int, message: str = "") -> None:
    print(message, file=sys.stderr, flush=True)
    os._exit(code)


def use(port: int, token: str, log: str, number: int) -> None:
    api = HfApi(endpoint=f"http://127.0.0.1:{port}", token=token)
    try:
        wait_until_served(port)
        with open(log, "a", buffering=1) as confirmed:
            for name, step in steps(api)[:number]:
                step()
                confirmed.write(f"{name}\n")
    except HfHubHTTPError as error:
        end(2, f"error: the Hub answered HTTP {error.response.status_code}")
    except Exception as error:  # of the client, which is not tested here
        end(2, f"error: {type(error).__name__}: {' '.join(str(error).split())}")
    end(0)


def wait_until_served(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/api/whoami-v2")
            connection.getresponse()
            return
        time.sleep(0.01)


def main() -> None:
    root, log, number = sys.argv[1:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ["HF_TOKEN"] = token = f"hf_{secrets.token_urlsafe(24)}"
    threading.Thread(target=use, args=(port, token, log, int(number)), daemon=True).start()
    sys.argv = ["local_hub", "--root", root, "--port", str(port)]
    serve()


if __name__ == "__main__":
    main()
