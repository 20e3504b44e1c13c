"""A worker, called as Ray calls it: results, errors in one line, secrets, versions, and items that kill workers."""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from product_vqa.errors import InputError
from product_vqa.ray_workers import (
    MAX_ATTEMPTS,
    RESULTS,
    Attempts,
    Token,
    Worker,
    check_environment,
    describe_environment,
)

TOKEN = "hf_" + "Xy9" * 12


@dataclass
class Halving:
    """Halves numbers; an odd one is an error, and a negative one is a bug."""

    opened: int = 0

    def open(self) -> Callable[[Mapping[str, Any]], Iterable[tuple[int, bytes]]]:
        self.opened += 1
        return self._halve

    def _halve(self, item: Mapping[str, Any]) -> Iterator[tuple[int, bytes]]:
        if item["number"] < 0:
            raise ZeroDivisionError(f"a bug near {TOKEN}")
        if item["number"] == 1000:
            raise OSError(28, "No space left on device", "/tmp/x")
        if item["number"] % 2:
            raise InputError(f"`number` {item['number']} is odd ({TOKEN})")
        yield item["number"], str(item["number"] // 2).encode()


def make_worker(work: Any = None, **changes: Any) -> Worker:
    options = {"environment": describe_environment(), "token": Token(None), "count_attempt": Attempts().add}
    return Worker(work or Halving(), **options | changes)


def do(worker: Worker, *numbers: int) -> list[dict[str, Any]]:
    results = worker(pa.table({"item": list(range(len(numbers))), "number": list(numbers)}))
    assert results.schema == RESULTS
    return results.to_pylist()


def test_a_worker_opens_its_work_once_and_gives_the_results_of_each_item() -> None:
    work = Halving()
    worker = make_worker(work)
    assert [(row["number"], row["content"]) for row in do(worker, 4, 6)] == [(4, b"2"), (6, b"3")]
    assert [(row["number"], row["error"], row["traceback"]) for row in do(worker, 8)] == [(8, None, None)]
    assert work.opened == 1


def test_an_error_is_a_result_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    worker = make_worker()
    ((row),) = do(worker, 3)
    assert row["error"] == "`number` 3 is odd (***)"
    ((row),) = do(worker, 1000)
    assert row["error"].startswith("/tmp/x: No space left on device; free some space there")
    ((row),) = do(worker, -1)
    assert row["error"] is None
    assert "ZeroDivisionError: a bug near ***" in row["traceback"] and TOKEN not in row["traceback"]
    assert do(worker, 2)[0]["content"] == b"1"


def test_the_token_is_set_for_the_work_and_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_ofTheMachine")
    token = pickle.loads(pickle.dumps(Token(TOKEN)))
    assert TOKEN not in f"{token} {token!r} {make_worker(token=token)}"
    do(make_worker(token=token), 2)
    assert os.environ["HF_TOKEN"] == TOKEN
    do(make_worker(token=Token(None)), 2)
    assert os.environ["HF_TOKEN"] == TOKEN


@pytest.mark.parametrize("name", ["python", "product-vqa", "pillow", "torch", "huggingface_hub"])
def test_another_version_is_named(name: str) -> None:
    expected = describe_environment() | {name: "0.1"}
    (row,) = do(make_worker(environment=expected), 2)
    assert row["content"] is None
    assert row["error"].startswith(
        f"`ray_address`: a machine of the cluster has other versions than this one ({name}: 0.1 ->"
    )


def test_equal_environments_pass_whatever_build_of_torch_they_have() -> None:
    environment = describe_environment()
    check_environment(environment)
    assert environment["torch"] is not None and "+" not in environment["torch"]
    assert environment["product-vqa"] is not None and environment["product-vqa"].endswith(")")


def test_an_item_that_kills_workers_is_given_up() -> None:
    attempts = Attempts()
    for _ in range(MAX_ATTEMPTS):  # each by another worker, which dies
        assert do(make_worker(count_attempt=attempts.add), 2)[0]["error"] is None
    assert do(make_worker(count_attempt=attempts.add), 2)[0]["error"].startswith(
        "workers died 6 times at the same item"
    )
    assert attempts.add(1) == 1  # another item
