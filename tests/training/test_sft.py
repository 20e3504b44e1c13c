"""The command, as a user runs it: against a Hub, cut off and started again, with wrong input."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset
from huggingface_hub import HfApi, ModelCard, snapshot_download
from PIL import Image
from safetensors.torch import load_file, save_file

from inference import AttributeReader
from product_vqa.errors import InputError
from product_vqa.hub import Location, read_file
from product_vqa.provenance import ADAPTER_WEIGHTS
from product_vqa.task.features import FEATURES
from quickstart.pretraining.small_paligemma import make_processor
from tests.commands import ROOT, call, launch
from tests.product_vqa.test_images import png
from tests.tiny import make_rows, write_rows
from training import loading, sft
from training.loading import load_data, warn_of_small_pictures
from training.options import DatasetOptions

QUICKSTART = ROOT / "training" / "configs" / "quickstart.yaml"
SHORT = ["--config", QUICKSTART, "--max_steps", 4, "--save_steps", 2, "--logging_steps", 1, "--lora_r", 4,
         "--per_device_train_batch_size", 4, "--seed", 3, "--eval_steps", 2]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_repos: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run from the Hub to the Hub: local/tiny-adapter."""
    base, dataset = tiny_repos
    output_dir = tmp_path_factory.mktemp("runs") / "tiny-adapter"
    launch(
        "training.sft", *SHORT, "--dataset_name", dataset, "--model_name_or_path", base, "--output_dir", output_dir,
        "--push_to_hub", "--hub_model_id", "local/tiny-adapter", "--hub_private_repo", "true",
    )  # fmt: skip
    return output_dir


@pytest.fixture(scope="module")
def pulled(trained: Path) -> Path:
    return Path(snapshot_download("local/tiny-adapter"))


def test_the_adapter_repo_holds_what_is_needed_and_no_pickle(pulled: Path) -> None:
    files = {file.relative_to(pulled).as_posix() for file in pulled.rglob("*") if file.is_file()}
    assert files == {
        ".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "log.csv",
        "processor_config.json", "product_vqa.json", "sft_config.yaml", "tokenizer.json", "tokenizer_config.json",
    } - ({".gitattributes"} - files)  # fmt: skip


def test_the_adapter_names_its_base_by_id_and_commit(pulled: Path) -> None:
    config = json.loads((pulled / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "local/tiny-base"
    assert config["revision"] == HfApi().model_info("local/tiny-base").sha


def test_the_card_has_metadata_scores_and_provenance(pulled: Path) -> None:
    card = ModelCard.load(pulled / "README.md")
    data = card.data.to_dict()
    assert data["base_model"] == "local/tiny-base"
    assert data["datasets"] == ["local/tiny-dataset"]
    assert data["library_name"] == "peft"
    assert data["pipeline_tag"] == "image-text-to-text"
    assert data["license"] == "gemma", "the base model's own"
    assert HfApi().model_info("local/tiny-adapter").private
    (dataset,) = {(r.dataset_type, r.dataset_split, r.dataset_revision) for r in card.data.eval_results}
    assert dataset == ("local/tiny-dataset", "validation", HfApi().dataset_info("local/tiny-dataset").sha)
    assert {r.metric_name for r in card.data.eval_results} == {"F1, number and unit", "F1, exact string"}
    assert "More Information Needed" not in card.text
    assert "On 8 rows of split `validation`" in card.text
    assert len(re.findall(r"\| F1, .* \| 0\.\d{4} \(0\.\d{4} to [01]\.\d{4}\) \|", card.text)) == 2
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card.text, re.DOTALL)[1])
    assert config == yaml.safe_load((pulled / "sft_config.yaml").read_text())
    assert config["dataset_revision"] == HfApi().dataset_info("local/tiny-dataset").sha


def test_no_path_host_or_token_of_the_machine_is_published(hub: Any, trained: Path, pulled: Path) -> None:
    texts = [file for file in pulled.iterdir() if file.suffix in {".md", ".json", ".yaml", ".csv"}]
    assert len(texts) == 8
    for file in texts:
        text = file.read_text()
        for secret in (hub.token, "127.0.0.1", str(trained.parent), str(ROOT), "/tmp/", "/root"):
            assert secret not in text, f"{secret} stands in {file.name}"


def test_no_option_of_the_hub_is_written_down(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(
        sft.main, monkeypatch, *tiny_run, "--max_steps", 1, "--max_eval_samples", 0, "--output_dir", tmp_path,
        "--hub_token", "hf_verysecret", "--hub_model_id", "user/secretrepo", "--hub_revision", "secretbranch",
        "--hub_always_push", "true", "--save_steps", 1,
    )  # fmt: skip
    texts = {file.name: file.read_text() for file in tmp_path.rglob("*") if file.suffix in {".md", ".json", ".yaml"}}
    assert {"README.md", "sft_config.yaml", "manifest.json", "trainer_state.json"} < texts.keys()
    for name, text in texts.items():
        assert "hf_verysecret" not in text and "secretbranch" not in text, name
    assert not [
        key for key in yaml.safe_load(texts["sft_config.yaml"]) if key.startswith(("hub_", "push_", "output_"))
    ]


@pytest.mark.parametrize("replaced", [1, 8])
def test_a_publication_that_is_cut_off_is_no_adapter(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: int
) -> None:
    """After so many of the nine files: adapter_config.json, without which it is no adapter, comes last."""
    left = [replaced]

    def replace(source: Path, target: Path) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        os.rename(source, target)

    monkeypatch.setattr("training.publication.os", SimpleNamespace(replace=replace))
    with pytest.raises(KeyboardInterrupt):
        call(
            sft.main, monkeypatch, *tiny_run, "--max_steps", 1, "--max_eval_samples", 0, "--output_dir", tmp_path,
            "--save_strategy", "no",
        )  # fmt: skip
    assert not (tmp_path / "adapter_config.json").exists()
    assert len([file for file in tmp_path.iterdir() if file.is_file() and file.name != ".lock"]) >= replaced


def test_as_many_rows_as_asked_for_are_drawn_from_all(tiny_dataset: Path) -> None:
    found = SimpleNamespace(dataset=Location(str(tiny_dataset)))

    def drawn(number: int, seed: int) -> list[int]:
        options = DatasetOptions(dataset_name="", max_train_samples=number)
        return load_data(found, options, seed=seed, is_best_kept=False).train["index"][:]

    ten = drawn(10, seed=0)
    assert len({*ten}) == 10 and max(ten) > 15 and ten != sorted(ten)  # not the first ten of 32
    assert ten == drawn(10, seed=0) != drawn(10, seed=7)
    assert drawn(100, seed=0) == list(range(32))


def test_a_data_seed_of_zero_is_a_seed(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []
    monkeypatch.setattr(loading, "load_data", lambda *_, seed, **__: seeds.append(seed) or pytest.fail("enough"))
    for flags in (["--data_seed", "0", "--seed", "7"], ["--data_seed", "5", "--seed", "7"], ["--seed", "7"]):
        with pytest.raises(pytest.fail.Exception):
            call(sft.main, monkeypatch, *tiny_run, "--output_dir", tmp_path, *flags)
    assert seeds == [0, 5, 7]


def test_the_code_in_the_card_answers_about_a_picture(pulled: Path, tmp_path: Path, capsys: Any) -> None:
    from tests.tiny import make_image

    code = re.search(r"```python\n(.*?)```", (pulled / "README.md").read_text(), re.DOTALL)[1]
    assert "product_vqa" not in code
    # Four steps teach nothing to say; with these weights an answer depends on the image and the question.
    folder = Path(shutil.copytree(pulled, tmp_path / "adapter"))
    torch.manual_seed(1)
    weights = {name: torch.randn_like(one) * 0.3 for name, one in load_file(pulled / ADAPTER_WEIGHTS).items()}
    save_file(weights, folder / ADAPTER_WEIGHTS)
    code = code.replace('"local/tiny-adapter"', repr(str(folder))).replace('"photo.jpg"', "photo")
    reader = AttributeReader.from_pretrained(str(folder), constrain=False)
    answers = []
    for seed in range(3):
        make_image(seed).save(tmp_path / "photo.png")
        exec(code, {"photo": str(tmp_path / "photo.png")})
        answers.append(capsys.readouterr().out.removesuffix("\n"))
        assert answers[-1] == reader.read(Image.open(tmp_path / "photo.png"), "item_weight").text
    assert all(answer.strip() for answer in answers) and len(set(answers)) > 1


def test_the_log_has_a_loss_for_each_step(pulled: Path) -> None:
    header, *lines = (pulled / "log.csv").read_text().splitlines()
    losses = [line.split(",")[header.split(",").index("loss")] for line in lines]
    assert len([loss for loss in losses if loss]) == 4


def test_a_run_that_was_cut_off_goes_on_to_the_same_adapter(
    trained: Path, tiny_repos: tuple[str, str], tmp_path: Path
) -> None:
    base, dataset = tiny_repos
    again = shutil.copytree(trained, tmp_path / "tiny-adapter")
    expected = load_file(again / "adapter_model.safetensors")
    (again / "adapter_model.safetensors").unlink()
    (again / "checkpoint-4" / "trainer_state.json").unlink()  # killed while checkpoint-4 was written
    done = launch(
        "training.sft", *SHORT, "--dataset_name", dataset, "--model_name_or_path", base, "--output_dir", again
    )
    assert "checkpoint-4/trainer_state.json is missing: removed, resuming from checkpoint-2" in done.stderr
    resumed = load_file(again / "adapter_model.safetensors")
    assert resumed.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (resumed[name] == tensor).all(), name


def test_a_finished_run_that_is_started_again_trains_no_further(
    trained: Path, tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, dataset = tiny_repos
    again = shutil.copytree(trained, tmp_path / "tiny-adapter")
    before = (again / "adapter_model.safetensors").read_bytes()
    (again / "adapter_model.safetensors").unlink()
    call(sft.main, monkeypatch, *SHORT, "--dataset_name", dataset, "--model_name_or_path", base, "--output_dir", again)
    assert (again / "adapter_model.safetensors").read_bytes() == before
    assert "| steps | 4 of 4 rows" in (again / "README.md").read_text()


def test_a_base_in_a_folder_is_named_by_its_id_or_with_a_warning(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    arguments = [*SHORT, "--max_steps", 1, "--max_eval_samples", 0, "--dataset_name", tiny_dataset,
                 "--model_name_or_path", tiny_base]  # fmt: skip
    call(sft.main, monkeypatch, *arguments, "--output_dir", tmp_path / "a", "--base_model_id", "user/base")
    call(sft.main, monkeypatch, *arguments, "--output_dir", tmp_path / "b")
    names = [
        json.loads((tmp_path / run / "adapter_config.json").read_text())["base_model_name_or_path"] for run in "ab"
    ]
    assert names == ["user/base", "tiny-base"]
    assert "which nobody can load" in caplog.text
    assert str(tiny_base.parent) not in (tmp_path / "b" / "README.md").read_text()
    assert "Not scored" in (tmp_path / "b" / "README.md").read_text()


def test_a_base_that_nobody_can_load_is_refused_before_anything_is_trained_or_pushed(
    hub: Any, tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = wrong(dataset_name=tiny_dataset, model_name_or_path=tiny_base, output_dir=tmp_path / "run")
    with pytest.raises(InputError, match=r"--push_to_hub: the base model is a folder .*--base_model_id user/name"):
        call(sft.main, monkeypatch, *arguments, "--push_to_hub", "--hub_model_id", "local/of-a-folder")
    assert not HfApi().repo_exists("local/of-a-folder")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_two_pushes_over_an_edited_card_lose_nothing_of_the_edit(
    trained: Path, tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, dataset = tiny_repos
    again = shutil.copytree(trained, tmp_path / "tiny-adapter")
    arguments = [*SHORT, "--dataset_name", dataset, "--model_name_or_path", base, "--output_dir", again,
                 "--push_to_hub", "--hub_model_id", "local/edited-adapter"]  # fmt: skip

    def card() -> str:
        return read_file("local/edited-adapter", "README.md", revision="main").decode()

    call(sft.main, monkeypatch, *arguments)
    edits = {
        "- paligemma\n": "- paligemma\n- my-own-tag\n",
        "license: gemma\n": "license: mit\n",
        "- It reads what": "- My own limit.\n- It reads what",
    }
    edited = card()
    for old, new in edits.items():
        assert edited.count(old) == 1
        edited = edited.replace(old, new)
    edited += "\n## My own section\n\nText.\n"
    HfApi().upload_file(repo_id="local/edited-adapter", path_in_repo="README.md", path_or_fileobj=edited.encode())
    time = re.compile(r"\| time \| .* \|")
    for _ in range(2):
        call(sft.main, monkeypatch, *arguments)
        for own in (*edits.values(), "\n## My own section\n\nText.\n"):
            assert card().count(own) == 1, own
        assert ModelCard(card()).data.license == "mit"
        assert time.search(card())[0] == time.search((again / "README.md").read_text())[0], "that of the last run"


def wrong(**changed: Any) -> list[Any]:
    return [*SHORT, *(word for key, value in changed.items() for word in (f"--{key}", value))]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset_name": "local/none"}, "--dataset_name local/none: no such dataset repo"),
        ({"dataset_name": "./none"}, "--dataset_name ./none: no such folder"),
        ({"model_name_or_path": "local/none"}, "--model_name_or_path local/none: no such model repo"),
        ({"model_revision": "v9"}, "has no revision 'v9'"),
        ({"dataset_train_split": "training"}, "has no split 'training'"),
        ({"lora_target_modules": "nothing"}, "lora_target_modules: "),
        ({"output_dir": ROOT / "LICENSE" / "run"}, "--output_dir .*cannot be created"),
        ({"packing": "true"}, "packing: True would change nothing"),
        (
            {"dataset_train_split": "test"},
            r"--dataset_train_split test: 11 of 11 rows have no label .* index 5000: choose",
        ),
        (
            {"dataset_test_split": "test"},
            "--dataset_test_split test: 11 of 11 rows have no label .*max_eval_samples 0",
        ),
        ({"dataloader_drop_last": "true", "gradient_accumulation_steps": 9}, "32 rows are fewer than the 36 samples"),
        (
            {"samples_per_step": 8},
            r"samples_per_step 8: per_device_train_batch_size 4 x .*steps 1 x 1 processes are 4",
        ),
        ({"lora_rank": 8}, r"unknown option --lora_rank"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_input_is_named_with_its_flag(
    tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict, message: str
) -> None:
    base, dataset = tiny_repos
    arguments = {"dataset_name": dataset, "model_name_or_path": base, "output_dir": tmp_path / "run"} | changed
    with pytest.raises(InputError, match=message):
        call(sft.main, monkeypatch, *wrong(**arguments))
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"bytes": b"<html>", "path": None}, "not_a_picture"),
        ({"bytes": png(17_500, 10_000, pixels=b"\0"), "path": None}, "too_many_pixels: 17500x10000"),
        (None, "no_image"),
    ],
)
@pytest.mark.parametrize("position", [1, 30])  # among the first, whose sizes are looked at, or not
def test_an_image_that_cannot_be_read_is_named_with_its_row(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Any, reason: str, position: int
) -> None:
    rows = make_rows(32)
    rows[position] |= {"image": image, "index": 123}
    write_rows(tmp_path / "dataset" / "data" / "train-00000-of-00001.parquet", rows)
    arguments = {"dataset_name": tmp_path / "dataset", "model_name_or_path": tiny_base, "output_dir": tmp_path / "run"}
    with pytest.raises(
        InputError, match=rf"the image of index 123 \(https://example.com/\d+.jpg\) .*: {reason}; leave"
    ):
        call(sft.main, monkeypatch, *wrong(**arguments, max_steps=8, base_model_id="user/base"))


def test_a_gated_base_is_refused_with_its_licence_page(
    hub: Any, tiny_repos: tuple[str, str], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = HfApi()
    api.create_repo("local/gated", private=False)
    api.upload_folder(repo_id="local/gated", folder_path=tiny_base)
    api.update_repo_settings("local/gated", gated="manual")
    monkeypatch.setenv("HF_TOKEN", hub.reader_token)
    with pytest.raises(InputError, match=r"is gated: open http://127\.0\.0\.1:\d+/local/gated.*`hf auth login`"):
        call(sft.main, monkeypatch, *wrong(model_name_or_path="local/gated", dataset_name="x/y", output_dir=tmp_path))


def test_a_token_that_may_not_write_is_refused_before_the_training(
    hub: Any, tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = wrong(
        model_name_or_path=tiny_base, dataset_name=tiny_dataset, output_dir=tmp_path / "run", push_to_hub="true",
        hub_model_id="local/other", base_model_id="user/base",
    )  # fmt: skip
    for token, message in ((hub.reader_token, "HTTP 403"), ("hf_wrong", "HTTP 401")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(InputError, match=rf"--hub_model_id local/other: the Hub refused the token \({message}"):
            call(sft.main, monkeypatch, *arguments)
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_where_no_hub_answers_the_message_says_so(tmp_path: Path) -> None:
    done = launch(
        "training.sft", *wrong(dataset_name="user/data", output_dir=tmp_path),
        environment={"HF_ENDPOINT": "http://127.0.0.1:9"}, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "error: --model_name_or_path local/small-paligemma: no Hub answers at http://127.0.0.1:9" in done.stderr
    assert "gemm_4bit" not in done.stderr  # bitsandbytes says in every process that an optional package is missing


def test_pictures_smaller_than_the_base_takes_in_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    rows = Dataset.from_list(make_rows(6), features=FEATURES)  # 60 x 40 px
    warn_of_small_pictures(rows, make_processor(image_size=56, patch_size=14))
    assert not caplog.text
    warn_of_small_pictures(rows, make_processor(image_size=112, patch_size=14))
    assert "6 of the first 6 pictures are smaller than the 112 px that the base takes in" in caplog.text
