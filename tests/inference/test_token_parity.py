"""The divergence between two engines' first tokens, by hand; how tokens are spelled; engines that give none."""

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from inference.token_parity import Engine, Parity, RowParity, compare_tokens, plain_token
from product_vqa.errors import InputError
from tests.tiny import make_image


def test_the_divergence_is_that_of_the_listed_tokens_and_of_all_others_as_one() -> None:
    ours = {"5": 0.5, "6": 0.25, "7": 0.15, "8": 0.1}
    theirs = {"5": math.log(0.4), "6": math.log(0.4)}
    row = compare_tokens(ours, theirs)
    expected = 0.5 * math.log(0.5 / 0.4) + 0.25 * math.log(0.25 / 0.4) + 0.25 * math.log(0.25 / 0.2)
    assert row.divergence == pytest.approx(expected)
    assert row.compared == pytest.approx(0.75)
    assert row.is_same_token
    assert compare_tokens(ours, {token: math.log(p) for token, p in ours.items()}).divergence == pytest.approx(0.0)


def test_a_token_that_the_engine_finds_impossible_diverges_much() -> None:
    assert compare_tokens({"5": 0.9, "6": 0.1}, {"6": 0.0, "5": -9999.0}).divergence > 20
    assert not compare_tokens({"5": 0.9, "6": 0.1}, {"6": 0.0}).is_same_token


def test_tokens_are_compared_however_the_engine_spells_them() -> None:
    ours = {" gram": 0.5, "5": 0.3, "<eos>": 0.2}
    for spelled in ({"▁gram": 0.5, "5": 0.3, "": 0.2}, {"gram": 0.5, " 5": 0.3, "</s>": 0.2}):
        assert compare_tokens(ours, {token: math.log(p) for token, p in spelled.items()}).divergence < 1e-12
    assert plain_token("\n") == "\n"  # the separator after the question is not the end of the answer


def test_the_mean_decides() -> None:
    def parity(*divergences: float) -> Parity:
        return Parity([RowParity(one, 1.0, True) for one in divergences])

    assert parity(0.0004, 0.019).is_right
    assert not parity(0.0004, 0.03).is_right
    assert not parity(math.inf, 0.0).is_right
    assert "same most likely token   2 of 2" in parity(0.1, 0.2).table()


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """An engine that answers each request with the test's parameter."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps(request.param).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    "engine",
    [
        {"choices": [{"message": {"content": "5"}, "logprobs": None}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": []}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "5", "logprob": "x"}]}]}}]},
        {"choices": []},
        [],
    ],
    indirect=True,
)
def test_an_engine_without_log_probabilities_is_not_accepted(engine: str) -> None:
    with pytest.raises(InputError, match=r"gives no log probabilities .* its attention mask cannot be checked"):
        Engine(engine, model="m").first_token(make_image(0), "What is the width?")
