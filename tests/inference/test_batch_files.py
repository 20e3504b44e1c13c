"""What a resumed prediction keeps: its own batches, if they are as it wrote them and nothing else has changed."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from inference import predict
from inference.batch_files import BatchFiles
from inference.submission import PREDICTIONS, read_run
from product_vqa.atomic_io import one_writer
from product_vqa.errors import InputError
from product_vqa.provenance import adapter_sha256
from tests.commands import call
from tests.inference.runs import KilledError, arguments, interrupt, resume
from tests.tiny import save_dataset, save_tiny_base

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def split_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_dataset(tmp_path_factory.mktemp("split") / "data", train=0, validation=0)


@pytest.fixture
def sources(adapter_folder: Path, tiny_base: Path, split_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """Folders of adapter, base model and dataset, to be changed."""
    folders = {"adapter": adapter_folder, "base_model": tiny_base, "dataset": split_folder}
    return {name: Path(shutil.copytree(folder, tmp_path / name)) for name, folder in folders.items()}


def other_weights(sources: dict[str, Path]) -> None:
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


def other_base_model(sources: dict[str, Path]) -> None:
    shutil.rmtree(sources["base_model"])
    save_tiny_base(sources["base_model"], seed=1)


def other_rows(sources: dict[str, Path]) -> None:
    file = next(sources["dataset"].rglob("test*.parquet"))
    table = pq.read_table(file)
    other = table.set_column(4, "entity_name", [["width"] * len(table)])
    pq.write_table(other, file)


def add_calibration(sources: dict[str, Path]) -> None:
    scaling = {"temperature": 2.0, "bias": 0.5}
    content = {"answer": scaling, "number": scaling, "unit": scaling}
    content["adapter_sha256"] = adapter_sha256(sources["adapter"])
    (sources["adapter"] / "calibration.json").write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_weights, "adapter_sha256: "),
        (other_scale, "adapter_sha256: "),
        (other_processor, "processor_sha256: "),
        (other_base_model, "base_sha256: "),
        (other_rows, "dataset_sha256: "),
        (add_calibration, r"calibration: answer 1 \+0.* -> answer 2 \+0\.5"),
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
        InputError, match=rf"s\.parts holds batches of a prediction with other settings \(.*{named}.*: delete"
    ):
        call(predict.main, monkeypatch, *options)
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.slow
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


@pytest.mark.slow
def test_it_resumes_with_the_batch_size_of_before(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU with less free memory would get another one."""
    interrupt(monkeypatch, arguments(sources, tmp_path / "s.csv", batch_size=3), after=2)
    assert resume(monkeypatch, arguments(sources, tmp_path / "s.csv", batch_size=None)) == [2, 3]
    assert read_run(tmp_path / "s.parquet")["batch_size"] == 3


@pytest.mark.parametrize("batch_size", [0, -4, "4", 4.0, True, None])
def test_an_invalid_batch_size_in_the_record_is_named(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: Any
) -> None:
    folder = tmp_path / "s.parts"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"batch_size": batch_size}))
    with pytest.raises(InputError, match=r"run\.json has the invalid batch_size .*: delete the folder.* --output"):
        call(predict.main, monkeypatch, *arguments(sources, tmp_path / "s.csv", batch_size=None))


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


def edit_a_prediction(file: Path) -> None:
    table = pq.read_table(file)
    texts = ["1.0 gram", *table["prediction"].to_pylist()[1:]]
    pq.write_table(table.set_column(3, table.schema.field("prediction"), [texts]), file)


def put_another_batch(file: Path) -> None:
    shutil.copy(file.with_name("000001.parquet"), file)


def put_another_table(file: Path) -> None:
    pd.DataFrame({"index": [1, 2]}).to_parquet(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [truncate, empty, garble, drop_a_row, repeat_a_row, edit_a_prediction, put_another_batch, put_another_table],
    ids=lambda damage: damage.__name__,
)
def test_a_file_that_is_not_as_it_was_written_is_computed_again(
    adapter_folder: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, damage: Damage,
) -> None:  # fmt: skip
    options = arguments({"adapter": adapter_folder, "dataset": tiny_dataset}, tmp_path / "s.csv")
    interrupt(monkeypatch, options, after=2)
    damage(tmp_path / "s.parts" / "000000.parquet")
    assert resume(monkeypatch, options) == [0, 2]
    assert "000000.parquet is damaged or was not written by this run" in caplog.text
    call(
        predict.main, monkeypatch, *arguments({"adapter": adapter_folder, "dataset": tiny_dataset}, tmp_path / "u.csv")
    )
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "u.csv").read_bytes()
    assert list(pd.read_csv(tmp_path / "s.csv")["index"]) == list(range(5000, 5011))


@pytest.mark.slow
def test_a_file_of_another_run_is_computed_again(
    adapter_folder: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"adapter": adapter_folder, "dataset": tiny_dataset}
    for name, threshold in (("s", 0.0), ("t", 1.0)):
        interrupt(monkeypatch, arguments(sources, tmp_path / f"{name}.csv", min_confidence=threshold), after=1)
    shutil.copy(tmp_path / "t.parts" / "000000.parquet", tmp_path / "s.parts")
    assert resume(monkeypatch, arguments(sources, tmp_path / "s.csv", min_confidence=0.0)) == [0, 1, 2]


def rows(*indexes: int) -> Any:
    records = [{"index": index, "prediction": "1.0 gram", "alternatives": []} for index in indexes]
    return pa.Table.from_pylist(records, schema=PREDICTIONS)


def test_a_file_that_is_damaged_while_the_prediction_runs_is_named(tmp_path: Path) -> None:
    files = BatchFiles(tmp_path / "s.parts", schema=PREDICTIONS)
    files.open({"rows": 3})
    files.save(0, rows(1, 2))
    files.save(1, rows(3))
    assert files.load({0: [1, 2], 1: [3]})["index"].to_pylist() == [1, 2, 3]
    drop_a_row(tmp_path / "s.parts" / "000000.parquet")
    with pytest.raises(InputError, match=r"000000\.parquet was changed while the prediction ran: rerun"):
        files.load({0: [1, 2], 1: [3]})
    (tmp_path / "s.parts" / "000000.parquet").unlink()
    with pytest.raises(InputError, match=r"000000\.parquet was changed"):
        files.load({0: [1, 2], 1: [3]})


def test_a_file_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = BatchFiles(tmp_path / "s.parts", schema=PREDICTIONS)
    files.open({})
    files.save(0, rows(1, 2))
    before = (tmp_path / "s.parts" / "000000.parquet").read_bytes()

    def half(table: Any, file: Path) -> None:
        file.write_bytes(b"PAR1")
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", half)
        for batch in (0, 1):
            with pytest.raises(KilledError):
                files.save(batch, rows(1, 2))
    assert (tmp_path / "s.parts" / "000000.parquet").read_bytes() == before
    assert sorted(file.name for file in (tmp_path / "s.parts").iterdir()) == ["000000.parquet", "run.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_broken_record_of_the_run_is_named(tmp_path: Path, text: str) -> None:
    files = BatchFiles(tmp_path, schema=PREDICTIONS)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json .*delete"):
        files.open({"rows": 3})


def damaged(content: bytes, *, step: int) -> Iterator[bytes]:
    """Cut at every `step`-th byte, and with that byte changed."""
    for position in range(0, len(content), step):
        yield content[:position]
        for mask in (0x01, 0x80, 0xFF):
            yield content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :]


def check_damage(folder: Path, *, step: int) -> int:
    """Read a file in every damaged form: its rows are those that were written, or it counts as missing."""
    files, written = BatchFiles(folder, schema=PREDICTIONS), rows(1, 2)
    files.open({"rows": 2})
    files.save(0, written)
    (file,) = folder.glob("*.parquet")
    num_cases = 0
    for content in damaged(file.read_bytes(), step=step):
        file.write_bytes(content)
        if files.has(0, [1, 2]):
            assert files.load({0: [1, 2]}).equals(written)
        num_cases += 1
    return num_cases


def test_a_file_that_is_cut_or_garbled_anywhere_is_as_written_or_missing(tmp_path: Path) -> None:
    assert check_damage(tmp_path / "s.parts", step=61) > 150


@pytest.mark.faults
def test_a_file_that_is_cut_or_garbled_at_any_byte_is_as_written_or_missing(tmp_path: Path) -> None:
    assert check_damage(tmp_path / "s.parts", step=1) > 9_000


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_file_that_is_not_a_regular_file_is_computed_again(tmp_path: Path, kind: str) -> None:
    files = BatchFiles(tmp_path / "s.parts", schema=PREDICTIONS)
    files.open({})
    file = tmp_path / "s.parts" / "000000.parquet"
    {"pipe": os.mkfifo, "folder": Path.mkdir, "device": lambda link: link.symlink_to("/dev/zero")}[kind](file)
    assert not files.has(0, [1])


@pytest.mark.parametrize("text", ['{"a": ' * 5000, '{"batch_size": ' + "9" * 5000 + "}", '{"rows": NaN}', "\ud800"])
def test_a_hostile_record_of_the_run_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, errors="surrogatepass")
    with pytest.raises(InputError, match=r"run\.json cannot be read .*delete the folder") as refusal:
        BatchFiles(tmp_path, schema=PREDICTIONS).open({"rows": 3})
    assert "\n" not in str(refusal.value)


def test_a_record_of_the_run_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(InputError, match=r"run\.json cannot be read .*not a regular file"):
        BatchFiles(tmp_path, schema=PREDICTIONS).open({"rows": 3})


@pytest.mark.slow
def test_two_predictions_to_one_output_are_not_mixed(
    adapter_folder: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = arguments({"adapter": adapter_folder, "dataset": tiny_dataset}, tmp_path / "s.csv")
    with (
        one_writer(tmp_path / "s.csv", argument="output"),
        pytest.raises(InputError, match=rf"^--output {tmp_path}/s\.csv: another process is writing it; wait until"),
    ):
        call(predict.main, monkeypatch, *options)
    assert not list(tmp_path.iterdir())
    call(predict.main, monkeypatch, *options)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.csv", "s.parquet"]
