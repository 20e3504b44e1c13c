"""The snippets of docs/serving.md do what the page states."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inference import AttributeReader, export, request_bodies, serving_app, serving_connections
from inference.request_bodies import MAX_BODY_BYTES
from inference.shared_readers import SharedReaders
from product_vqa.images import MAX_BYTES, MAX_PIXELS, MAX_SIDE
from tests.commands import ROOT, call
from tests.inference.servers import running_server
from tests.tiny import make_image

PAGE = (ROOT / "docs" / "serving.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_each_snippet_runs(
    adapter: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_image(0).save("photo.jpg", quality=95)
    reader = AttributeReader.from_pretrained(adapter[0], dtype="float32")
    expected = reader.read(Image.open("photo.jpg"), "item_weight")
    (curl,) = snippets("bash")
    chat, plain = snippets("python")
    call(export.main, monkeypatch, "--adapter", adapter[0], "--output_dir", "runs/merged")
    names: dict[str, Any] = {}
    exec(plain, names)
    assert not names["model"].training and names["processor"].image_seq_length == 4
    with running_server(SharedReaders({"user/adapter": reader})) as server:
        capsys.readouterr()
        exec(chat.replace("http://127.0.0.1:8000", server.url), {})
        answer, confidence = capsys.readouterr().out.rsplit(" ", 1)
        assert answer == expected.prediction
        assert float(confidence) == pytest.approx(expected.confidence, abs=1e-4)
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        command = curl.replace("http://127.0.0.1:8000", server.url).split()
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        assert (found["value"], found["number"], found["unit"]) == ("500.0", 500.0, "gram")
        assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-4)


def test_the_limits_are_those_of_the_code() -> None:
    assert f"{MAX_BYTES // 2**20} MiB, {MAX_PIXELS // 10**6} million pixels, {MAX_SIDE:,} pixels per side" in PAGE
    assert f"{MAX_BODY_BYTES / 2**20:.1f} MiB, complete within {request_bodies.BODY_TIMEOUT_S:g} s" in PAGE
    assert f"| {request_bodies.MAX_HELD_BYTES // 2**20} MiB | status 503" in PAGE
    headers = f"{serving_connections.MAX_HEADERS_BYTES // 1024} KiB, complete within"
    assert f"{headers} {serving_connections.HEADERS_TIMEOUT_S:g} s" in PAGE
    assert f"| an answer | {serving_app.ANSWER_TIMEOUT_S:g} s |" in PAGE
