"""predict, through the Hub and back: every row has a prediction, in order, with any processes and restarts."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from inference import AttributeReader, predict, predictions, report, submission
from inference.dataloader import RowBatch
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.loading import LANGUAGE_MODEL_LINEARS, load_base_model, load_processor
from product_vqa.task.schema import CHALLENGE
from quickstart.pretraining.small_paligemma import save_base
from tests.commands import CPU_2, ROOT, call, launch
from tests.inference.pngs import png_without_pixels
from tests.inference.runs import arguments, run_predict
from tests.product_vqa.png_files import encode_png
from tests.tiny import make_image, make_rows, save_dataset, save_tiny_base, write_rows
from training import sft


@pytest.mark.slow
def test_an_adapter_pushed_and_pulled_answers_like_the_one_in_memory(
    adapter: tuple[str, Any], tiny_repos: tuple[str, str], tiny_base: Path, tmp_path: Path
) -> None:
    name, model = adapter
    table = run_predict(f"{name}@main", tiny_repos[1], tmp_path / "out" / "submission.csv")
    rows = make_rows(11, labelled=False, start=5000)
    reader = AttributeReader(model, load_processor(Location(str(tiny_base))), schema=CHALLENGE)
    assert list(table.columns)[:6] == ["index", "image_link", "entity_name", "prediction", "answer", "confidence"]
    assert list(table["index"]) == [row["index"] for row in rows]
    for start in range(0, 11, 4):
        part = [row for row in rows[start : start + 4] if row["index"] != 5002]  # that one has no image
        expected = reader.read_batch([row["image"] for row in part], [row["entity_name"] for row in part])
        for row, answer in zip(part, expected, strict=True):
            found = table[table["index"] == row["index"]].iloc[0]
            assert found["answer"] == answer.text
            assert found["prediction"] == answer.prediction
            assert found["confidence"] == pytest.approx(answer.confidence, rel=1e-3)
    assert (table["prediction"] != "").sum() >= 8, "the adapter was trained to answer"
    empty = table[table["index"] == 5002].iloc[0]
    assert empty["prediction"] == ""
    assert pd.isna(empty["answer"]) and pd.isna(empty["confidence"])
    csv = (tmp_path / "out" / "submission.csv").read_text().splitlines()
    assert csv[0] == "index,prediction"
    assert [line.split(",")[0] for line in csv[1:]] == [str(row["index"]) for row in rows]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["submission.csv", "submission.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["2", pytest.param("3", marks=pytest.mark.faults)])
def test_several_processes_write_what_one_writes(
    adapter: tuple[str, Any], tiny_dataset: Path, tmp_path: Path, processes: str
) -> None:
    one = run_predict(adapter[0], tiny_dataset, tmp_path / "one.csv")
    more = run_predict(adapter[0], tiny_dataset, tmp_path / "more.csv", processes=processes)
    pd.testing.assert_frame_equal(one, more, check_exact=True)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "more.csv").read_bytes()


@pytest.mark.faults
def test_processes_without_a_batch_size_agree_on_one(tiny_base: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    launch(
        "inference.predict", "--base_model", tiny_base, "--dataset", tiny_dataset, "--output", tmp_path / "s.csv",
        config_file=CPU_2, processes="2",
    )  # fmt: skip
    assert submission.read_run(tmp_path / "s.parquet")["batch_size"] == 32
    assert len(pd.read_csv(tmp_path / "s.csv")) == 11


@pytest.mark.faults
def test_a_process_downloads_before_it_waits_for_the_others(tiny_repos: tuple[str, str], tmp_path: Path) -> None:
    """The second of two processes whose first never starts: it will not get further than the connection."""
    environment = {
        "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9",
        "ACCELERATE_USE_CPU": "true", "HF_HOME": str(tmp_path / "home"),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "inference.predict", "--base_model", tiny_repos[0], "--dataset", tiny_repos[1],
        "--output", str(tmp_path / "s.csv"),
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | environment) as process:
        deadline = time.monotonic() + 60
        missing = {"model.safetensors", "tokenizer.json", "test-00000-of-00001.parquet"}
        while missing and process.poll() is None and time.monotonic() < deadline:
            missing -= {file.name for file in (tmp_path / "home").rglob("snapshots/*/**/*")}
            time.sleep(0.1)
        process.kill()
    assert not missing


@pytest.mark.slow
def test_a_rerun_computes_only_what_is_missing(
    adapter: tuple[str, Any], tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--adapter", adapter[0], "--dataset", tiny_dataset, "--output", tmp_path / "s.csv",
                 "--dtype", "float32", "--batch_size", 4]  # fmt: skip
    computed: list[list[int]] = []
    to_table = predictions.to_table

    def record(batch: RowBatch, answers: Any, **options: Any) -> Any:
        computed.append([row["index"] for row in batch.rows])
        return to_table(batch, answers, **options)

    def cut_off(batch: RowBatch, answers: Any, **options: Any) -> Any:
        if len(computed) == 2:
            raise KeyboardInterrupt
        return record(batch, answers, **options)

    monkeypatch.setattr(predictions, "to_table", cut_off)
    with pytest.raises(KeyboardInterrupt):
        call(predict.main, monkeypatch, *arguments)
    assert not (tmp_path / "s.csv").exists()
    with pytest.raises(InputError, match=r"other settings \(batch_size: 4 -> 5\)"):
        call(predict.main, monkeypatch, *arguments[:-1], 5)
    monkeypatch.setattr(predictions, "to_table", record)
    call(predict.main, monkeypatch, *arguments)
    assert computed == [[5000, 5001, 5002, 5003], [5004, 5005, 5006, 5007], [5008, 5009, 5010]]
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "s.parquet"), run_predict(adapter[0], tiny_dataset, tmp_path / "uninterrupted.csv")
    )
    assert not (tmp_path / "s.parts").exists()


def test_a_row_whose_image_cannot_be_read_has_an_empty_prediction_and_the_reason(
    adapter: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(9, labelled=False)
    stored = {
        1: encode_png(make_image(1))[:3000], 2: png_without_pixels(1, 60_000_000),
        3: png_without_pixels(17_500, 10_000),
        4: b"%!PS-Adobe-3.0 EPSF-3.0\n", 5: b"",
    }  # fmt: skip
    for index, data in stored.items():
        rows[index]["image"] = {"bytes": data, "path": None}
    rows[6]["image"] = None
    write_rows(tmp_path / "dataset" / "data" / "test-00000-of-00001.parquet", rows)
    output = tmp_path / "submission.csv"
    call(
        predict.main, monkeypatch, "--adapter", adapter[0], "--dataset", tmp_path / "dataset", "--output", output,
        "--batch_size", "2", "--dtype", "float32",
    )  # fmt: skip
    assert (
        capsys.readouterr()
        .out.strip()
        .endswith(
            "3 answered; empty: 0 below the threshold or not valid, 1 without an image, 5 whose image cannot be read "
            "(not_a_picture 2, image_unreadable 1, side_too_long 1, too_many_pixels 1)"
        )
    )
    table = pd.read_parquet(output.with_suffix(".parquet")).set_index("index")
    assert [line.partition(",")[0] for line in output.read_text().splitlines()[1:]] == list("012345678")
    reasons = ["image_unreadable", "side_too_long", "too_many_pixels", "not_a_picture", "not_a_picture", "no_image"]
    assert [reason.partition(":")[0] for reason in table["reason"][1:7]] == reasons
    assert table["reason"][[0, 7, 8]].isna().all()
    reader = AttributeReader.from_pretrained(adapter[0], dtype="float32")
    for index, row in enumerate(rows):
        found = table.loc[index]
        if index in (0, 7, 8):
            assert found["answer"] == reader.read(row["image"], row["entity_name"]).text
        else:
            assert found["prediction"] == "" and pd.isna(found["answer"])


def test_a_dataset_of_paths_is_refused_with_the_row_and_nothing_is_opened(
    adapter: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the path leads to: a file of this machine that is an image would be answered, a FIFO waited for."""
    make_image(0).save(tmp_path / "private.png")
    for path in (str(tmp_path / "private.png"), "https://shop.example/1.png"):
        rows = make_rows(4)
        rows[2]["image"] = {"bytes": None, "path": path}
        for split in ("train", "test"):
            write_rows(tmp_path / "dataset" / "data" / f"{split}-00000-of-00001.parquet", rows)
        message = rf"split (train|test): the image of index 2 is only a path \({re.escape(repr(path))}\)"
        dataset = ["--dataset", tmp_path / "dataset"]
        with pytest.raises(InputError, match=message):
            call(predict.main, monkeypatch, "--adapter", adapter[0], *dataset, "--output", tmp_path / "s.csv")
        (tmp_path / "predictions.csv").write_text("index,prediction\n2,\n")
        with pytest.raises(InputError, match=message):
            call(
                report.main, monkeypatch, *dataset, "--split", "test", "--predictions", tmp_path / "predictions.csv",
                "--output", tmp_path / "report.html",
            )  # fmt: skip
        with pytest.raises(InputError, match=message):
            call(
                sft.main, monkeypatch, "--dataset_name", tmp_path / "dataset",
                "--model_name_or_path", "local/tiny-base", "--output_dir", tmp_path / "run",
            )  # fmt: skip


@pytest.fixture(scope="module")
def long_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dataset(tmp_path_factory.mktemp("long"), train=0, validation=0, test=60)


def kill_and_restart(adapter: str, dataset: Path, output: Path, *, batches: int, after_s: float) -> None:
    """Kill predict a moment after it has written this many batches; rerun it to its end."""
    command = [sys.executable, "-m", "inference.predict", "--adapter", adapter, "--dataset", str(dataset),
               "--output", str(output), "--dtype", "float32", "--batch_size", "2"]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    folder = output.with_suffix(".parts")
    deadline = time.monotonic() + 120
    while process.poll() is None and len(list(folder.glob("[0-9]*.parquet"))) < batches:
        assert time.monotonic() < deadline, "no batch was written"
        time.sleep(0.002)
    time.sleep(after_s)
    process.kill()
    process.wait()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not folder.exists()


@pytest.mark.faults
def test_killed_and_rerun_it_writes_the_same(adapter: tuple[str, Any], long_dataset: Path, tmp_path: Path) -> None:
    uninterrupted = run_predict(adapter[0], long_dataset, tmp_path / "uninterrupted.csv", "--batch_size", 2)
    kill_and_restart(adapter[0], long_dataset, tmp_path / "killed.csv", batches=5, after_s=0.01)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "killed.parquet"), uninterrupted, check_exact=True)
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "uninterrupted.csv").read_bytes()


@pytest.mark.faults
def test_twenty_kills_at_random_moments_lose_nothing(
    adapter: tuple[str, Any], long_dataset: Path, tmp_path: Path
) -> None:
    uninterrupted = run_predict(adapter[0], long_dataset, tmp_path / "uninterrupted.csv", "--batch_size", 2)
    rng = random.Random(0)
    for kill in range(20):
        output = tmp_path / f"{kill}.csv"
        kill_and_restart(adapter[0], long_dataset, output, batches=rng.randrange(30), after_s=rng.uniform(0, 0.2))
        pd.testing.assert_frame_equal(pd.read_parquet(output.with_suffix(".parquet")), uninterrupted, check_exact=True)


@pytest.mark.slow
def test_the_base_model_alone_answers_and_in_4_bits_too(
    adapter: tuple[str, Any], tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, trained = ["--base_model", tiny_base], ["--adapter", adapter[0]]
    tables, made = [], []
    for number, model in enumerate((base, [*base, "--load_in_4bit"], trained, [*trained, "--load_in_4bit", "true"])):
        output = tmp_path / f"{number}.csv"
        call(predict.main, monkeypatch, *model, "--dataset", tiny_dataset, "--output", output, "--dtype", "float32")
        tables.append(pd.read_parquet(output.with_suffix(".parquet")).dropna(subset="answer"))
        made.append(submission.read_run(output.with_suffix(".parquet")))
    assert [one["base_precision"] for one in made] == ["not quantized", "nf4"] * 2
    assert [one["adapter_merged"] for one in made] == [None, None, "yes", "no"]
    # What AttributeReader answers with the base model alone.
    alone = AttributeReader.from_pretrained(None, base_model=str(tiny_base), dtype="float32")
    rows = [row for row in make_rows(11, labelled=False, start=5000) if row["index"] != 5002]
    answers = alone.read_batch([row["image"] for row in rows], [row["entity_name"] for row in rows])
    assert list(tables[0]["answer"]) == [answer.text for answer in answers]
    assert list(tables[0]["confidence"]) != pytest.approx(list(tables[1]["confidence"]), rel=1e-2)
    assert list(tables[0]["answer"]) != list(tables[2]["answer"])
    assert list(tables[2]["prediction"]) == list(tables[3]["prediction"])  # learned by heart, so 4 bits suffice
    assert list(tables[2]["confidence"]) != list(tables[3]["confidence"])


def test_rows_whose_logits_are_not_finite_are_empty_with_a_count_and_a_remedy(
    adapter_folder: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As if float16 overflowed: here by weights that are NaN."""
    folder = Path(shutil.copytree(adapter_folder, tmp_path / "adapter"))
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    for dtype, remedy in (("bfloat16", "`dtype` float32"), ("float32", "check those of the adapter")):
        for constrain in ("on", "off"):
            caplog.clear()
            output = tmp_path / f"{dtype}-{constrain}.csv"
            call(predict.main, monkeypatch, "--adapter", folder, "--dataset", tiny_dataset, "--output", output,
                 "--dtype", dtype, "--constrain", constrain, "--batch_size", 4)  # fmt: skip
            table = pd.read_parquet(output.with_suffix(".parquet"))
            assert list(table["prediction"]) == [""] * 11
            assert list(table["answer"].dropna()) == [""] * 10
            assert set(table["confidence"].dropna()) == {0.0}
            assert "10 of these rows are empty because the model's logits were not finite" in caplog.text
            assert caplog.text.count("logits are not finite") == 1  # not once a batch
            assert remedy in caplog.text
            assert "11 rows, 0 answered" in capsys.readouterr().out


def test_the_probability_of_the_allowed_tokens_is_recorded(
    adapter: tuple[str, Any], tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trained model gives nearly all probability to the allowed tokens; an untrained one nearly none."""
    shares = {}
    for name, model in {"trained": ["--adapter", adapter[0]], "base": ["--base_model", tiny_base]}.items():
        output = tmp_path / f"{name}.csv"
        call(predict.main, monkeypatch, *model, "--dataset", tiny_dataset, "--output", output)
        table = pd.read_parquet(output.with_suffix(".parquet"))
        assert table["allowed_probability"].isna().sum() == table["answer"].isna().sum() == 1
        shares[name] = table["allowed_probability"].dropna()
    assert shares["trained"].min() > 0.1
    assert shares["base"].max() < 0.01


@pytest.fixture(scope="module")
def misfit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of a base model with another hidden size."""
    folder = tmp_path_factory.mktemp("misfit")
    save_base(folder / "base", image_size=28, patch_size=14, hidden_size=64, layers=2)
    model = get_peft_model(
        load_base_model(Location(str(folder / "base")), dtype=torch.float32),
        LoraConfig(r=4, target_modules=LANGUAGE_MODEL_LINEARS),
    )
    model.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return folder / "adapter"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("adapter_model.safetensors", b"", "adapter_model.safetensors is damaged"),
        ("adapter_model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", r"is damaged .*git lfs pull"),
        ("adapter_config.json", b"", "adapter_config.json is damaged or not from peft"),
        ("adapter_config.json", b"[]", "adapter_config.json is damaged or not from peft"),
        ("adapter_config.json", b"\xff", "adapter_config.json is damaged or not from peft"),
    ],
)
def test_a_damaged_file_of_an_adapter_is_named(
    adapter_folder: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, content: bytes, message: str,
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(adapter_folder, tmp_path / "adapter"))
    (folder / name).write_bytes(content)
    sources = {"adapter": folder, "dataset": tiny_dataset}
    with pytest.raises(InputError, match=message):
        call(predict.main, monkeypatch, *arguments(sources, tmp_path / "s.csv"))


@pytest.mark.slow
def test_wrong_input_is_named_with_its_flag(
    adapter: tuple[str, Any], adapter_folder: Path, misfit: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    deeper = save_tiny_base(tmp_path / "deeper")
    config = json.loads((misfit / "adapter_config.json").read_text())
    missing = Path(shutil.copytree(adapter_folder, tmp_path / "missing"))
    tensors = load_file(missing / "adapter_model.safetensors")
    save_file({name: tensors[name] for name in sorted(tensors)[2:]}, missing / "adapter_model.safetensors")
    another = tmp_path / "llama-adapter"
    another.mkdir()
    config |= {"base_model_name_or_path": str(tmp_path / "none"), "target_modules": ["c_attn"]}
    (another / "adapter_config.json").write_text(json.dumps(config))
    (another / "adapter_model.safetensors").write_bytes((misfit / "adapter_model.safetensors").read_bytes())
    good = {"adapter": adapter[0], "dataset": tiny_dataset, "output": tmp_path / "s.csv"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"adapter": "local/none"}, "--adapter local/none: no such model repo"),
        ({"adapter": f"{adapter[0]}@v7"}, "has no revision 'v7'"),
        ({"adapter": deeper}, r"has no adapter_config\.json: is it a LoRA adapter\?"),
        (
            {"adapter": misfit, "base_model": tiny_base},
            r"--adapter .* does not fit base .*: size mismatch for .*lora_A",
        ),
        ({"adapter": another, "base_model": tiny_base}, r"does not fit base .*: Target modules .*c_attn.* not found"),
        ({"adapter": missing}, r"does not fit base .*: Found missing adapter keys"),
        ({"adapter": another}, r"--base_model .*none: no such folder \(the base model that .* names"),
        ({"dataset": "local/none"}, "--dataset local/none: no such dataset repo"),
        ({"split": "validatoin"}, "has no split 'validatoin'"),
        ({"output": tmp_path / "s.txt"}, "must end in .csv"),
        ({"output": deeper / "config.json" / "s.csv"}, "--output .*cannot be created"),
        ({"num_beams": 9}, "--num_beams must be 1 to 8, got 9"),
        ({"batch_size": 0}, "--batch_size must be at least 1, got 0"),
        ({"dataloader_num_workers": -1}, "--dataloader_num_workers must not be negative, got -1"),
    ]
    for changed, message in cases:
        arguments = [word for key, value in (good | changed).items() for word in (f"--{key}", value)]
        with pytest.raises(InputError, match=message):
            call(predict.main, monkeypatch, *arguments)
        assert not list(tmp_path.glob("s.*")), changed


def test_a_dataset_without_a_single_image_has_empty_predictions(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row | {"image": None} for row in make_rows(3, labelled=False)]
    write_rows(tmp_path / "data" / "data" / "test-00000-of-00001.parquet", rows)
    call(
        predict.main, monkeypatch, "--base_model", tiny_base, "--dataset", tmp_path / "data", "--output",
        tmp_path / "s.csv", "--batch_size", "2",
    )  # fmt: skip
    assert (tmp_path / "s.csv").read_text() == "index,prediction\n0,\n1,\n2,\n"
    assert set(pd.read_parquet(tmp_path / "s.parquet")["reason"]) == {"no_image"}


def test_a_duplicate_index_is_refused(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "data" / "data" / "test-00000-of-00001.parquet", make_rows(2) + make_rows(1))
    with pytest.raises(InputError, match="split test has a duplicate index"):
        call(
            predict.main, monkeypatch, "--base_model", tiny_base, "--dataset", tmp_path / "data", "--output",
            tmp_path / "s.csv",
        )  # fmt: skip
    assert not (tmp_path / "s.parts").exists()


def test_alternatives_and_unconstrained_answers_are_written_if_asked_for(
    adapter: tuple[str, Any], tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = ["--adapter", adapter[0], "--dataset", tiny_dataset, "--output"]
    call(predict.main, monkeypatch, *trained, tmp_path / "beams.csv", "--num_beams", 3)
    call(predict.main, monkeypatch, *trained, tmp_path / "free.csv", "--constrain", "off")
    beams, free = (pd.read_parquet(tmp_path / name) for name in ("beams.parquet", "free.parquet"))
    for row in beams.dropna(subset="answer").itertuples():
        assert len(row.alternatives) == 2
        assert row.confidence >= row.alternatives[0]["confidence"] >= row.alternatives[1]["confidence"] > 0
        assert row.prediction not in {other["prediction"] for other in row.alternatives}
        assert row.confidence == pytest.approx(row.number_confidence * row.unit_confidence, rel=1e-6)
    assert free["number_confidence"].isna().all() and free["allowed_probability"].isna().all()
    assert list(free["prediction"]) == list(beams["prediction"])  # learned by heart


@pytest.mark.slow
def test_a_part_of_the_rows_is_predicted_as_it_is_among_all(
    adapter: tuple[str, Any], tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    arguments = ["--adapter", adapter[0], "--dataset", tiny_dataset, "--dtype", "float32", "--batch_size", 1]
    caplog.set_level("INFO")
    call(predict.main, monkeypatch, *arguments, "--output", tmp_path / "all.csv")
    call(predict.main, monkeypatch, *arguments, "--output", tmp_path / "part.csv", "--max_rows", 5)
    call(predict.main, monkeypatch, *arguments, "--output", tmp_path / "width.csv", "--entities", "width")
    everything = pd.read_csv(tmp_path / "all.csv").set_index("index")
    for name, number in (("part", 5), ("width", 2)):
        part = pd.read_csv(tmp_path / f"{name}.csv").set_index("index")
        assert len(part) == number and part.equals(everything.loc[part.index])
        assert f"split test: {number} of 11 rows selected" in caplog.text
    assert submission.read_run(tmp_path / "part.parquet")["row_selection"] == {"max_rows": 5, "seed": 0}
    with pytest.raises(InputError, match=r"split test: --entities select none of the 11 rows"):
        call(predict.main, monkeypatch, *arguments, "--output", tmp_path / "x.csv", "--entities", "depth")
