"""An adapter's files are checked, and its base model is found."""

import json
from pathlib import Path

import pytest

from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.adapter import download_adapter
from product_vqa.provenance import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_sha256
from product_vqa.schemas import save_schema
from product_vqa.task.prompt import BaseSettings, save_task
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import SCHEMA_FILE
from tests.product_vqa.modeling.adapters import save_adapter
from tests.product_vqa.modeling.schemas import ALL_KINDS


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "adapter", tiny_base)


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / ADAPTER_CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_what_the_files_of_an_adapter_record(folder: Path, tiny_base: Path) -> None:
    adapter = download_adapter(Location(str(folder)))
    assert (adapter.folder, adapter.sha256) == (folder, adapter_sha256(folder))
    assert (adapter.base_settings, adapter.processor) == (None, None)
    assert adapter.locate_base_model() == Location(str(tiny_base))
    save_task(folder, BaseSettings("bfloat16", load_in_4bit=True))
    (folder / "processor_config.json").touch()
    adapter = download_adapter(Location(str(folder)))
    assert adapter.base_settings == BaseSettings("bfloat16", load_in_4bit=True)
    assert adapter.processor == Location(str(folder))


def test_an_adapter_that_names_no_base_model_is_refused(folder: Path) -> None:
    edit_config(folder, base_model_name_or_path=None)
    with pytest.raises(InputError, match=r"its adapter_config\.json names no base model; pass `base_model`"):
        download_adapter(Location(str(folder))).locate_base_model()


@pytest.mark.parametrize("name", [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"has no {name}: is it a LoRA adapter\?"):
        download_adapter(Location(str(folder)))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_a_config_that_is_not_from_peft_is_refused(folder: Path, content: bytes) -> None:
    (folder / ADAPTER_CONFIG).write_bytes(content)
    with pytest.raises(InputError, match=r"adapter_config\.json is damaged or not from peft"):
        download_adapter(Location(str(folder)))


def test_an_adapter_has_the_challenges_schema_or_its_own(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert download_adapter(Location(str(folder))).schema == CHALLENGE
    save_schema(ALL_KINDS, folder)
    assert download_adapter(Location(str(folder))).schema == ALL_KINDS
    (folder / "task.json").unlink(missing_ok=True)
    download_adapter(Location(str(folder)))
    question = ALL_KINDS[ALL_KINDS.names[0]].question
    assert f"If it was trained with other prompts than {question!r}" in caplog.text
    (folder / SCHEMA_FILE).write_text("version: 1\nattributes:\n  colour: {kind: colour}\n")
    with pytest.raises(InputError, match=rf"{folder}: schema\.yaml, line 3: .*unknown kind 'colour'"):
        download_adapter(Location(str(folder)))
