"""Several adapters on one base model answer as each of them alone; others are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from inference import AttributeReader
from inference.shared_readers import load_readers, public_name
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.provenance import adapter_sha256
from product_vqa.task.prompt import BaseSettings, save_task
from tests.inference.adapters import train_adapter
from tests.tiny import make_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def other(adapter: tuple[str, Any], tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second adapter on the same base model, trained for a shorter time, and calibrated."""
    folder = tmp_path_factory.mktemp("other")
    train_adapter(folder, tiny_base, steps=15)
    scalings = {name: {"temperature": 2.0, "bias": 0.0} for name in ("answer", "number", "unit")}
    content = {**scalings, "adapter_sha256": adapter_sha256(folder / "adapter")}
    (folder / "adapter" / "calibration.json").write_text(json.dumps(content))
    return (folder / "adapter").rename(folder / "other adapter")


def test_each_adapter_answers_as_it_does_alone(adapter: tuple[str, Any], other: Path) -> None:
    rows = make_rows(16, start=300)
    asked = [row["image"] for row in rows], [row["entity_name"] for row in rows]
    readers = load_readers([adapter[0], str(other)], dtype="float32")
    assert readers.names == [adapter[0], "other_adapter"]
    expected = {
        name: AttributeReader.from_pretrained(location, dtype="float32").read_batch(*asked)
        for name, location in zip(readers.names, (adapter[0], str(other)), strict=True)
    }
    for name in [*readers.names, *readers.names]:  # back and forth
        answers = readers.activate(name).read_batch(*asked)
        assert [one.prediction for one in answers] == [one.prediction for one in expected[name]]
        for one, alone in zip(answers, expected[name], strict=True):
            assert one.confidence == pytest.approx(alone.confidence, abs=1e-4)
    confidences = [[answer.confidence for answer in expected[name]] for name in readers.names]
    assert max(abs(one - two) for one, two in zip(*confidences, strict=True)) > 0.01  # they do differ


def test_one_adapter_is_loaded_as_predict_loads_it(adapter: tuple[str, Any], tiny_base: Path) -> None:
    readers = load_readers([adapter[0]], dtype="float32")
    assert readers.names == [adapter[0]] and readers[adapter[0]].provenance["adapter_merged"] == "yes"
    assert "x" not in readers and adapter[0] in readers
    assert load_readers([], base_model=str(tiny_base)).names == ["tiny-base"]


def test_adapters_that_cannot_share_a_base_model_are_refused(
    adapter: tuple[str, Any], adapter_folder: Path, other: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"{adapter[0]} is the name of two adapters; rename a folder"):
        load_readers([adapter[0], adapter[0]])
    folder = shutil.copytree(adapter_folder, tmp_path / "nf4")
    save_task(folder, BaseSettings("float32", load_in_4bit=True))
    with pytest.raises(InputError, match=r"needs another base model's settings .*load_in_4bit=True"):
        load_readers([adapter[0], str(folder)])
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"revision": None}))
    (folder / "product_vqa.json").unlink()
    config["base_model_name_or_path"] = str(tmp_path)
    (folder / "adapter_config.json").write_text(json.dumps(config | {"revision": None}))
    with pytest.raises(InputError, match="needs another base model "):
        load_readers([adapter[0], str(folder)])
    damaged = shutil.copytree(other, tmp_path / "damaged")
    config = json.loads((damaged / "adapter_config.json").read_text())
    (damaged / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    with pytest.raises(InputError, match="does not fit base model local/tiny-base"):
        load_readers([adapter[0], str(damaged)])


def test_a_folder_is_named_without_its_path(tmp_path: Path) -> None:
    assert public_name(Location(str(tmp_path / "my adapter"))) == "my_adapter"
    assert public_name(Location("user/adapter", "0" * 40)) == "user/adapter"
