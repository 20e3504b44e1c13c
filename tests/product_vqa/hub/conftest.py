"""A Hub that fails on request, and a clock that nobody waits for."""

from collections.abc import Iterator

import pytest
from huggingface_hub import HfApi

from tests.faulty_hub import FaultyHub, faulty_hub, point_at, skip_waits


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return skip_waits(monkeypatch)


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
