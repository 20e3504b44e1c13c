"""What a resumed prediction takes from the one before: shards that are as it wrote them, of the same content only."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from inference import calibrate, predict, predictions
from inference.predictions import PREDICTIONS
from inference.shards import Shards
from inference.submission import read_run
from product_vqa.errors import InputError
from tests.commands import call
from tests.tiny import save_dataset, save_tiny_base

Damage = Callable[[Path], None]


class KilledError(Exception):
    """A kill, after some batches."""


@pytest.fixture
def sources(adapter_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """Folders of adapter, base model and dataset, to be changed."""
    return {
        "adapter": Path(shutil.copytree(adapter_folder, tmp_path / "adapter")),
        "base_model": save_tiny_base(tmp_path / "base"),
        "dataset": save_dataset(tmp_path / "data", train=0, validation=0),
    }


def arguments(sources: dict[str, Path], output: Path, **more: Any) -> list[Any]:
    options = sources | {"output": output, "dtype": "float32", "batch_size": 4} | more
    return [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]


def interrupt(monkeypatch: pytest.MonkeyPatch, options: list[Any], *, after: int) -> None:
    """Run predict, which is killed after so many batches."""
    to_table = predictions.to_table
    computed: list[int] = []

    def cut_off(batch: Any, *args: Any, **kwargs: Any) -> Any:
        if len(computed) == after:
            raise KilledError
        computed.append(batch.number)
        return to_table(batch, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "to_table", cut_off)
        with pytest.raises(KilledError):
            call(predict.main, patch, *options)


def resume(monkeypatch: pytest.MonkeyPatch, options: list[Any]) -> list[int]:
    """Run predict to its end; the batches that it computed."""
    to_table = predictions.to_table
    computed: list[int] = []

    def count(batch: Any, *args: Any, **kwargs: Any) -> Any:
        computed.append(batch.number)
        return to_table(batch, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "to_table", count)
        call(predict.main, patch, *options)
    return computed


def other_weights(sources: dict[str, Path]) -> None:
    from safetensors.torch import load_file, save_file

    file = sources["adapter"] / "adapter_model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(file).items()}, file)


def other_scale(sources: dict[str, Path]) -> None:
    file = sources["adapter"] / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": 9}))


def other_processor(sources: dict[str, Path]) -> None:
    for file in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(sources["base_model"] / file, sources["adapter"])
    file = sources["adapter"] / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"]["image_mean"] = [0.4, 0.4, 0.4]
    file.write_text(json.dumps(content))


def other_base(sources: dict[str, Path]) -> None:
    shutil.rmtree(sources["base_model"])
    save_tiny_base(sources["base_model"], seed=1)


def other_rows(sources: dict[str, Path]) -> None:
    file = next(sources["dataset"].rglob("test*.parquet"))
    table = pq.read_table(file)
    other = table.set_column(4, "entity_name", [["width"] * len(table)])
    pq.write_table(other, file)


def a_calibration(sources: dict[str, Path]) -> None:
    from product_vqa.provenance import adapter_sha256

    scaling = {"temperature": 2.0, "bias": 0.5}
    content = {"answer": scaling, "number": scaling, "unit": scaling}
    content["adapter_sha256"] = adapter_sha256(sources["adapter"])
    (sources["adapter"] / "calibration.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_weights, "adapter_sha256: "),
        (other_scale, "adapter_sha256: "),
        (other_processor, "processor_sha256: "),
        (other_base, "base_sha256: "),
        (other_rows, "dataset_sha256: "),
        (a_calibration, r"calibration: answer 1 \+0.* -> answer 2 \+0\.5"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_prediction_does_not_resume_with_other_content(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, named: str
) -> None:
    options = arguments(sources, tmp_path / "s.csv")
    interrupt(monkeypatch, options, after=2)
    change(sources)
    with pytest.raises(
        InputError, match=rf"s\.parts holds shards of a prediction with other settings \(.*{named}.*: delete"
    ):
        call(predict.main, monkeypatch, *options)
    assert not (tmp_path / "s.csv").exists()


def test_a_prediction_does_not_resume_with_other_settings_but_with_other_dates(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = arguments(sources, tmp_path / "s.csv")
    interrupt(monkeypatch, options, after=2)
    for name, value, named in (
        ("min_confidence", 0.5, "min_confidence: 0.0 -> 0.5"),
        ("num_beams", 2, "num_beams: 1 -> 2"),
        ("constrain", "off", "constrain: on -> off"),
        ("allow_empty", "true", "allow_empty: False -> True"),
        ("batch_size", 5, "batch_size: 4 -> 5"),
        ("load_in_4bit", "true", "base_precision: not quantized -> nf4"),
        ("dtype", "bfloat16", "dtype: torch.float32 -> torch.bfloat16"),
        ("adapter", None, "adapter: .* -> None"),
    ):
        with pytest.raises(InputError, match=rf"other settings \(.*{named}"):
            call(predict.main, monkeypatch, *arguments(sources, tmp_path / "s.csv", **{name: value}))
    for folder in sources.values():
        for file in folder.rglob("*.*"):
            os.utime(file, (1, 1))
        (folder / "README.md").write_text("A card, edited by hand.")
    assert resume(monkeypatch, options) == [2]


def test_it_resumes_with_the_batch_size_of_before(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found anew on a GPU that is fuller now, it would be another one."""
    interrupt(monkeypatch, arguments(sources, tmp_path / "s.csv", batch_size=3), after=2)
    assert resume(monkeypatch, arguments(sources, tmp_path / "s.csv", batch_size=None)) == [2, 3]
    assert read_run(tmp_path / "s.parquet")["batch_size"] == 3


def test_the_parquet_file_says_what_made_it(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(predict.main, monkeypatch, *arguments(sources, tmp_path / "s.csv", num_beams=2))
    made = read_run(tmp_path / "s.parquet")
    assert made["adapter"] == str(sources["adapter"])
    assert made["dataset"] == str(sources["dataset"])
    assert (made["split"], made["rows"], made["num_beams"], made["min_confidence"]) == ("test", 11, 2, 0.0)
    assert (made["base_precision"], made["adapter_merged"], made["dtype"]) == ("not quantized", "yes", "torch.float32")
    for name in ("adapter_sha256", "base_sha256", "dataset_sha256"):
        assert len(made[name]) == 64, name
    assert read_run(tmp_path / "s.csv") == {}


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def garble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[: len(content) // 2] = bytes(byte ^ 0xFF for byte in content[: len(content) // 2])
    file.write_bytes(content)


def drop_a_row(file: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(table.slice(1), file)


def repeat_a_row(file: Path) -> None:
    frame = pd.read_parquet(file)
    pd.concat([frame, frame[:1]]).to_parquet(file)


def edit_an_answer(file: Path) -> None:
    table = pq.read_table(file)
    texts = ["1.0 gram", *table["prediction"].to_pylist()[1:]]
    pq.write_table(table.set_column(3, table.schema.field("prediction"), [texts]), file)


def put_another_batch(file: Path) -> None:
    shutil.copy(file.with_name("000001.parquet"), file)


def put_another_table(file: Path) -> None:
    pd.DataFrame({"index": [1, 2]}).to_parquet(file)


@pytest.mark.parametrize(
    "damage",
    [truncate, empty, garble, drop_a_row, repeat_a_row, edit_an_answer, put_another_batch, put_another_table],
    ids=lambda damage: damage.__name__,
)
def test_a_shard_that_is_not_as_it_was_written_is_computed_again(
    adapter_folder: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, damage: Damage,
) -> None:  # fmt: skip
    options = arguments({"adapter": adapter_folder, "dataset": tiny_dataset}, tmp_path / "s.csv")
    interrupt(monkeypatch, options, after=2)
    damage(tmp_path / "s.parts" / "000000.parquet")
    assert resume(monkeypatch, options) == [0, 2]
    assert "000000.parquet is not as this prediction wrote it" in caplog.text
    call(
        predict.main, monkeypatch, *arguments({"adapter": adapter_folder, "dataset": tiny_dataset}, tmp_path / "u.csv")
    )
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "u.csv").read_bytes()
    assert list(pd.read_csv(tmp_path / "s.csv")["index"]) == list(range(5000, 5011))


def test_a_shard_of_another_run_is_computed_again(
    adapter_folder: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"adapter": adapter_folder, "dataset": tiny_dataset}
    for name, threshold in (("s", 0.0), ("t", 1.0)):
        interrupt(monkeypatch, arguments(sources, tmp_path / f"{name}.csv", min_confidence=threshold), after=1)
    shutil.copy(tmp_path / "t.parts" / "000000.parquet", tmp_path / "s.parts")
    assert resume(monkeypatch, arguments(sources, tmp_path / "s.csv", min_confidence=0.0)) == [0, 1, 2]


def rows(*indexes: int) -> Any:
    records = [{"index": index, "prediction": "1.0 gram", "alternatives": []} for index in indexes]
    return PREDICTIONS.empty_table().from_pylist(records, schema=PREDICTIONS)


def test_a_shard_that_is_damaged_while_the_prediction_runs_is_named(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "s.parts")
    shards.open({"rows": 3})
    shards.save(0, rows(1, 2))
    shards.save(1, rows(3))
    assert shards.load([[1, 2], [3]])["index"].to_pylist() == [1, 2, 3]
    drop_a_row(tmp_path / "s.parts" / "000000.parquet")
    with pytest.raises(InputError, match=r"000000\.parquet was changed while the prediction ran: rerun"):
        shards.load([[1, 2], [3]])
    (tmp_path / "s.parts" / "000000.parquet").unlink()
    with pytest.raises(InputError, match=r"000000\.parquet was changed"):
        shards.load([[1, 2], [3]])


def test_a_shard_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = Shards(tmp_path / "s.parts")
    shards.open({})
    shards.save(0, rows(1, 2))
    before = (tmp_path / "s.parts" / "000000.parquet").read_bytes()

    def half(table: Any, file: Path) -> None:
        file.write_bytes(b"PAR1")
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", half)
        for batch in (0, 1):
            with pytest.raises(KilledError):
                shards.save(batch, rows(1, 2))
    assert (tmp_path / "s.parts" / "000000.parquet").read_bytes() == before
    assert sorted(file.name for file in (tmp_path / "s.parts").iterdir()) == ["000000.parquet", "run.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_broken_record_of_the_run_is_named(tmp_path: Path, text: str) -> None:
    shards = Shards(tmp_path)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json .*delete"):
        shards.open({"rows": 3})


def test_calibrating_twice_gives_the_same_calibration(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is fitted on the model's own confidences, whether or not there is a calibration already."""
    dataset = save_dataset(tmp_path / "labelled", train=0, validation=40, test=3)
    options = ["--adapter", sources["adapter"], "--base_model", sources["base_model"], "--dataset", dataset]
    for row in range(2):
        call(calibrate.main, monkeypatch, *options, "--dtype", "float32")
        content = json.loads((sources["adapter"] / "calibration.json").read_text())
        if row == 0:
            a_calibration(sources)  # an odd one
            first = content
    assert content == first


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
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str
) -> None:
    (sources["adapter"] / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        call(predict.main, monkeypatch, *arguments(sources, tmp_path / "s.csv"))
