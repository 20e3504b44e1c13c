import contextlib
import os
import time

import psutil
import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from tests.local_hub.raw_requests import Send
from tests.local_hub.raw_sockets import connect, head


@pytest.mark.slow
def test_downloads_that_nobody_reads_share_one_file(api: HfApi, hub: LocalHub, repo: str, send: Send) -> None:
    assert hub.process is not None
    process = psutil.Process(hub.process.pid)
    content = os.urandom(4_500_000).hex().encode()
    api.upload_file(repo_id=repo, path_in_repo="large.txt", path_or_fileobj=content)
    before = process.memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(connect(hub))
            connection.sendall(head("GET", f"/{repo}/resolve/main/large.txt", token=hub.token))
        time.sleep(0.5)
        assert send("GET", f"/{repo}/resolve/main/large.txt").body == content
        assert process.memory_info().rss - before < 50_000_000
    for requested, expected in (("bytes=4000000-4000009", content[4_000_000:4_000_010]), ("bytes=-5", content[-5:])):
        assert send("GET", f"/{repo}/resolve/main/large.txt", Range=requested).body == expected
    response = send("HEAD", f"/{repo}/resolve/main/large.txt")
    assert (response.headers["content-length"], response.body) == ("9000000", b"")
    assert not list((hub.root / "arrivals").iterdir())
