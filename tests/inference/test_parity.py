"""Another engine passes where it answers as the adapter does, and is refused where its attention is causal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PaliGemmaForConditionalGeneration

from inference import AttributeReader, parity
from inference.shared_readers import SharedReaders
from product_vqa.errors import InputError
from tests.commands import call
from tests.inference.servers import running_server

pytestmark = pytest.mark.slow


class CausalPaliGemma(PaliGemmaForConditionalGeneration):
    """PaliGemma in an engine that does not know its prefix: each token of it sees earlier ones only."""

    def forward(self, *args: Any, token_type_ids: torch.Tensor | None = None, **options: Any) -> Any:
        if token_type_ids is not None:
            token_type_ids = torch.ones_like(token_type_ids)
        return super().forward(*args, token_type_ids=token_type_ids, **options)


def check(monkeypatch: pytest.MonkeyPatch, url: str, adapter: str, dataset: Path, *more: Any) -> int | None:
    return call(parity.main, monkeypatch, "--server", url, "--adapter", adapter, "--dataset", dataset, *more)


def test_our_server_passes_and_a_causal_one_is_refused(
    adapter: tuple[str, Any], tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = AttributeReader.from_pretrained(adapter[0], dtype="bfloat16")
    options = ("--split", "train", "--rows", "20", "--dtype", "float32")
    with running_server(SharedReaders({"a": reader})) as server:
        assert check(monkeypatch, server.url, adapter[0], tiny_dataset, *options) == 0
        printed = capsys.readouterr().out
        assert "questions                20\n" in printed
        assert "right: the engine answers as the adapter does" in printed
        reader.model.__class__ = CausalPaliGemma
        assert check(monkeypatch, f"{server.url}/v1", adapter[0], tiny_dataset, *options) == 1
        printed = capsys.readouterr().out
        assert "WRONG: the engine does not answer as the adapter does" in printed
        divergence = float(next(line for line in printed.splitlines() if line.startswith("mean KL")).split()[3])
        assert divergence > 0.01


def test_what_cannot_be_compared_is_an_error(
    adapter: tuple[str, Any], tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"--server http://127.0.0.1:9/v1/models: no answer .*: is it running\?"):
        check(monkeypatch, "http://127.0.0.1:9", adapter[0], tiny_dataset)
    with pytest.raises(InputError, match="--server ftp://x must begin with http:// or https://"):
        check(monkeypatch, "ftp://x", adapter[0], tiny_dataset)
    with pytest.raises(InputError, match="--rows must be at least 1, got 0"):
        check(monkeypatch, "http://x", adapter[0], tiny_dataset, "--rows", "0")
    reader = AttributeReader.from_pretrained(adapter[0])
    with running_server(SharedReaders({"a": reader})) as server:
        with pytest.raises(InputError, match=r"status 404: .*--model 'b' is none of a"):
            check(monkeypatch, server.url, adapter[0], tiny_dataset, "--model", "b", "--rows", "1")
        with pytest.raises(InputError, match="has no split 'nothing'"):
            check(monkeypatch, server.url, adapter[0], tiny_dataset, "--split", "nothing")
