import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from local_hub.store import Store

PROJECT = Path(__file__).resolve().parents[2]


def run_hub(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local_hub", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, cwd=PROJECT, env=os.environ | environment
    )


def is_listening(endpoint: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(endpoint.rpartition(":")[2]))) == 0


def test_a_started_hub_answers_at_once_and_a_stopped_one_no_more(tmp_path: Path) -> None:
    with LocalHub(tmp_path / "made" / "if missing") as hub:
        assert HfApi(endpoint=hub.endpoint, token=hub.token).whoami()["name"] == "local"
        assert hub.environment["HF_ENDPOINT"] == hub.endpoint and hub.environment["HF_TOKEN"] == hub.token
    assert not is_listening(hub.endpoint)


def test_the_repos_are_for_no_other_user_of_the_machine(tmp_path: Path) -> None:
    earlier = os.umask(0)  # of a user who shares everything
    try:
        Store(tmp_path / "made" / "hub").close()
    finally:
        os.umask(earlier)
    assert stat.S_IMODE((tmp_path / "made" / "hub").stat().st_mode) == 0o700


@pytest.mark.slow
def test_repos_outlive_the_process(tmp_path: Path) -> None:
    for round_number in range(2):
        with LocalHub(tmp_path) as hub:
            api = HfApi(endpoint=hub.endpoint, token=hub.token)
            api.create_repo("local/x", exist_ok=True)
            api.upload_file(repo_id="local/x", path_in_repo=f"{round_number}.bin", path_or_fileobj=b"x")
            assert len(api.list_repo_files("local/x")) == 2 + round_number


def test_a_root_serves_one_hub_at_a_time(hub: LocalHub) -> None:
    with pytest.raises(RuntimeError, match="is in use by another local_hub"):
        LocalHub(hub.root).start()
    assert run_hub("--root", str(hub.root), "--port", "0").returncode == 1


def test_a_port_that_is_taken_is_named(hub: LocalHub, tmp_path: Path) -> None:
    port = hub.endpoint.rpartition(":")[2]
    with pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1:{port}"):
        LocalHub(tmp_path, port=int(port)).start()
    done = run_hub("--root", str(tmp_path), "--port", port)
    assert done.returncode == 1 and done.stderr.startswith("local_hub: cannot listen") and not done.stdout


@pytest.mark.parametrize("port", ["-1", "70000"])
def test_a_port_that_does_not_exist_is_refused(tmp_path: Path, port: str) -> None:
    done = run_hub("--root", str(tmp_path), "--port", port)
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_hub("--root", str(tmp_path / "file" / "root"), "--port", "0")
    assert done.returncode == 1 and "cannot write to the root" in done.stderr and "Traceback" not in done.stderr


def test_a_token_of_its_own_is_printed_and_works(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "local_hub", "--root", str(tmp_path), "--port", "0"],
        env={name: value for name, value in os.environ.items() if name != "HF_TOKEN"},
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert process.stdout is not None
    said = dict(word.split("=") for word in process.stdout.readline().split() if "=" in word)
    assert set(said) == {"HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DISABLE_XET"} and said["HF_TOKEN"].startswith("hf_")
    assert HfApi(endpoint=said["HF_ENDPOINT"], token=said["HF_TOKEN"]).whoami()["name"] == "local"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) in (0, 130, -signal.SIGINT)


def test_the_hub_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, sys; from local_hub import LocalHub; print(LocalHub(sys.argv[1]).start().endpoint, flush=True)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", f"{script}; sys.stdin.read()", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert parent.stdout is not None
    endpoint = parent.stdout.readline().strip()
    assert is_listening(endpoint)
    parent.kill()
    parent.wait(timeout=30)
    deadline = time.monotonic() + 10
    while is_listening(endpoint) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_listening(endpoint)


def test_importing_the_package_is_light() -> None:
    code = "import sys, local_hub; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT
    ).stdout.split()
    assert "local_hub" in loaded
    assert not {"pygit2", "starlette", "uvicorn", "huggingface_hub", "yaml"} & set(loaded)
