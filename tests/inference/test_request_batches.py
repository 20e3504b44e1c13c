"""Which questions share a batch, in which order, and what happens to those that are cancelled or fail."""

import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inference.request_batches import Question, QueueFullError, RequestBatches
from inference.server_metrics import ServerMetrics
from product_vqa.modeling.answer import Answer
from product_vqa.task.schema import CHALLENGE

IMAGE = torch.zeros(3, 2, 2, dtype=torch.uint8)


class Tokenizer:
    bos_token = ""

    def __call__(self, texts: Sequence[str], **options: Any) -> dict[str, torch.Tensor]:
        return {"attention_mask": torch.ones(len(texts), 3, dtype=torch.long)}

    def encode(self, text: str, **options: Any) -> list[int]:
        return [0] * len(text)


class Readers:
    """Readers without a model, which note their batches. They wait for `is_free`, and fail if asked for `depth`."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[str]]] = []
        self.is_free = threading.Event()
        self.processor = SimpleNamespace(tokenizer=Tokenizer(), image_token="", image_seq_length=0)
        self.schema = CHALLENGE

    def activate(self, name: str) -> Any:
        self.name = name
        return self

    def answer(self, batch: Any, entity_names: Sequence[str]) -> list[Answer]:
        self.is_free.wait(30)
        self.batches.append((self.name, list(entity_names)))
        assert batch["pixel_values"].shape == (len(entity_names), 3, 2, 2)
        if "depth" in entity_names:
            raise RuntimeError("broken")
        return [Answer(name, name, 0.5) for name in entity_names]


@pytest.fixture
def readers() -> Readers:
    return Readers()


def make(readers: Readers, **options: Any) -> RequestBatches:
    return RequestBatches(readers, **{"batch_size": 3, "max_questions": 10, **options})  # type: ignore[arg-type]


def ask(batches: RequestBatches, model: str, *names: str) -> list[Any]:
    return [batches.ask(Question(model, name, IMAGE)) for name in names]


def ask_behind(batches: RequestBatches, readers: Readers) -> Any:
    """A question that keeps the model busy until `is_free`, so that others wait."""
    (first,) = ask(batches, "a", "voltage")
    while not first.running():
        time.sleep(0.001)
    return first


def test_what_waits_is_answered_in_batches_of_one_adapter_oldest_first(readers: Readers) -> None:
    batches = make(readers)
    first = ask_behind(batches, readers)
    futures = (
        ask(batches, "a", "width", "height")
        + ask(batches, "b", "wattage")
        + ask(batches, "a", "item_weight", "item_volume")
    )
    readers.is_free.set()
    assert [future.result(30).answer.text for future in [first, *futures]] == [
        "voltage", "width", "height", "wattage", "item_weight", "item_volume"
    ]  # fmt: skip
    assert readers.batches == [
        ("a", ["voltage"]), ("a", ["width", "height", "item_weight"]), ("b", ["wattage"]), ("a", ["item_volume"])
    ]  # fmt: skip
    result = futures[0].result()
    assert (result.prompt_tokens, result.answer_tokens, result.tokens) == (3, 6, None)
    batches.close()


def test_a_batch_waits_for_images_that_are_being_decoded_but_not_for_ever(readers: Readers) -> None:
    batches = make(readers)
    batches.readers.is_free.set()  # type: ignore[attr-defined]
    batches._last_batch_s = 60.0  # as after a batch of a large model
    with batches.admit(), batches.admit():
        (first,) = ask(batches, "a", "width")
        time.sleep(0.1)
        assert not first.done()  # the other question is still being decoded
        (second,) = ask(batches, "a", "height")
        assert [one.result(30).answer.text for one in (first, second)] == ["width", "height"]
    assert readers.batches == [("a", ["width", "height"])]
    batches._last_batch_s = 0.1
    with batches.admit(), batches.admit():  # the second one never comes
        (alone,) = ask(batches, "a", "voltage")
        assert alone.result(30).answer.text == "voltage"
    batches._last_batch_s = 60.0
    with batches.admit():
        with batches.admit():
            (left,) = ask(batches, "a", "depth")  # its client is gone before its image is decoded
        with pytest.raises(RuntimeError, match="broken"):
            left.result(30)
    batches.close()


def test_a_cancelled_question_is_not_answered(readers: Readers) -> None:
    batches = make(readers)
    ask_behind(batches, readers)
    gone, kept = ask(batches, "a", "width", "height")
    assert gone.cancel()
    readers.is_free.set()
    assert kept.result(30).answer.text == "height"
    assert readers.batches[1:] == [("a", ["height"])]
    batches.close()


def test_a_failure_costs_its_batch_only(readers: Readers) -> None:
    readers.is_free.set()
    batches = make(readers, batch_size=1)
    failed, right = ask(batches, "a", "depth", "width")
    with pytest.raises(RuntimeError, match="broken"):
        failed.result(30)
    assert right.result(30).answer.text == "width"
    assert batches.is_alive
    batches.close()


def test_no_more_questions_are_admitted_than_allowed(readers: Readers) -> None:
    batches = make(readers, max_questions=2)
    with batches.admit(), batches.admit():
        assert batches.num_questions == 2
        with pytest.raises(QueueFullError), batches.admit():
            pass
    with batches.admit():
        pass
    assert batches.num_questions == 0
    batches.close()


def test_closing_answers_what_waits_and_admits_nothing_more(readers: Readers) -> None:
    batches = make(readers, metrics=ServerMetrics())
    ask_behind(batches, readers)
    futures = ask(batches, "a", "width", "height", "wattage", "voltage")
    readers.is_free.set()
    batches.close()
    assert all(future.done() for future in futures)
    assert not batches.is_alive
    with pytest.raises(QueueFullError), batches.admit():
        pass
