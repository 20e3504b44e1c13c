"""HF_ENDPOINT and HF_TOKEN may be nearly right: `product_vqa/__init__.py` normalizes the one, the client the other."""

import importlib
import os
import subprocess
import sys
from typing import Any

import pytest

import product_vqa
from tests.commands import ROOT

LOCATE = """
from product_vqa.errors import InputError
from product_vqa.hub import locate
try:
    print(locate("local/tiny-base").name)
except InputError as error:
    print("error:", error)
"""


def located(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOCATE],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip()


def test_an_endpoint_and_a_token_that_are_nearly_right_work(hub: Any, tiny_repos: tuple[str, str]) -> None:
    address = hub.endpoint.removeprefix("http://")
    assert located(HF_ENDPOINT=f" {address}// ", HF_TOKEN=f"  {hub.token}\r\n") == "local/tiny-base"


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://hub.example/", "https://hub.example"),
        ("https://hub.example", "https://hub.example"),
        ("hub.example", "https://hub.example"),
        (" hub.example:8443/x/\n", "https://hub.example:8443/x"),
        ("127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("localhost:8765/", "http://localhost:8765"),
        ("", None),
        (" / ", None),
    ],
)
def test_an_endpoint_gets_a_scheme_and_loses_its_last_slash(
    monkeypatch: pytest.MonkeyPatch, given: str, used: str | None
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", given)
    importlib.reload(product_vqa)
    assert os.environ.get("HF_ENDPOINT") == used
