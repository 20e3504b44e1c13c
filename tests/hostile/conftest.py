"""What all tests on hostile input share: a trap, and a base model that is small."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.harness import Trap, make_trap


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    folder = tmp_path / "secrets"
    folder.mkdir()
    with make_trap(folder) as trap:
        yield trap
        trap.check()
