import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from product_vqa.modeling.model_thread import ModelThread


def test_all_threads_share_one_and_none_is_started_before() -> None:
    before = threading.active_count()
    model = ModelThread()
    assert threading.active_count() == before
    used = {model.run(threading.current_thread)}
    with ThreadPoolExecutor(8) as pool:
        used |= set(pool.map(lambda _: model.run(threading.current_thread), range(40)))
    assert len(used) == 1 and threading.main_thread() not in used


def test_an_error_reaches_the_thread_that_asked() -> None:
    model = ModelThread()

    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        model.run(fail)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="broken"):
        pool.submit(model.run, fail).result()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(model.run, lambda: 5).result() == 5
