"""Questions of many clients, answered in batches: one thread has the model, and takes what waits when it is free."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from PIL import Image

from inference.server_metrics import ServerMetrics
from inference.shared_readers import SharedReaders
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.collator import resize_images, tokenize_questions
from product_vqa.modeling.generation import is_not_finite
from product_vqa.modeling.token_probabilities import AnswerToken, answer_token_log_p

logger = logging.getLogger(__name__)

# A batch that is not full begins when no question has come for a while and no image is being decoded, or after the
# longest wait. Both are shares of the time that the last batch took: the clients of a batch ask again at the same
# time, and the first of them would be a batch of its own.
MIN_WAIT_S = 0.005
WAIT_SHARE, MAX_WAIT_SHARE = 0.02, 0.2


class QueueFullError(Exception):
    """Raised for a question while as many as allowed are being answered."""


@dataclass(frozen=True)
class Answered:
    """The answer to a question; `tokens` are its tokens with their log probabilities, if they were asked for."""

    answer: Answer
    tokens: list[AnswerToken] | None
    prompt_tokens: int
    answer_tokens: int


@dataclass
class Question:
    """A question of a client. `image` is (3, H, W) uint8, in the model's size."""

    model: str  # name of an adapter
    entity_name: str
    image: torch.Tensor
    num_most_likely: int | None = None  # tokens to list at each position; None: no log probabilities
    decoded: Image.Image | None = None  # for the log probabilities
    answered: "Future[Answered]" = field(default_factory=Future)


class RequestBatches:
    """A queue of questions, and the thread that answers them. A batch has questions about one adapter.

    The oldest question decides whose turn it is, so no adapter waits for another one longer than a batch.
    """

    def __init__(
        self, readers: SharedReaders, *, batch_size: int, max_questions: int, metrics: ServerMetrics | None = None
    ) -> None:
        self.readers = readers
        self.batch_size = batch_size
        self.max_questions = max_questions  # that are being decoded, waiting or being answered
        self._metrics = metrics or ServerMetrics()
        self._waiting: deque[Question] = deque()
        self._changed = threading.Condition()
        self._num_admitted = 0
        self._last_batch_s = 0.0
        self._last_asked = 0.0  # time.monotonic
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def num_questions(self) -> int:
        """How many questions are being decoded, waiting or being answered."""
        return self._num_admitted

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count one question while it is decoded, waits and is answered. Raises QueueFullError beyond the limit."""
        with self._changed:
            if self._num_admitted >= self.max_questions or self._is_closed:
                raise QueueFullError
            self._num_admitted += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_admitted -= 1
                self._changed.notify_all()

    def resize(self, model: str, image: Image.Image) -> torch.Tensor:
        """Return an image in the size of a model. Called in any thread, ahead of the model's."""
        return resize_images([image], processor=self.readers[model].processor)[0]

    def ask(self, question: Question) -> "Future[Answered]":
        """Queue a question. A future that is cancelled before its batch begins costs nothing."""
        with self._changed:
            self._waiting.append(question)
            self._last_asked = time.monotonic()
            self._changed.notify_all()
        return question.answered

    def close(self) -> None:
        """Answer what is waiting, admit nothing more, and wait for the thread to end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._take():
            running = [one for one in batch if one.answered.set_running_or_notify_cancel()]
            if not running:
                continue
            start = time.monotonic()
            try:
                answered = self._answer(running)
            except Exception as error:  # of one batch; the next one may be answered
                logger.exception("a batch of %d questions failed", len(running))
                for one in running:
                    one.answered.set_exception(error)
                continue
            self._last_batch_s = time.monotonic() - start
            self._metrics.record_batch(running[0].model, len(running), self._last_batch_s)
            for one, result in zip(running, answered, strict=True):
                one.answered.set_result(result)

    def _take(self) -> list[Question]:
        """Wait for questions, and take a batch of them; [] after `close` when none is waiting."""
        with self._changed:
            while not self._waiting:
                if self._is_closed:
                    return []
                self._changed.wait()
            wait_s = max(MIN_WAIT_S, WAIT_SHARE * self._last_batch_s)
            latest = time.monotonic() + max(MIN_WAIT_S, MAX_WAIT_SHARE * self._last_batch_s)
            while len(batch := self._next_batch()) < self.batch_size and not self._is_closed:
                is_decoding = self._num_admitted > len(self._waiting)
                until = latest if is_decoding else min(latest, self._last_asked + wait_s)
                if (left := until - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            taken = {id(one) for one in batch}
            self._waiting = deque(one for one in self._waiting if id(one) not in taken)
            return batch

    def _next_batch(self) -> list[Question]:
        model = self._waiting[0].model
        return [one for one in self._waiting if one.model == model][: self.batch_size]

    def _answer(self, questions: Sequence[Question]) -> list[Answered]:
        reader = self.readers.activate(questions[0].model)
        names = [one.entity_name for one in questions]
        inputs = {
            **tokenize_questions(names, processor=reader.processor, schema=reader.schema),
            "pixel_values": torch.stack([one.image for one in questions]),
            "image_index": torch.arange(len(questions)),
        }
        answers = reader.answer(inputs, names)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            Answered(
                answer,
                self._tokens(one, answer),
                prompt_tokens=length,
                answer_tokens=len(reader.processor.tokenizer.encode(answer.text, add_special_tokens=False)) + 1,
            )
            for one, answer, length in zip(questions, answers, lengths, strict=True)
        ]

    def _tokens(self, question: Question, answer: Answer) -> list[AnswerToken] | None:
        if question.num_most_likely is None or is_not_finite(answer.text, answer.confidence):
            return None
        reader = self.readers[question.model]
        row: Mapping[str, object] = {
            "image": question.decoded, "entity_name": question.entity_name, "entity_value": answer.text
        }  # fmt: skip
        return answer_token_log_p(
            reader.model, row, processor=reader.processor, schema=reader.schema,
            num_most_likely=question.num_most_likely,
        )  # fmt: skip
