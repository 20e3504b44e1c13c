"""Each snippet of docs/python.md runs, in order, in a folder with the files that it names."""

import json
import re
from pathlib import Path

import pytest

from product_vqa.modeling.answer import Answer
from product_vqa.provenance import adapter_sha256
from tests.commands import ROOT
from tests.dataset_builder.image_server import ImageServer
from tests.product_vqa.modeling.adapters import save_adapter
from tests.tiny import make_image

TEXT = (ROOT / "docs" / "python.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.slow
def test_every_snippet_runs(
    tiny_base: Path,
    tmp_path: Path,
    server: ImageServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")
    adapter = save_adapter(tmp_path / "adapter", tiny_base)
    scalings = {name: {"temperature": 1.0, "bias": 0.0} for name in ("answer", "number", "unit")}
    grounding = {"weights": {"value": 3.0}, "unit_shares": {}, "is_better": True, **scalings}
    calibration = {**scalings, "grounding": grounding, "adapter_sha256": adapter_sha256(adapter)}
    (adapter / "calibration.json").write_text(json.dumps(calibration))
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("photo.jpg", "back.jpg", "photos/a.jpg", "photos/b.jpg")):
        make_image(number).save(tmp_path / name)
    (tmp_path / "photos" / "c.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    assert len(SNIPPETS) == 9
    server.answers["/photo.jpg"] = (tmp_path / "photo.jpg").read_bytes()
    here = {"user/adapter": str(adapter), "https://shop.example": server.url,
            "allow_urls=True": "allow_urls=True, allow_private_hosts=True"}  # fmt: skip
    names: dict[str, object] = {"__name__": "docs"}
    for snippet in SNIPPETS:
        for text, replacement in here.items():
            snippet = snippet.replace(text, replacement)
        exec(compile(snippet, "docs/python.md", "exec"), names)
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [(line["file"], line["entity_name"]) for line in lines] == [
        (file, name) for file in ("a.jpg", "b.jpg", "c.jpg") for name in ("width", "height", "depth")
    ]
    assert [bool(line["error"]) for line in lines] == [False] * 6 + [True] * 3
    printed = capsys.readouterr().out
    assert "items[2] photos/c.jpg: not_a_picture" in printed
    assert f"items[1] {server.url}/back.jpg: http_404" in printed and server.requests["/photo.jpg"] == 1
    assert "unknown `entity_name` 'colour'; known are width, depth" in printed


def test_every_field_that_the_page_names_is_one_of_an_answer() -> None:
    table = TEXT.partition("## The answer")[2].partition("`as_dict()`")[0]
    named = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    assert named and named <= Answer.__dataclass_fields__.keys()
    assert (ROOT / "product_vqa" / "py.typed").is_file()
