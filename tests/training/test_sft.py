"""The command: against a Hub, killed and rerun, with wrong input. The quickstart's test launches it as a user does."""

import io
import json
import re
import shutil
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard, constants, snapshot_download
from PIL import Image
from safetensors.torch import save_file

from inference import AttributeReader
from local_hub import LocalHub
from product_vqa.errors import InputError
from product_vqa.hub import read_file
from product_vqa.provenance import ADAPTER_WEIGHTS
from tests.commands import ROOT, call, launch
from tests.tiny import make_image, make_rows, write_rows
from tests.training.runs import ADAPTER_FILES, QUICKSTART, check_equal_adapters, load_adapter
from training import sft

pytestmark = pytest.mark.slow

SHORT = ["--config", QUICKSTART, "--max_steps", 4, "--save_steps", 2, "--logging_steps", 1, "--lora_r", 4,
         "--per_device_train_batch_size", 4, "--seed", 3, "--eval_steps", 2]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tiny_repos: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run from the Hub to the Hub: local/tiny-adapter."""
    base, dataset = tiny_repos
    output_dir = tmp_path_factory.mktemp("runs") / "tiny-adapter"
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(
            sft.main, monkeypatch, *SHORT, "--dataset_name", dataset, "--model_name_or_path", base, "--output_dir",
            output_dir, "--push_to_hub", "--hub_model_id", "local/tiny-adapter", "--hub_private_repo", "true",
        )  # fmt: skip
    return output_dir


@pytest.fixture(scope="module")
def pulled(trained: Path) -> Path:
    return Path(snapshot_download("local/tiny-adapter"))


def test_the_adapter_repo_holds_what_is_needed_and_no_pickle(pulled: Path) -> None:
    files = {file.relative_to(pulled).as_posix() for file in pulled.rglob("*") if file.is_file()}
    assert files - {".gitattributes"} == ADAPTER_FILES


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
    assert "Measured on 8 rows of split `validation`" in card.text
    assert len(re.findall(r"\| F1, .* \| 0\.\d{4} \(0\.\d{4} to [01]\.\d{4}\) \|", card.text)) == 2
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card.text, re.DOTALL)[1])
    assert config == yaml.safe_load((pulled / "sft_config.yaml").read_text())
    assert config["dataset_revision"] == HfApi().dataset_info("local/tiny-dataset").sha


def test_no_path_host_or_token_of_the_machine_is_published(hub: LocalHub, trained: Path, pulled: Path) -> None:
    texts = [file for file in pulled.iterdir() if file.suffix in {".md", ".json", ".yaml", ".csv"}]
    assert len(texts) == 8
    for file in texts:
        text = file.read_text()
        for secret in (hub.token, "127.0.0.1", str(trained.parent), str(ROOT), "/tmp/", "/root"):
            assert secret not in text, f"{file.name} contains {secret}"


def test_the_options_of_the_hub_are_not_recorded(
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


def test_a_data_seed_of_zero_is_a_seed(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EnoughError(Exception):
        pass

    def load_data(*_: Any, seed: int, **kwargs: Any) -> None:
        seeds.append(seed)
        raise EnoughError

    seeds: list[int] = []
    monkeypatch.setattr(sft, "load_data", load_data)
    for flags in (["--data_seed", "0", "--seed", "7"], ["--data_seed", "5", "--seed", "7"], ["--seed", "7"]):
        with pytest.raises(EnoughError):
            call(sft.main, monkeypatch, *tiny_run, "--output_dir", tmp_path, *flags)
    assert seeds == [0, 5, 7]


def test_the_code_in_the_card_answers_a_question_about_an_image(
    pulled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.search(r"```python\n(.*?)```", (pulled / "README.md").read_text(), re.DOTALL)[1]
    assert "product_vqa" not in code
    # Four steps change hardly anything; with these weights an answer depends on the image and the question.
    folder = Path(shutil.copytree(pulled, tmp_path / "adapter"))
    torch.manual_seed(1)
    weights = {name: torch.randn_like(weight) * 0.3 for name, weight in load_adapter(pulled).items()}
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


def test_a_killed_run_resumes_and_ends_in_the_same_adapter(
    trained: Path, tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    base, dataset = tiny_repos
    again = shutil.copytree(trained, tmp_path / "tiny-adapter")
    (again / "adapter_model.safetensors").unlink()
    (again / "checkpoint-4" / "trainer_state.json").unlink()  # killed while checkpoint-4 was written
    call(sft.main, monkeypatch, *SHORT, "--dataset_name", dataset, "--model_name_or_path", base, "--output_dir", again)
    missing = "checkpoint-4/trainer_state.json is missing"
    assert f"{missing}: checkpoint removed, resuming from checkpoint-2" in caplog.text
    check_equal_adapters(again, trained)


def test_a_finished_run_that_is_rerun_trains_no_further(
    trained: Path, tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, dataset = tiny_repos
    again = shutil.copytree(trained, tmp_path / "tiny-adapter")
    before = (again / "adapter_model.safetensors").read_bytes()
    (again / "adapter_model.safetensors").unlink()
    call(sft.main, monkeypatch, *SHORT, "--dataset_name", dataset, "--model_name_or_path", base, "--output_dir", again)
    assert (again / "adapter_model.safetensors").read_bytes() == before
    assert "| steps | 4 with 4 samples each" in (again / "README.md").read_text()


def test_a_base_model_that_others_cannot_load_is_refused_before_anything_is_trained_or_pushed(
    hub: LocalHub, tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = short_run(dataset_name=tiny_dataset, model_name_or_path=tiny_base, output_dir=tmp_path / "run")
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
        "- The adapter reads what": "- My own limit.\n- The adapter reads what",
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


def short_run(**options: Any) -> list[Any]:
    """The arguments of a short run with these options."""
    arguments: list[Any] = [*SHORT]
    for name, value in options.items():
        arguments += [f"--{name}", value]
    return arguments


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset_name": "local/none"}, "--dataset_name local/none: no such dataset repo"),
        ({"dataset_name": "./none"}, "--dataset_name ./none: no such folder"),
        ({"model_name_or_path": "local/none"}, "--model_name_or_path local/none: no such model repo"),
        ({"model_revision": "v9"}, "has no revision 'v9'"),
        ({"dataset_train_split": "training"}, "has no split 'training'"),
        ({"lora_target_modules": "nothing"}, "--lora_target_modules: "),
        ({"output_dir": ROOT / "LICENSE" / "run"}, "--output_dir .*cannot be created"),
        ({"packing": "true"}, "--packing: True would have no effect"),
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
            r"--samples_per_step is 8, but --per_device_train_batch_size 4 x .*steps 1 x 1 processes = 4",
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
        call(sft.main, monkeypatch, *short_run(**arguments))
    assert not list(tmp_path.rglob("*.safetensors"))


def large_png(width: int, height: int) -> bytes:
    """A PNG whose header names this size."""
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"bytes": b"<html>", "path": None}, "not_a_picture"),
        ({"bytes": large_png(17_500, 10_000), "path": None}, "too_many_pixels: 17500x10000"),
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
    with pytest.raises(InputError, match=rf"the image of index 123 \(https://example.com/\d+.jpg\) .*: {reason}; "):
        call(sft.main, monkeypatch, *short_run(**arguments, max_steps=8, base_model_id="user/base"))


def test_a_gated_base_is_refused_with_its_licence_page(
    hub: LocalHub, tiny_repos: tuple[str, str], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = HfApi()
    api.create_repo("local/gated", private=False)
    api.upload_folder(repo_id="local/gated", folder_path=tiny_base)
    api.update_repo_settings("local/gated", gated="manual")
    monkeypatch.setenv("HF_TOKEN", hub.reader_token)
    with pytest.raises(InputError, match=r"is gated: open http://127\.0\.0\.1:\d+/local/gated.*`hf auth login`"):
        call(
            sft.main,
            monkeypatch,
            *short_run(model_name_or_path="local/gated", dataset_name="x/y", output_dir=tmp_path),
        )


def test_a_token_that_may_not_write_is_refused_before_the_training(
    hub: LocalHub, tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = short_run(
        model_name_or_path=tiny_base, dataset_name=tiny_dataset, output_dir=tmp_path / "run", push_to_hub="true",
        hub_model_id="local/other", base_model_id="user/base",
    )  # fmt: skip
    for token, message in ((hub.reader_token, "HTTP 403"), ("hf_wrong", "HTTP 401")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(InputError, match=rf"--hub_model_id local/other: the Hub refused the token \({message}"):
            call(sft.main, monkeypatch, *arguments)
    assert not list(tmp_path.rglob("checkpoint-*"))


@pytest.mark.faults  # it tries for ten seconds
def test_where_no_hub_answers_the_message_says_so(tmp_path: Path) -> None:
    done = launch(
        "training.sft", *short_run(dataset_name="user/data", output_dir=tmp_path),
        environment={"HF_ENDPOINT": "http://127.0.0.1:9"}, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "error: --model_name_or_path local/small-paligemma: no Hub answers at http://127.0.0.1:9" in done.stderr
    assert "gemm_4bit" not in done.stderr  # bitsandbytes says in every process that an optional package is missing


def test_a_disk_that_is_too_small_is_refused_before_weights_and_images_are_downloaded(
    tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2_000_000))
    base, dataset = tiny_repos
    options = short_run(model_name_or_path=base, dataset_name=dataset, output_dir=tmp_path / "run")
    with pytest.raises(InputError, match=r"too little disk space: .* for base model .* set HF_HOME or --output_dir"):
        call(sft.main, monkeypatch, *options)
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".safetensors", ".parquet")]
