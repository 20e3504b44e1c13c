"""The command: started as users do, asked by several clients, and stopped by SIGTERM."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pandas as pd
import pytest
from datasets import load_dataset

from inference import predict, serve
from inference.serving_connections import bind
from product_vqa.errors import InputError
from tests.commands import ROOT, call
from tests.inference.servers import HTTP, chat_body
from tests.product_vqa.png_files import encode_png
from tests.tiny import make_image

pytestmark = pytest.mark.slow


@contextmanager
def started(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server's process, and its URL."""
    command = [sys.executable, "-m", "inference.serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"at (http://127\.0\.0\.1:\d+)$", line.strip())
        assert found, line + (process.stderr.read() if process.stderr else "")
        url = found[1]
        while True:
            try:
                HTTP.get(f"{url}/health")
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        yield process, url
    finally:
        process.kill()
        process.wait()


def test_served_answers_are_those_of_predict_and_sigterm_ends_it_after_the_last_answer(
    adapter: tuple[str, Any], tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(predict.main, monkeypatch, "--adapter", adapter[0], "--dataset", tiny_dataset, "--split", "train",
         "--output", tmp_path / "s.csv", "--batch_size", "4", "--dtype", "float32")  # fmt: skip
    predicted = pd.read_parquet(tmp_path / "s.parquet")
    rows = load_dataset("parquet", data_files=str(tiny_dataset / "data" / "train-*"), cache_dir=str(tmp_path))["train"]
    with started("--adapter", adapter[0], "--dtype", "float32", "--batch_size", "4") as (process, url):
        with ThreadPoolExecutor(16) as clients:

            def ask(row: dict[str, Any]) -> httpx.Response:
                files = {"image": ("a.png", encode_png(row["image"]))}
                return HTTP.post(f"{url}/read", files=files, data={"entity_name": row["entity_name"]})

            waiting = [clients.submit(ask, row) for row in rows]
            while 'route="/read",status="200"' not in HTTP.get(f"{url}/metrics").text:
                time.sleep(0.005)
            found = re.search(r"^product_vqa_questions (\d+)", HTTP.get(f"{url}/metrics").text, re.M)
            in_progress = int(found[1])
            process.send_signal(signal.SIGTERM)
            results = []
            for one in waiting:
                try:
                    results.append(one.result())
                except httpx.TransportError:  # a request that came after the signal
                    results.append(None)
        assert process.wait(60) == 0
        assert process.stderr is not None and "Traceback" not in process.stderr.read()
    answered = [(row, one.json()) for row, one in zip(rows, results, strict=True) if one is not None]
    assert len(answered) >= max(1, in_progress)
    table = predicted.set_index("index")
    for row, answer in answered:
        assert answer["prediction"] == table.loc[row["index"], "prediction"]
        assert answer["confidence"] == pytest.approx(table.loc[row["index"], "confidence"], abs=1e-4)
    assert len(table) == len(rows) == 32


def test_two_adapters_are_served_by_their_names(
    adapter: tuple[str, Any], adapter_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(adapter_folder, tmp_path / "second")
    with started("--adapter", adapter[0], "--adapter", folder) as (_, url):
        assert [one["id"] for one in HTTP.get(f"{url}/v1/models").json()["data"]] == [adapter[0], "second"]
        for model in (adapter[0], "second"):
            body = chat_body(encode_png(make_image(1)), "What is the voltage?", model=model)
            response = HTTP.post(f"{url}/v1/chat/completions", json=body).json()
            assert response["model"] == model
            assert response["choices"][0]["message"]["content"] == "230.0 volt"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "--adapter or --base_model is needed"),
        (["--adapter", "a", "--port", "70000"], "--port must be 0 to 65535, got 70000"),
        (["--adapter", "a", "--batch_size", "0"], "--batch_size must be at least 1, got 0"),
        (["--adapter", "a", "--num_beams", "9"], "--num_beams must be 1 to 8, got 9"),
        (["--adapter", "/no/such", "--port", "0"], "--adapter /no/such: no such folder"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=problem):
        call(serve.main, monkeypatch, *arguments)


def test_a_port_that_is_taken_is_named_before_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = bind("127.0.0.1", 0)
    listener.listen()
    port = listener.getsockname()[1]
    with pytest.raises(InputError, match=rf"--port {port}: cannot listen on 127.0.0.1 .*; choose another one"):
        call(serve.main, monkeypatch, "--adapter", "/no/such", "--port", str(port))
    listener.close()


def test_adapters_of_the_command_line_replace_those_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "serve.yaml").write_text("adapter: [/no/one, /no/two]\nport: 0\n")
    with pytest.raises(InputError, match="--adapter /no/one: no such folder"):
        call(serve.main, monkeypatch, "--config", tmp_path / "serve.yaml")
    with pytest.raises(InputError, match="--adapter /no/three: no such folder"):
        call(serve.main, monkeypatch, "--config", tmp_path / "serve.yaml", "--adapter", "/no/three")
