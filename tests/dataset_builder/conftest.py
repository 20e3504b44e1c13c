from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dataset_builder.files import Shop
from tests.dataset_builder.image_server import ImageServer


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def server() -> Iterator[ImageServer]:
    server = ImageServer()
    yield server
    server.close()
