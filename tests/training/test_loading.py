"""Where a run's rows come from, and what its adapter calls the base model."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from huggingface_hub import HfApi, constants

from product_vqa.errors import InputError
from product_vqa.task.features import FEATURES
from quickstart.pretraining.small_paligemma import make_processor
from tests.commands import call
from tests.tiny import make_rows, save_dataset, write_rows
from training import sft
from training.loading import Sources, load_data, locate_sources, warn_about_small_images
from training.options import DatasetOptions, ModelOptions


def locate(base_model: Path | str, dataset: Path | str, **options: Any) -> Sources:
    model_options = ModelOptions(model_name_or_path=str(base_model), **options)
    return locate_sources(DatasetOptions(dataset_name=str(dataset)), model_options)


def test_as_many_rows_as_asked_for_are_drawn_from_all(tiny_base: Path, tiny_dataset: Path) -> None:
    sources = locate(tiny_base, tiny_dataset)

    def drawn(number: int, seed: int) -> list[int]:
        options = DatasetOptions(dataset_name="", max_train_samples=number)
        return load_data(sources, options, seed=seed, is_best_kept=False).train["index"][:]

    ten = drawn(10, seed=0)
    assert len({*ten}) == 10 and max(ten) > 15 and ten != sorted(ten)  # not the first ten of 32
    assert ten == drawn(10, seed=0) != drawn(10, seed=7)
    assert drawn(100, seed=0) == list(range(32))


def test_where_a_checkpoint_is_selected_half_of_the_rows_are_kept_for_the_card(
    tiny_base: Path, tiny_dataset: Path
) -> None:
    sources = locate(tiny_base, tiny_dataset)
    data = load_data(sources, DatasetOptions(dataset_name=""), seed=0, is_best_kept=True)
    assert data.eval is not None and data.card is not None
    assert (len(data.eval), len(data.card)) == (4, 4)
    assert sorted([*data.eval["index"], *data.card["index"]]) == list(range(1000, 1008))
    options = DatasetOptions(dataset_name="", max_eval_samples=2, max_card_samples=0)
    data = load_data(sources, options, seed=0, is_best_kept=True)
    assert data.eval is not None and len(data.eval) == 2 and data.card is None


def test_training_rows_are_repeated_for_the_mix_of_another_split(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_dataset(tmp_path / "data", train=30, test=8)  # four attributes, in turn
    write_rows(folder / "data" / "test-00000-of-00001.parquet", make_rows(1) + make_rows(1, start=2) * 3)
    sources = locate(tiny_base, folder)
    options = DatasetOptions(dataset_name="", oversample_like="test", max_train_samples=20, max_eval_samples=0)
    rows = load_data(sources, options, seed=0, is_best_kept=False).train
    counts = Counter(rows["entity_name"])
    assert counts["maximum_weight_recommendation"] == 15  # three quarters of 20
    assert len({*rows["index"]}) == 20
    assert f"maximum_weight_recommendation +{len(rows) - 20}" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"`oversample_like` .* has no split 'tests'"):
        load_data(sources, replace(options, oversample_like="tests"), seed=0, is_best_kept=False)


def test_images_smaller_than_the_base_model_takes_cause_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    rows = Dataset.from_list(make_rows(6), features=FEATURES)  # 60 x 40 px
    warn_about_small_images(rows, make_processor(image_size=56, patch_size=14))
    assert not caplog.text
    warn_about_small_images(rows, make_processor(image_size=112, patch_size=14))
    assert "6 of the first 6 images are smaller than the base model's 112 px" in caplog.text


@pytest.mark.slow
def test_a_base_model_in_a_folder_is_named_by_its_id_or_with_a_warning(
    tiny_run: list[str | Path], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    arguments = [*tiny_run, "--max_steps", "1", "--max_eval_samples", "0"]
    position = arguments.index("--base_model_id")
    without_id = [*arguments[:position], *arguments[position + 2 :]]
    call(sft.main, monkeypatch, *arguments, "--output_dir", tmp_path / "a")
    assert "others cannot load" not in caplog.text
    call(sft.main, monkeypatch, *without_id, "--output_dir", tmp_path / "b")
    assert "will name it 'tiny-base', which others cannot load" in caplog.text
    names = [
        json.loads((tmp_path / run / "adapter_config.json").read_text())["base_model_name_or_path"] for run in "ab"
    ]
    assert names == ["user/base", "tiny-base"]
    assert str(tiny_base.parent) not in (tmp_path / "b" / "README.md").read_text()
    assert "Not evaluated" in (tmp_path / "b" / "README.md").read_text()


def test_the_base_models_licence_is_inherited_online_and_offline(
    tiny_repos: tuple[str, str], tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    sha = HfApi().model_info("local/tiny-base").sha
    assert locate("local/tiny-base", tiny_dataset).base_license == "gemma"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert locate("local/tiny-base", tiny_dataset).base_license == "gemma"
    assert locate(f"local/tiny-base@{sha}", tiny_dataset).base_license == "gemma"


@pytest.mark.parametrize(
    ("card", "license"),
    [
        (None, None),
        ("# no metadata", None),
        ("---\ntags: [a]\n---\n", None),
        ("---\nlicense: gemma\n---\n", "gemma"),
        ("---\nlicense: [gemma, mit]\n---\n", ["gemma", "mit"]),
        ("---\nlicense: [a\n---\n", None),
        ("---\nlicense: 5\n---\n", None),
        ("---\nlicense: {a: [b]}\n---\n", None),
        ("---\nlicense: &a [*a]\n---\n", None),
        (f"---\nlicense: {'[' * 5000}\n---\n", None),
        (f"---\nlicense: {'x' * 101}\n---\n", None),
        (f"---\n# {'x' * 3_000_000}\nlicense: gemma\n---\n", None),
    ],
)
def test_the_card_of_a_folder_states_its_licence_or_none(
    tiny_dataset: Path, tmp_path: Path, card: str | None, license: str | list[str] | None
) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert locate(tmp_path, tiny_dataset).base_license == license


@pytest.mark.parametrize("target", [None, "/dev/zero", "/etc/passwd"])
def test_a_card_that_is_a_pipe_or_a_link_out_of_the_folder_is_not_read(
    tiny_dataset: Path, tmp_path: Path, target: str | None
) -> None:
    if target is None:
        os.mkfifo(tmp_path / "README.md")
    else:
        (tmp_path / "README.md").symlink_to(target)
    with pytest.raises(InputError, match=r"its file 'README\.md' is (not a regular file|a link out of the folder)"):
        locate(tmp_path, tiny_dataset)
