import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from tests.commands import ROOT
from tests.local_hub.raw_requests import port_of


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_hub_answers_from_start_to_stop(tmp_path: Path) -> None:
    with LocalHub(tmp_path / "created" / "if missing") as hub:
        assert HfApi(endpoint=hub.endpoint, token=hub.token).whoami()["name"] == "local"
        assert hub.environment["HF_ENDPOINT"] == hub.endpoint and hub.environment["HF_TOKEN"] == hub.token
    assert not is_listening(port_of(hub))


@pytest.mark.slow
def test_repos_outlive_the_process(tmp_path: Path) -> None:
    for round_number in range(2):
        with LocalHub(tmp_path) as hub:
            api = HfApi(endpoint=hub.endpoint, token=hub.token)
            api.create_repo("local/x", exist_ok=True)
            api.upload_file(repo_id="local/x", path_in_repo=f"{round_number}.bin", path_or_fileobj=b"x")
            assert len(api.list_repo_files("local/x")) == 2 + round_number


@pytest.mark.slow
def test_the_hub_stops_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = """
import sys
from local_hub import LocalHub
print(LocalHub(sys.argv[1]).start().endpoint, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert parent.stdout is not None
    port = int(parent.stdout.readline().rpartition(":")[2])
    assert is_listening(port)
    parent.kill()
    parent.wait(timeout=30)
    deadline = time.monotonic() + 10
    while is_listening(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_listening(port)


def test_importing_the_package_is_light() -> None:
    code = "import sys, local_hub; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert "local_hub" in loaded
    assert not {"pygit2", "starlette", "uvicorn", "huggingface_hub", "yaml"} & set(loaded)
