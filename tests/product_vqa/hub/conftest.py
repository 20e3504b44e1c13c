"""A Hub that fails on request, and a clock that nobody waits for."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import _http

from product_vqa.hub import retries
from tests.faulty_hub import FaultyHub, faulty_hub, point_at


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were to be waited; nobody waits."""
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(retries, "time", clock)
    monkeypatch.setattr(_http, "time", clock)
    return slept


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    with faulty_hub(tmp_path_factory.mktemp("hub")) as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("local/read-by-the-page")
        yield hub


@pytest.fixture
def bad_hub(faulty: FaultyHub, monkeypatch: pytest.MonkeyPatch) -> FaultyHub:
    point_at(faulty, monkeypatch)
    faulty.begin()
    return faulty
