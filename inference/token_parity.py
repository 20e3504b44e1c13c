"""Compare another engine's probabilities with ours: those of the first token of an answer, question by question.

An engine that makes the attention over image and question causal answers worse, without an error. Its first tokens
show it: their mean KL divergence is 0.03 to 0.09 nats, and about 0.0004 between right engines in different precisions.
"""

import base64
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import httpx2 as httpx
from PIL import Image

from product_vqa.errors import InputError, first_line
from product_vqa.quoting import one_line

MAX_DIVERGENCE = 0.01  # mean KL, nats
NUM_MOST_LIKELY = 20  # tokens that are asked for; OpenAI's limit
CLIENTS = 4
TIMEOUT_S = 300.0
_LEAST = 1e-12  # of a probability that is divided by


@dataclass(frozen=True)
class RowParity:
    """The comparison of one question."""

    divergence: float  # KL(ours, theirs) in nats, over their most likely tokens and all others as one
    compared: float  # our probability of their most likely tokens
    is_same_token: bool  # whether the most likely token is the same


@dataclass(frozen=True)
class Parity:
    """The comparison of all questions."""

    rows: Sequence[RowParity]

    @property
    def divergence(self) -> float:
        return fmean(row.divergence for row in self.rows)

    @property
    def is_right(self) -> bool:
        return self.divergence <= MAX_DIVERGENCE

    def table(self) -> str:
        divergences = [row.divergence for row in self.rows]
        same = sum(row.is_same_token for row in self.rows)
        lines = {
            "questions": f"{len(self.rows)}",
            "mean KL divergence": f"{self.divergence:.6f} nats (at most {MAX_DIVERGENCE})",
            "median, largest": f"{median(divergences):.6f}, {max(divergences):.6f}",
            "same most likely token": f"{same} of {len(self.rows)}",
            "probability compared": f"{fmean(row.compared for row in self.rows):.4f}",
        }
        return "\n".join(f"{name:<24} {value}" for name, value in lines.items())


class Engine:
    """A server with OpenAI's chat form."""

    def __init__(self, url: str, *, model: str | None = None) -> None:
        """`url` with or without `/v1`. `model` defaults to the first one that the server lists."""
        self._url = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.Client(timeout=TIMEOUT_S)
        self.model = model or self._find_model()

    def _find_model(self) -> str:
        listed = self._request("GET", "/v1/models")
        try:
            return str(listed["data"][0]["id"])
        except (LookupError, TypeError) as error:
            raise InputError(f"`server` {self._url} lists no model; pass `model`") from error

    def first_token(self, image: Image.Image, question: str) -> dict[str, float]:
        """Ask a question; returns the most likely first tokens of the answer with their log probabilities.

        Raises InputError if the server gives no log probabilities: its mask cannot be checked then.
        """
        file = io.BytesIO()
        image.save(file, "PNG")  # the same pixels, whichever decoder the server has
        url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": NUM_MOST_LIKELY,
        }
        response = self._request("POST", "/v1/chat/completions", json=body)
        try:
            first = response["choices"][0]["logprobs"]["content"][0]
            found = {str(one["token"]): float(one["logprob"]) for one in first["top_logprobs"]}
        except (LookupError, TypeError, ValueError) as error:
            found = {}
            reason = first_line(error)
        else:
            reason = "the list is empty"
        if not found or any(math.isnan(log_p) for log_p in found.values()):
            raise InputError(
                f"`server` {self._url} gives no log probabilities ({reason}), without which its attention mask cannot "
                "be checked; start it with log probabilities allowed"
            )
        return found

    def _request(self, method: str, path: str, **options: Any) -> Any:
        try:
            response = self._client.request(method, self._url + path, **options)
            if response.status_code != 200:
                raise InputError(
                    f"`server` {self._url}{path}: status {response.status_code}: {one_line(response.text)[:300]}"
                )
            return response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"`server` {self._url}{path}: no answer ({first_line(error)}): is it running?") from error


def compare_rows(
    engine: Engine,
    rows: Sequence[Mapping[str, Any]],
    questions: Sequence[str],
    ours: Iterable[Mapping[str, float]],
) -> Parity:
    """Ask the engine about each row (`image`, decoded), and compare its first tokens with ours (token -> p)."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        theirs = threads.map(engine.first_token, [row["image"] for row in rows], questions)
        return Parity([compare_tokens(own, other) for own, other in zip(ours, theirs, strict=True)])


def compare_tokens(ours: Mapping[str, float], theirs: Mapping[str, float]) -> RowParity:
    """Compare our probabilities of all tokens (text -> p) with the log probabilities of an engine's most likely ones.

    Engines write tokens differently, with and without the space before a word, so tokens are compared by their text
    without it. Everything that the engine does not list is one outcome.
    """
    own: defaultdict[str, float] = defaultdict(float)
    other: defaultdict[str, float] = defaultdict(float)
    for token, p in ours.items():
        own[plain_token(token)] += p
    for token, log_p in theirs.items():
        other[plain_token(token)] += math.exp(min(log_p, 0.0))
    compared = {token: own.get(token, 0.0) for token in other}
    pairs = [(p, other[token]) for token, p in compared.items()]
    rest = max(0.0, 1.0 - sum(compared.values())), max(0.0, 1.0 - sum(other.values()))
    divergence = sum(p * math.log(p / max(q, _LEAST)) for p, q in [*pairs, rest] if p > _LEAST)
    return RowParity(
        divergence=max(0.0, divergence),
        compared=sum(compared.values()),
        is_same_token=max(own, key=own.__getitem__) == max(other, key=other.__getitem__),
    )


def plain_token(token: str) -> str:
    """The text of a token without the space before it, and "" for the end of the answer, however it is spelled."""
    token = token.replace("▁", " ").strip(" ")
    return "" if token in ("<eos>", "</s>", "<|endoftext|>") else token
