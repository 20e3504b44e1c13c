import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import ROOT
from tests.local_hub.processes import parse_variables, start_hub
from tests.local_hub.raw_sockets import head

CARD = json.dumps({"content": f"---\na: [{'a,' * 100_000}]\n---\n"})
REQUESTS = {
    "idle": b"GET /",
    "half a body": head("POST", "/api/validate-yaml", Content_Length="100") + b"{",
    "work": head("POST", "/api/validate-yaml", Content_Length=str(len(CARD))) + CARD.encode(),
}


def connect_to(line: str, sent: bytes) -> socket.socket:
    port = int(parse_variables(line)["HF_ENDPOINT"].rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(sent)
    return connection


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_hub_whatever_it_is_doing(tmp_path: Path, number: signal.Signals) -> None:
    process, line = start_hub(tmp_path, environment=dict(os.environ))
    connections = [connect_to(line, sent) for sent in REQUESTS.values() for _ in range(5)]
    time.sleep(0.3)
    process.send_signal(number)
    start = time.monotonic()
    process.wait(15)
    assert time.monotonic() - start < 8
    assert process.stdout is not None and "Traceback" not in process.stdout.read()
    for connection in connections:
        connection.close()


@pytest.mark.faults
def test_a_second_signal_stops_the_hub_at_once(tmp_path: Path) -> None:
    process, line = start_hub(tmp_path, environment=dict(os.environ))
    connection = connect_to(line, REQUESTS["half a body"])
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(2) == -signal.SIGTERM
    connection.close()


@pytest.mark.faults
def test_the_hub_ends_with_its_parent_even_if_another_process_holds_its_input(tmp_path: Path) -> None:
    script = """
import os, sys, time
from local_hub import LocalHub
hub = LocalHub(sys.argv[1]).start()
if os.fork() == 0:  # has a copy of the pipe
    time.sleep(60)
    os._exit(0)
print(hub.process.pid, flush=True)
time.sleep(60)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    assert parent.stdout is not None
    hub = int(parent.stdout.readline())
    parent.kill()
    parent.wait(10)
    try:
        deadline = time.monotonic() + 15
        while Path(f"/proc/{hub}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not Path(f"/proc/{hub}").exists()
    finally:
        os.killpg(parent.pid, signal.SIGKILL)  # the other child


@pytest.mark.faults
def test_a_hub_that_was_started_by_hand_outlives_its_shell(tmp_path: Path) -> None:
    command = f"{sys.executable} -m local_hub --root {tmp_path} --port 0 & echo $!; sleep 30"
    shell = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert shell.stdout is not None
    hub = int(shell.stdout.readline())
    shell.kill()
    shell.wait(10)
    time.sleep(2)
    assert Path(f"/proc/{hub}").exists()
    os.kill(hub, signal.SIGTERM)
