"""What reading needs, and nothing else: the packages of the extras are blocked."""

import json
from pathlib import Path

import pytest

from product_vqa.cli import OF_EXTRAS
from product_vqa.task.prompt import BaseSettings, save_task
from tests.dataset_builder.files import jpeg
from tests.dataset_builder.image_server import ImageServer
from tests.product_vqa.blocked import blocked_imports, run_without_extras
from tests.product_vqa.modeling.adapters import save_adapter

_READ = """
from PIL import Image
from product_vqa import Answer, AttributeReader
assert not [name for name in ("peft", "transformers.models.paligemma.modeling_paligemma") if name in sys.modules]
reader = AttributeReader.from_pretrained(sys.argv[1], dtype="float32", device="cpu")
answer = reader.read(Image.new("RGB", (40, 30), "red"), "voltage")
assert isinstance(answer, Answer)
print(json.dumps(answer.as_dict()))
answers = reader.read_many(sys.argv[2:], entity_name="voltage", allow_urls=True, allow_private_hosts=True)
print(json.dumps([answer.error for answer in answers]))
assert not (blocked | {"dataset_builder"}) & sys.modules.keys()
"""


def test_the_extras_bring_what_is_blocked_here() -> None:
    assert set(blocked_imports()) >= {"trl", "bitsandbytes", "datasets", "evaluate", "pandas", "scipy", "imagehash"}
    assert set(OF_EXTRAS) - {"jinja2"} <= set(blocked_imports())  # torch brings jinja2, and may stop doing so


@pytest.mark.slow
def test_images_and_urls_are_read_without_any_extra(tiny_base: Path, tmp_path: Path, server: ImageServer) -> None:
    server.answers["/a.jpg"] = jpeg()
    urls = [f"{server.url}/a.jpg", f"{server.url}/none.jpg"]
    folder = save_adapter(tmp_path / "adapter", tiny_base)
    save_task(folder, BaseSettings("float32", load_in_4bit=False))
    done = run_without_extras(_READ, folder, *urls)
    assert done.returncode == 0, done.stderr[-3000:]
    answer, errors = map(json.loads, done.stdout.splitlines())
    assert answer["unit"] and answer["error"] is None
    assert errors == [None, f"items[1] {urls[1]}: http_404"]
    assert done.stderr == ""


@pytest.mark.faults
def test_an_adapter_on_an_nf4_base_model_names_the_extra_that_it_needs(tiny_base: Path, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter", tiny_base)
    save_task(folder, BaseSettings("bfloat16", load_in_4bit=True))
    done = run_without_extras(_READ, folder)
    assert "is loaded in 4 bits" in done.stderr and "pip install 'product-vqa[nf4]'" in done.stderr
