import sys
from pathlib import Path

import pytest

from benchmarks.timing import alternate, time_command


def test_variants_take_turns_and_the_median_counts() -> None:
    calls: list[str] = []
    values = {"a": iter([1.0, 9.0, 2.0]), "b": iter([5.0, 6.0, 7.0])}

    def measure(name: str) -> float:
        calls.append(name)
        return next(values[name])

    medians = alternate({"a": lambda: measure("a"), "b": lambda: measure("b")}, repeats=3)
    assert medians == {"a": 2.0, "b": 6.0}
    assert "".join(calls) == "abbaab"


@pytest.mark.slow
def test_a_command_is_measured_with_its_children(tmp_path: Path) -> None:
    child = "import time; block = bytearray(100_000_000); time.sleep(1.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    stats = time_command([sys.executable, "-c", parent], cwd=tmp_path)
    assert stats.seconds >= 1.5
    assert stats.peak_pss_mb > 95
    assert 0 < stats.cpu_seconds < stats.seconds


def test_a_command_that_fails_raises_with_the_end_of_its_output(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"failed with exit code 3: the reason"):
        time_command([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], cwd=tmp_path)
