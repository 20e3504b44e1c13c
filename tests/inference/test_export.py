"""The exported model: read by plain transformers, it answers as the adapter; nothing half-written looks complete."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor, SiglipImageProcessorPil

from inference import AttributeReader, export
from product_vqa.errors import InputError
from product_vqa.modeling.exported_model import EXPORT_FILE
from product_vqa.provenance import adapter_sha256
from product_vqa.schemas import save_schema
from product_vqa.task.prompt import BaseSettings, format_prompt, save_task
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import parse_schema
from tests.commands import call
from tests.inference.adapters import train_adapter
from tests.product_vqa.modeling.challenge import max_answer_tokens
from tests.tiny import make_image, make_rows, save_dataset
from training import sft


def run(monkeypatch: pytest.MonkeyPatch, adapter: str | Path, folder: Path, *more: Any) -> Path:
    call(export.main, monkeypatch, "--adapter", adapter, "--output_dir", folder, *more)
    return folder


def answer_plainly(folder: Path, rows: list[dict[str, Any]], *, batch_size: int = 20) -> list[str]:
    """The answers of plain transformers, as anybody would ask for them."""
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    processor = PaliGemmaProcessor.from_pretrained(folder)
    answers: list[str] = []
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        inputs = processor(
            images=[row["image"] for row in some],
            text=[f"<image>{format_prompt(row['entity_name'], schema=CHALLENGE)}" for row in some],
            return_tensors="pt", padding=True, padding_side="left",
        )  # fmt: skip
        inputs.pop("labels", None)
        with torch.inference_mode():
            tokens = model.generate(
                **inputs, max_new_tokens=max_answer_tokens(processor.tokenizer), do_sample=False
            )  # fmt: skip
        answers += processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def answer_with_adapter(adapter: str | Path, rows: list[dict[str, Any]], **options: Any) -> list[str]:
    reader = AttributeReader.from_pretrained(str(adapter), constrain=False, dtype="float32", **options)
    names = [row["entity_name"] for row in rows]
    images = [row["image"] for row in rows]
    return [
        answer.text
        for start in range(0, len(rows), 20)
        for answer in reader.read_batch(images[start : start + 20], names[start : start + 20])
    ]


@pytest.fixture(scope="module")
def exported(adapter: tuple[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return run(patch, adapter[0], tmp_path_factory.mktemp("export") / "merged", "--dtype", "float32")


@pytest.mark.slow
@pytest.mark.parametrize("number", [40, pytest.param(500, marks=pytest.mark.faults)])
def test_plain_transformers_answers_as_the_adapter(adapter: tuple[str, Any], exported: Path, number: int) -> None:
    rows = make_rows(number, start=600)
    answers = answer_plainly(exported, rows)
    assert answers == answer_with_adapter(adapter[0], rows)
    assert len(set(answers)) >= 4


@pytest.mark.slow
def test_an_export_holds_what_a_reader_needs_and_safetensors_only(
    adapter: tuple[str, Any], adapter_folder: Path, exported: Path
) -> None:
    names = sorted(file.name for file in exported.iterdir())
    assert names == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "processor_config.json",
        EXPORT_FILE, "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    record = json.loads((exported / EXPORT_FILE).read_text())
    assert record["adapter"].startswith(f"{adapter[0]}@")
    assert record["dtype"] == "float32" and record["base_precision"] == "not quantized"
    assert record["compared_rows"] == 8 and record["divergence"] < 1e-5
    rows = make_rows(12, start=900)
    asked = [row["image"] for row in rows], [row["entity_name"] for row in rows]
    own = AttributeReader.from_pretrained(None, base_model=str(exported)).read_batch(*asked)
    expected = AttributeReader.from_pretrained(adapter[0], dtype="float32").read_batch(*asked)
    assert own == expected


@pytest.mark.slow
def test_the_card_names_both_models_and_its_code_runs(
    adapter: tuple[str, Any], exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (exported / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.base_model == ["local/tiny-base", adapter[0]]
    assert card.data.to_dict()["base_model_relation"] == "merge"
    assert card.data.library_name == "transformers"
    assert "| item_weight | What is the item weight? |" in text
    make_image(3).save(tmp_path / "photo.png")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    exec(code.replace('"photo.jpg"', repr(str(tmp_path / "photo.png"))).replace('"merged"', repr(str(exported))), {})
    printed = capsys.readouterr().out.strip()
    (expected,) = answer_with_adapter(adapter[0], [{"image": make_image(3), "entity_name": CHALLENGE.names[0]}])
    assert printed == expected.strip() != ""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_an_nf4_adapter_is_merged_into_the_weights_it_was_trained_on(
    tiny_repos: tuple[str, str], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    train_adapter(tmp_path, tiny_base, load_in_4bit=True, steps=12)
    adapter = tmp_path / "adapter"
    save_task(adapter, BaseSettings("bfloat16", load_in_4bit=True))
    folder = run(monkeypatch, adapter, tmp_path / "merged", "--dtype", dtype)
    record = json.loads((folder / EXPORT_FILE).read_text())
    assert record["base_precision"] == "nf4, dequantized"
    assert record["adapter"] == "adapter"  # and not its path
    assert str(tmp_path) not in (folder / "README.md").read_text()
    stored = "bfloat16" if dtype == "auto" else dtype
    assert record["dtype"] == stored
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder)
    assert model.dtype == getattr(torch, stored)
    expected = AttributeReader.from_pretrained(str(adapter), dtype=stored).model.state_dict()
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_the_cap_of_the_logits_is_as_in_training(
    tiny_paligemma2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = save_dataset(tmp_path / "dataset", train=8, validation=4, test=4)
    call(sft.main, monkeypatch, "--model_name_or_path", tiny_paligemma2, "--dataset_name", dataset,
         "--base_model_id", "user/base", "--output_dir", tmp_path / "adapter", "--max_steps", 2,
         "--max_eval_samples", 0, "--disable_logit_softcapping", "true", "--dtype", "float32", "--bf16", "false",
         "--report_to", "none")  # fmt: skip
    folder = run(monkeypatch, tmp_path / "adapter", tmp_path / "merged", "--base_model", tiny_paligemma2)
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder)
    assert model.config.text_config.final_logit_softcapping is None
    reader = AttributeReader.from_pretrained(None, base_model=str(folder))
    assert reader.model.config.text_config.final_logit_softcapping is None


@pytest.mark.slow
def test_schema_and_calibration_come_along(
    adapter_folder: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = parse_schema(
        "version: 1\nunits:\n  mass: {gram: {size: 1}, kilogram: {size: 1000}}\n"
        "attributes:\n  item_weight: {kind: quantity, units: mass}\n",
        name="schema.yaml",
    )
    adapter = shutil.copytree(adapter_folder, tmp_path / "adapter")
    save_schema(schema, adapter)
    scalings = {name: {"temperature": 2.0, "bias": 0.5} for name in ("answer", "number", "unit")}
    (adapter / "calibration.json").write_text(json.dumps({**scalings, "adapter_sha256": adapter_sha256(adapter)}))
    folder = run(
        monkeypatch, adapter, tmp_path / "merged", "--base_model", tiny_base, "--dtype", "float32"
    )  # fmt: skip
    reader = AttributeReader.from_pretrained(None, base_model=str(folder))
    assert reader.schema == schema
    assert reader.calibration.answer.temperature == 2.0
    assert AttributeReader.from_pretrained(None, base_model=str(folder), calibrated=False).calibration.answer.bias == 0


@pytest.mark.slow
def test_a_folder_of_something_else_is_refused_and_an_earlier_export_replaced(
    adapter: tuple[str, Any], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"--output_dir .*mine is not empty and holds no earlier export"):
        run(monkeypatch, adapter[0], tmp_path / "mine")
    again = shutil.copytree(exported, tmp_path / "again")
    (again / "README.md").write_text((again / "README.md").read_text() + "\nEdited by hand.\n")
    run(monkeypatch, adapter[0], again, "--dtype", "float32")
    assert f"unchanged: {again}" in capsys.readouterr().out
    run(monkeypatch, adapter[0], again, "--dtype", "bfloat16")
    assert json.loads((again / EXPORT_FILE).read_text())["dtype"] == "bfloat16"
    assert "Edited by hand." in (again / "README.md").read_text()


@pytest.mark.slow
def test_a_model_that_answers_otherwise_is_not_written(
    adapter: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor that reverses the colours: the comparison notices it, and leaves nothing behind."""
    save = PaliGemmaProcessor.save_pretrained

    def save_reversed(self: PaliGemmaProcessor, folder: Path, **options: Any) -> Any:
        self.image_processor = SiglipImageProcessorPil(**{
            **self.image_processor.to_dict(), "image_std": [-0.5] * 3
        })  # fmt: skip
        return save(self, folder, **options)

    monkeypatch.setattr(PaliGemmaProcessor, "save_pretrained", save_reversed)
    with pytest.raises(InputError, match="the merged model does not answer as the adapter does"):
        run(monkeypatch, adapter[0], tmp_path / "merged", "--dtype", "float32")
    assert not (tmp_path / "merged").exists()
    assert [file.name for file in tmp_path.iterdir()] == []


@pytest.mark.slow
def test_a_pushed_model_is_read_from_the_hub_and_an_adapters_repo_is_refused(
    adapter: tuple[str, Any], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    again = shutil.copytree(exported, tmp_path / "again")
    push = ("--dtype", "float32", "--push_to_hub", "--hub_model_id", "local/merged")
    HfApi().create_repo("local/merged", private=True)
    HfApi().upload_file(repo_id="local/merged", path_in_repo="model-00001-of-00002.safetensors", path_or_fileobj=b"x")
    run(monkeypatch, adapter[0], again, *push)
    assert "pushed: " in capsys.readouterr().out
    files = {file.rfilename for file in HfApi().model_info("local/merged").siblings or []}
    assert files - {".gitattributes"} == {file.name for file in again.iterdir()}
    row = make_rows(1, start=950)[0]
    own = AttributeReader.from_pretrained(None, base_model="local/merged").read(row["image"], row["entity_name"])
    expected = AttributeReader.from_pretrained(adapter[0], dtype="float32").read(row["image"], row["entity_name"])
    assert own == expected
    with pytest.raises(InputError, match="--hub_model_id local/trained-adapter holds an adapter; choose another repo"):
        run(monkeypatch, adapter[0], again, "--push_to_hub", "--hub_model_id", adapter[0])
    with pytest.raises(InputError, match="--push_to_hub needs --hub_model_id user/name"):
        run(monkeypatch, adapter[0], again, "--push_to_hub")
