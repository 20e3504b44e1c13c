"""An adapter's files are checked, its base model is found, and merged or not, it answers alike."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.adapter import apply_adapter, download_adapter
from product_vqa.modeling.loading import load_base_model
from product_vqa.provenance import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_sha256
from product_vqa.task.prompt import BaseSettings, save_task
from tests.product_vqa.modeling.adapters import save_adapter


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


@pytest.mark.slow
def test_a_merged_adapter_computes_what_the_separate_one_does(folder: Path, tiny_base: Path) -> None:
    base_model = Location(str(tiny_base))
    adapter = download_adapter(Location(str(folder)))
    ids = torch.arange(5, 15)[None]
    logits = {}
    for merge in (True, False, None):
        model = load_base_model(base_model, dtype=torch.float32).eval()
        if merge is not None:
            model = apply_adapter(model, adapter, base_model=base_model, merge=merge).eval()
        assert any("lora" in name for name, _ in model.named_parameters()) is (merge is False)
        with torch.inference_mode():
            logits[merge] = model.model.language_model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(logits[True], logits[False], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits[True], logits[None], atol=1e-2)


@pytest.mark.slow
def test_weights_that_do_not_fit_or_are_damaged_are_refused(folder: Path, tiny_base: Path) -> None:
    base_model = Location(str(tiny_base))
    adapter = download_adapter(Location(str(folder)))
    tensors = load_file(folder / ADAPTER_WEIGHTS)

    def refusal() -> str:
        model = load_base_model(base_model, dtype=torch.float32)
        with pytest.raises(InputError) as raised:
            apply_adapter(model, adapter, base_model=base_model, merge=True)
        return str(raised.value)

    save_file({name: tensor[..., :-1].contiguous() for name, tensor in tensors.items()}, folder / ADAPTER_WEIGHTS)
    assert f"{folder} does not fit base model {tiny_base}: size mismatch" in refusal()
    save_file({name: tensors[name] for name in sorted(tensors)[2:]}, folder / ADAPTER_WEIGHTS)
    assert "does not fit base model" in refusal() and "Found missing adapter keys" in refusal()
    (folder / ADAPTER_WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "adapter_model.safetensors is damaged" in refusal() and "git lfs pull" in refusal()
