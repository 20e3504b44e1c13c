"""The real clients next to 200 others that misbehave."""

import pytest

from benchmarks.local_hub_load import measure


@pytest.mark.faults
def test_a_real_client_is_not_disturbed_by_200_others() -> None:
    """`measure` raises an error if a file that was pulled differs from the one that was pushed."""
    measured = measure(seconds=60, num_clients=200)
    print(measured)
    assert measured["rounds attacked"] >= 5
    assert sum(measured["requests"].values()) > 1000 and len(measured["requests"]) == 14
    assert measured["ratio of the medians"] <= 3
    assert measured["hub, MB peak"] < 500
