"""A dataset of other attributes: trained on, scored, saved with the adapter, and predicted."""

import random
from pathlib import Path

import pandas as pd
import pytest
from datasets import Dataset

from inference import AttributeReader, predict
from product_vqa.errors import InputError
from product_vqa.schemas import save_schema
from product_vqa.task.features import FEATURES
from product_vqa.task.schema_file import SCHEMA_FILE, format_schema
from tests.commands import call
from tests.product_vqa.modeling.schemas import ALL_KINDS, draw_answer
from tests.tiny import make_rows
from training import sft

SPLITS = {"train": 44, "validation": 11, "test": 11}


def make_labelled(number: int, *, seed: int) -> list[dict[str, object]]:
    rng = random.Random(seed)
    rows = []
    for row in make_rows(number, start=1000 * seed):
        name = ALL_KINDS.names[int(row["index"]) % len(ALL_KINDS.names)]
        answer = draw_answer(ALL_KINDS[name], rng)
        rows.append(row | {"entity_name": name, "entity_value": answer, "entity_value_raw": answer})
    return rows


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for seed, (split, number) in enumerate(SPLITS.items()):
        rows = make_labelled(number, seed=seed)
        if split == "test":
            rows = [row | {"entity_value": "", "entity_value_raw": ""} for row in rows]
        Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    save_schema(ALL_KINDS, folder)
    return folder


@pytest.mark.slow
def test_every_kind_from_the_dataset_to_the_predictions(
    dataset: Path, tiny_run: list[str | Path], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = [*tiny_run, "--max_steps", "2", "--eval_strategy", "no", "--max_eval_samples", "11"]
    run[run.index("--dataset_name") + 1] = dataset
    assert call(sft.main, monkeypatch, *run, "--output_dir", tmp_path / "adapter") == 0
    assert (tmp_path / "adapter" / SCHEMA_FILE).read_text() == format_schema(ALL_KINDS)
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "What is the storage?" in card and "it answers in the form `12 gigabyte`" in card
    assert "| F1, in canonical form |" in card and "| right answer: colour |" in card and "challenge" not in card
    sources = ["--adapter", tmp_path / "adapter", "--base_model", tiny_base, "--dataset", dataset]
    call(predict.main, monkeypatch, *sources, "--output", tmp_path / "s.csv", "--dtype", "float32")
    table = pd.read_parquet(tmp_path / "s.parquet")
    for row in table.itertuples():
        assert ALL_KINDS[row.entity_name].is_valid(row.prediction)
    is_quantity = table["entity_name"].isin(["storage", "temperature", "weight"])
    assert (table["number_confidence"].notna() == is_quantity).all()
    assert AttributeReader.from_pretrained(str(tmp_path / "adapter"), base_model=str(tiny_base)).schema == ALL_KINDS


def test_a_split_without_labels_is_not_taken_for_one_whose_answers_are_not_shown(
    dataset: Path, tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = [*tiny_run, "--output_dir", tmp_path, "--dataset_train_split", "test"]
    run[run.index("--dataset_name") + 1] = dataset
    with pytest.raises(InputError, match="11 of 11 rows have no label"):
        call(sft.main, monkeypatch, *run)
