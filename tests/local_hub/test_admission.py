import json
import select
import statistics
import threading
import time

import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from tests.local_hub.raw_requests import Send
from tests.local_hub.raw_sockets import connect, head

CARD = json.dumps({"content": f"---\na: [{'a,' * 60_000}]\n---\n"})  # half a second to parse


@pytest.mark.slow
def test_a_strangers_work_does_not_block_the_owner(api: HfApi, hub: LocalHub, repo: str, send: Send) -> None:
    def time_request() -> float:
        start = time.monotonic()
        api.list_repo_refs(repo)
        return time.monotonic() - start

    alone = statistics.median(time_request() for _ in range(20))
    connections = [connect(hub) for _ in range(60)]
    for connection in connections:
        connection.sendall(head("POST", "/api/validate-yaml", Content_Length=str(len(CARD))) + CARD.encode())
    time.sleep(0.2)
    attacked = statistics.median(time_request() for _ in range(20))
    for connection in connections:
        connection.close()
    assert attacked < max(10 * alone, 0.2), (alone, attacked)


@pytest.mark.faults
def test_a_disconnected_stranger_is_not_waited_for(hub: LocalHub, send: Send) -> None:
    for _ in range(60):
        with connect(hub) as connection:
            connection.sendall(head("POST", "/api/validate-yaml", Content_Length=str(len(CARD))) + CARD.encode())
    start = time.monotonic()
    assert send("GET", "/api/models", token=None).status == 200
    assert time.monotonic() - start < 10  # 60 times half a second would be 30 s


@pytest.mark.slow
def test_half_sent_requests_hold_no_thread(api: HfApi, hub: LocalHub, repo: str) -> None:
    path = f"/api/models/{repo}/commit/main"
    connections = [connect(hub) for _ in range(60)]
    for connection in connections:
        connection.sendall(head("POST", path, token=hub.token, Content_Length="1000") + b'{"key":')
    done = threading.Event()

    def push() -> None:
        api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=b"abc")
        done.set()

    threading.Thread(target=push, daemon=True).start()
    assert done.wait(10)
    for connection in connections:
        connection.close()


@pytest.mark.faults
def test_strangers_share_a_bandwidth(api: HfApi, hub: LocalHub, repo: str) -> None:
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=bytes(30_000_000))
    connections = [connect(hub) for _ in range(10)]
    start = time.monotonic()
    for connection in connections:
        connection.sendall(head("GET", f"/{repo}/resolve/main/x.bin", Connection="close"))
    remaining = set(connections)
    while remaining:
        for connection in select.select(list(remaining), [], [])[0]:
            if not connection.recv(2**20):
                remaining.remove(connection)
                connection.close()
    assert time.monotonic() - start > 2.5  # 300 MB at 100 MB/s
