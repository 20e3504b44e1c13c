"""The adapter that answers is the one that was scored: on the base model in the precision of its training."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from inference import AttributeReader, predict
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.collator import normalize_images
from product_vqa.modeling.loading import dequantize, load_base_model, load_processor
from product_vqa.task.prompt import PROMPT_TEMPLATE, TASK_FILE, BaseSettings, save_task
from product_vqa.task.schema import CHALLENGE
from tests.commands import call
from tests.inference.adapters import train_adapter
from tests.product_vqa.modeling.challenge import make_generation_batch, max_answer_tokens
from tests.tiny import make_image, make_rows
from training import sft


@pytest.fixture(scope="module")
def nf4(tiny_repos: tuple[str, str], tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of an adapter half trained on the NF4 base model, and the model in memory that was scored."""
    folder = tmp_path_factory.mktemp("nf4")
    model = train_adapter(folder, tiny_base, load_in_4bit=True, steps=12)
    save_task(folder / "adapter", BaseSettings("float32", load_in_4bit=True))
    return folder / "adapter", model


def first_logits(model: Any, processor: Any) -> torch.Tensor:
    rows = make_rows(24, start=300)
    batch = make_generation_batch(rows, processor=processor)
    del batch["image_index"]
    batch["pixel_values"] = normalize_images(batch["pixel_values"], processor=processor, dtype=torch.float32)
    with torch.inference_mode():
        return model(**batch, logits_to_keep=1).logits[:, -1]


@pytest.mark.slow
def test_an_nf4_adapter_answers_on_the_weights_it_was_trained_on(nf4: tuple[Path, Any], tiny_base: Path) -> None:
    folder, model = nf4
    processor = load_processor(Location(str(tiny_base)))
    readers = {
        choice: AttributeReader.from_pretrained(str(folder), load_in_4bit=choice) for choice in (None, True, False)
    }
    precision = {choice: reader.provenance["base_precision"] for choice, reader in readers.items()}
    assert precision == {None: "nf4, dequantized", True: "nf4", False: "not quantized"}
    merged = {choice: reader.provenance["adapter_merged"] for choice, reader in readers.items()}
    assert merged == {None: "yes", True: "no", False: "yes"}
    trained = first_logits(model, processor)
    off = {
        choice: float((first_logits(reader.model, processor) - trained).abs().mean())
        for choice, reader in readers.items()
    }
    assert off[True] < 1e-5
    assert off[None] < 0.1 * off[False], off
    # So do the answers: probabilities of complete answers to rows that were not trained on.
    rows = make_rows(40, start=700)
    asked = [row["image"] for row in rows], [row["entity_name"] for row in rows]
    expected = AttributeReader(model, processor, schema=CHALLENGE).read_batch(*asked)
    moved = {
        choice: sum(
            abs(one.confidence - other.confidence) if one.text == other.text else 1.0
            for one, other in zip(reader.read_batch(*asked), expected, strict=True)
        )
        for choice, reader in readers.items()
    }
    assert moved[None] < 0.25 * moved[False], moved


def test_the_dequantized_base_has_the_quantized_weights(tiny_base: Path) -> None:
    processor = load_processor(Location(str(tiny_base)))
    quantized, plain, unquantized = (
        load_base_model(Location(str(tiny_base)), dtype=torch.float32, load_in_4bit=in_4bit).eval()
        for in_4bit in (True, True, False)
    )
    plain = dequantize(plain)
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.float32}
    layer = plain.model.language_model.layers[0].mlp.up_proj
    assert type(layer) is torch.nn.Linear
    expected = first_logits(quantized, processor)
    off, off_unquantized = (
        float((first_logits(model, processor) - expected).abs().mean()) for model in (plain, unquantized)
    )
    assert off < 0.1 * off_unquantized


@pytest.mark.parametrize(
    ("recorded", "asked", "is_fast", "expected"),
    [
        ("float32", "auto", True, "float32"),
        ("bfloat16", "auto", True, "bfloat16"),
        ("bfloat16", "auto", False, "float32"),  # a GPU's adapter on an older CPU
        ("float16", "auto", True, "bfloat16"),  # a T4's: no CPU computes in float16
        ("float16", "auto", False, "float32"),
        (None, "auto", True, "bfloat16"),
        (None, "auto", False, "float32"),
        ("bfloat16", "float32", True, "float32"),
    ],
)
def test_the_dtype_is_that_of_the_training_where_the_device_has_it(
    adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    recorded: str | None, asked: str, is_fast: bool, expected: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": is_fast})
    folder = shutil.copytree(adapter_folder, tmp_path / "adapter")
    if recorded is not None:
        save_task(folder, BaseSettings(recorded, load_in_4bit=False))
    reader = AttributeReader.from_pretrained(str(folder), dtype=asked, device="cpu")
    assert reader.model.dtype == getattr(torch, expected)
    assert reader.provenance["dtype"] == f"torch.{expected}"


def test_an_adapter_of_another_prompt_is_refused_by_the_reader_and_predict(
    adapter_folder: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(adapter_folder, tmp_path / "adapter")
    save_task(folder, BaseSettings("float32", load_in_4bit=False))
    file = folder / TASK_FILE
    file.write_text(file.read_text().replace(PROMPT_TEMPLATE, "How about {entity}?"))
    with pytest.raises(InputError, match=r"was trained with the prompt template 'How about \{entity\}"):
        AttributeReader.from_pretrained(str(folder))
    with pytest.raises(InputError, match=r"was trained with the prompt template 'How about \{entity\}"):
        call(predict.main, monkeypatch, "--adapter", folder, "--dataset", tiny_dataset, "--output", tmp_path / "s.csv")


@pytest.mark.slow
def test_the_cards_code_removes_the_cap_of_the_logits_where_the_training_did(
    tiny_paligemma2: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "trained"
    call(sft.main, monkeypatch, "--model_name_or_path", tiny_paligemma2, "--dataset_name", tiny_dataset,
         "--base_model_id", "user/base", "--output_dir", folder, "--max_steps", 1, "--max_eval_samples", 0,
         "--disable_logit_softcapping", "true", "--oversample_like", "test", "--report_to", "none")  # fmt: skip
    card = (folder / "README.md").read_text()
    assert "32 rows of split `train`, and 3 repetitions of rows about attributes" in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace('"photo.jpg"', repr(str(tmp_path / "a.png")))
    make_image(0).save(tmp_path / "a.png")
    names: dict[str, Any] = {}
    exec(code.replace('"user/base"', repr(str(tiny_paligemma2))).replace('"trained"', repr(str(folder))), names)
    assert names["base"].config.text_config.final_logit_softcapping is None


@pytest.mark.slow
@pytest.mark.parametrize(("load_in_4bit", "dtype"), [(True, "float32"), (True, "bfloat16"), (False, "float32")])
def test_the_cards_code_answers_in_the_precision_of_the_training(
    tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    load_in_4bit: bool, dtype: str,
) -> None:  # fmt: skip
    """A short training; then what its card says is run as it is written, but for the adapter's name."""
    folder = tmp_path / "trained"
    call(sft.main, monkeypatch, "--model_name_or_path", tiny_repos[0], "--dataset_name", tiny_repos[1], "--output_dir",
         folder, "--max_steps", 12, "--per_device_train_batch_size", 4, "--learning_rate", 1e-2, "--dtype", dtype,
         "--bf16", "false", "--load_in_4bit", str(load_in_4bit), "--max_eval_samples", 0, "--save_strategy", "no",
         "--report_to", "none")  # fmt: skip
    reader = AttributeReader.from_pretrained(str(folder), constrain=False, load_in_4bit=load_in_4bit)
    assert reader.provenance["dtype"] == f"torch.{dtype}" or dtype == "bfloat16"  # which not every CPU has
    length = max_answer_tokens(reader.processor.tokenizer)
    card = (folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    assert f"dtype=torch.{dtype}" in code and f"max_new_tokens={length}," in code
    make_image(0).save(tmp_path / "photo.png")
    names: dict[str, Any] = {}
    capsys.readouterr()
    exec(code.replace('"photo.jpg"', repr(str(tmp_path / "photo.png"))).replace('"trained"', repr(str(folder))), names)
    answer = capsys.readouterr().out.strip()
    assert names["base"].dtype == getattr(torch, dtype)
    assert isinstance(names["base"].model.language_model.layers[0].mlp.up_proj.base_layer, Linear4bit) == load_in_4bit
    if dtype == "float32":
        assert answer == reader.read(make_image(0), "item_weight").text.strip() != ""
