"""The moments at which requests may be sent."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_vqa.http.rate_limit import RateLimit


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_no_second_has_more_requests_than_allowed(rate: float, pauses: list[float]) -> None:
    limit, now, moments = RateLimit(rate), 0.0, []
    for pause in pauses:
        now += pause / rate
        moments.append(now + limit.reserve("shop.example", now=now))
    assert moments == sorted(moments)
    for earlier, later in itertools.pairwise(moments):
        assert later - earlier >= (1 - 1e-6) / rate


def test_a_host_that_is_asked_more_often_is_asked_at_the_rate_and_others_do_not_wait() -> None:
    limit = RateLimit(4)
    assert [limit.reserve("a", now=10.0) for _ in range(5)] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert limit.reserve("b", now=10.0) == 0
    assert limit.reserve("a", now=20.0) == 0
