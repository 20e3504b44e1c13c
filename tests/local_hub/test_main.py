import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from local_hub import LocalHub
from tests.commands import ROOT, run_module
from tests.local_hub.processes import parse_variables, start_hub


@pytest.mark.slow
def test_a_port_in_use_is_named(hub: LocalHub, tmp_path: Path) -> None:
    port = hub.endpoint.rpartition(":")[2]
    with pytest.raises(RuntimeError, match=f"cannot listen on 127.0.0.1:{port}"):
        LocalHub(tmp_path, port=int(port)).start()
    done = run_module("local_hub", "--root", tmp_path, "--port", port, check=False)
    assert done.returncode == 1 and done.stderr.startswith("local_hub: cannot listen") and not done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("port", ["-1", "70000"])
def test_an_invalid_port_is_refused(tmp_path: Path, port: str) -> None:
    done = run_module("local_hub", "--root", tmp_path, "--port", port, check=False)
    assert done.returncode == 1 and "cannot listen" in done.stderr and "Traceback" not in done.stderr


def test_a_root_that_is_not_writable_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run_module("local_hub", "--root", tmp_path / "file" / "root", "--port", "0", check=False)
    assert done.returncode == 1 and "cannot write to the root" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_root_is_served_by_one_hub_at_a_time(hub: LocalHub) -> None:
    with pytest.raises(RuntimeError, match="is in use by another local_hub"):
        LocalHub(hub.root).start()
    assert run_module("local_hub", "--root", hub.root, "--port", "0", check=False).returncode == 1


def test_a_random_token_is_printed_and_works(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    process, line = start_hub(tmp_path, environment=environment)
    variables = parse_variables(line)
    assert variables.keys() == {"HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DISABLE_XET"}
    assert variables["HF_TOKEN"].startswith("hf_")
    api = HfApi(endpoint=variables["HF_ENDPOINT"], token=variables["HF_TOKEN"])
    assert api.whoami()["name"] == "local"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) in (0, 130, -signal.SIGINT)


def test_interrupted_while_it_starts_it_ends_without_a_traceback(tmp_path: Path) -> None:
    code = f"""
import builtins, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
plain = builtins.__import__
def interrupt(name, *rest, **more):
    if name == "local_hub.store":
        os.kill(os.getpid(), signal.SIGINT)
    return plain(name, *rest, **more)
builtins.__import__ = interrupt
sys.argv = ["local_hub", "--root", {str(tmp_path)!r}, "--port", "0"]
from local_hub.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")


def test_no_token_of_the_environment_is_printed_or_answered(tmp_path: Path) -> None:
    token = "hf_the_owners_secret"
    reader_token = "hf_the_readers_secret"
    environment = os.environ | {"HF_TOKEN": token, "LOCAL_HUB_READER_TOKEN": reader_token}
    process, line = start_hub(tmp_path, environment=environment)
    api = HfApi(endpoint=parse_variables(line)["HF_ENDPOINT"], token=token)
    repo = api.create_repo("local/broken").repo_id
    (tmp_path / "models" / repo / "settings.json").write_text("not json")
    with pytest.raises(HfHubHTTPError, match="is missing or damaged") as failed:
        api.model_info(repo)
    process.send_signal(signal.SIGTERM)
    output = line + process.communicate(timeout=20)[0]
    assert failed.value.response.status_code == 500 and "Traceback" not in output
    for text in (output, str(failed.value), failed.value.response.text):
        assert token not in text and reader_token not in text
