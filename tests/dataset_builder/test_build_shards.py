"""A build in shards: merged, it is that of one machine to the byte, and what does not belong together is refused."""

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import HfApi

from dataset_builder import build, build_shards, download
from dataset_builder.build_shards import shard_folder
from product_vqa.errors import InputError
from product_vqa.sharding import parse_shard
from tests.commands import call
from tests.dataset_builder.files import TEST_COLUMNS, jpeg, write_csv, write_train_csv
from tests.dataset_builder.image_server import ImageServer

COUNT = 3


@pytest.fixture
def csvs(server: ImageServer, tmp_path: Path) -> list[Any]:
    """Forty labelled rows and ten others; two images are gone, and two URLs have the same image."""
    server.answers |= {f"/{number}.jpg": jpeg(number % 38) for number in range(50) if number not in (7, 45)}
    urls = [f"{server.url}/{number}.jpg" for number in range(50)]
    write_train_csv(tmp_path / "train.csv", urls[:40])
    write_csv(tmp_path / "test.csv", TEST_COLUMNS, [[100 + n, url, "g", "width"] for n, url in enumerate(urls[40:])])
    return ["--train_csv", tmp_path / "train.csv", "--test_csv", tmp_path / "test.csv", "--allow_private_hosts",
            "--validation_size", "0.2"]  # fmt: skip


@pytest.fixture
def run(csvs: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    def run_build(machine: Path, output: Path, *more: object) -> None:
        call(build.main, monkeypatch, *csvs, "--image_store", machine / "store", "--output_dir", output, *more)

    return run_build


def contents(folder: Path) -> dict[str, bytes]:
    names = [*folder.glob("data/*"), *folder.glob("rows/*"), folder / "left_out.csv"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in names}


def test_merged_shards_are_the_dataset_of_one_machine(
    run: Any, server: ImageServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "one", tmp_path / "expected")
    requests = server.requests.total()
    output = tmp_path / "out"
    for number in random.Random(1).sample(range(1, COUNT + 1), COUNT):
        run(tmp_path / f"machine{number}", output, "--shard", f"{number}/{COUNT}")
    assert server.requests.total() == 2 * requests  # each URL once more, by one of the machines
    run(tmp_path / "elsewhere", output, "--merge", COUNT)
    assert server.requests.total() == 2 * requests
    assert contents(output) == contents(tmp_path / "expected")
    assert not (output / "shards").exists()
    run(tmp_path / "elsewhere", output, "--merge", COUNT)
    assert f"unchanged: {output}" in capsys.readouterr().out
    rows = pq.read_table(output / "rows" / "train.parquet")
    assert len(rows) == 31 and rows["index"].to_pylist() == sorted(rows["index"].to_pylist())


@pytest.mark.slow
def test_shards_meet_on_a_branch_of_the_repo_that_no_reader_sees(
    run: Any, hub: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "one", tmp_path / "expected")
    on_hub = ["--push_to_hub", "--hub_dataset_id", "local/in-shards"]
    for number in (1, 2):
        run(tmp_path / f"machine{number}", tmp_path / f"out{number}", "--shard", f"{number}/{COUNT}", *on_hub)
    assert HfApi().list_repo_files("local/in-shards", repo_type="dataset") in ([], [".gitattributes"])
    with pytest.raises(InputError, match=r"local/in-shards lacks 1 of 3 shards \(3/3\)"):
        run(tmp_path / "elsewhere", tmp_path / "merged", "--merge", COUNT, *on_hub)
    run(tmp_path / "machine3", tmp_path / "out3", "--shard", f"3/{COUNT}", *on_hub)
    run(tmp_path / "machine1", tmp_path / "out1", "--shard", f"1/{COUNT}", *on_hub)  # again: no harm
    assert f"unchanged: {shard_folder(tmp_path / 'out1', parse_shard('1/3'))}" in capsys.readouterr().out
    run(tmp_path / "elsewhere", tmp_path / "merged", "--merge", COUNT, *on_hub)
    assert contents(tmp_path / "merged") == contents(tmp_path / "expected")
    run(tmp_path / "elsewhere", tmp_path / "merged", "--merge", COUNT, *on_hub)
    assert f"unchanged: {tmp_path / 'merged'}" in capsys.readouterr().out
    with pytest.raises(InputError, match="If they were merged before, the dataset is in the repo"):
        run(tmp_path / "elsewhere", tmp_path / "nothing", "--merge", COUNT, *on_hub)
    read = load_dataset("local/in-shards", cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in read.items()} == {"train": 31, "validation": 8, "test": 10}
    assert [ref.name for ref in HfApi().list_repo_refs("local/in-shards", repo_type="dataset").branches] == ["main"]


def test_what_does_not_belong_together_is_refused(run: Any, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(tmp_path / "a", output, "--shard", "1/2")
    with pytest.raises(InputError, match=r"--merge .*out lacks 1 of 2 shards \(2/2\)"):
        run(tmp_path / "c", output, "--merge", 2)
    run(tmp_path / "b", output, "--shard", "2/2", "--image_size", 64)
    with pytest.raises(InputError, match=r"shard 2/2 was made from other .* \(image_size: 64 -> 448\)"):
        run(tmp_path / "c", output, "--merge", 2)
    shutil.rmtree(tmp_path / "b")
    run(tmp_path / "b", output, "--shard", "2/2")
    states = shard_folder(output, parse_shard("2/2")) / "states.parquet"
    content = states.read_bytes()
    states.write_bytes(content[:-20] + b"x" + content[-19:])
    with pytest.raises(InputError, match=r"shard 2/2: its file states\.parquet is not as it was written"):
        run(tmp_path / "c", output, "--merge", 2)
    run(tmp_path / "b", output, "--shard", "2/2")
    run(tmp_path / "c", output, "--merge", 2)
    assert (output / "data").is_dir()


def test_shards_need_a_store(csvs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--shard and --merge need --image_store"):
        call(build.main, monkeypatch, *csvs, "--image_dir", tmp_path, "--output_dir", tmp_path / "o", "--shard", "1/2")


def test_shards_of_a_download_share_the_urls(
    csvs: list[Any], server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        call(download.main, monkeypatch, *csvs[:5], "--image_store", tmp_path / str(number), "--shard", f"{number}/3",
             "--requests_per_second", 3000)  # fmt: skip
    assert set(server.requests.values()) == {1} and server.requests.total() == 50


def test_images_that_come_later_are_in_the_shard_that_is_run_again(
    run: Any, server: ImageServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {name: server.answers.pop(name) for name in [*server.answers][::5]}
    output = tmp_path / "out"
    for number in (1, 2):
        run(tmp_path / f"machine{number}", output, "--shard", f"{number}/2")
    server.answers |= gone
    before = (shard_folder(output, parse_shard("1/2")) / "states.parquet").read_bytes()
    run(tmp_path / "another", output, "--shard", "1/2")
    assert "unchanged" not in capsys.readouterr().out
    assert (shard_folder(output, parse_shard("1/2")) / "states.parquet").read_bytes() != before


def test_what_was_not_downloaded_makes_the_shard_fail(run: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shard 1/2: http.*jpg was not downloaded; set --download true"):
        run(tmp_path / "a", tmp_path / "out", "--shard", "1/2", "--download", "false")
    assert not list((tmp_path / "out").rglob("shard.json"))


def test_a_build_does_not_replace_shards_and_a_killed_replacement_is_completed(run: Any, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(tmp_path / "a", output, "--shard", "1/2")
    with pytest.raises(InputError, match="contains shards that are not merged yet; set --merge to their number"):
        run(tmp_path / "a", output)
    folder = shard_folder(output, parse_shard("1/2"))
    folder.rename(folder.with_name(f".{folder.name}.old"))  # as a kill in `replace_folder` leaves it
    run(tmp_path / "b", output, "--shard", "2/2")
    run(tmp_path / "a", output, "--shard", "1/2")
    run(tmp_path / "c", output, "--merge", 2)
    assert (output / "data").is_dir()


def hostile(columns: dict[str, pa.Array]) -> pa.Table:
    good = {"url": pa.array(["u"]), "status": pa.array(["failed"]), "reason": pa.array(["http_404"])}
    types = build_shards._STATES
    nulls = {field.name: pa.nulls(1, field.type) for field in types}
    return pa.table(nulls | good | {"tries": pa.array([1], pa.int32()), "seconds": pa.array([0.5]),
                                    "finished_at": pa.array(["x"])} | columns)  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"more": pa.array(["x" * 100])},
        {"tries": pa.array(["1"])},
        {"status": pa.array(["stored"])},
        {"url": pa.array([None], pa.string())},
        {"url": pa.array([b"\xff"])},
        {"reason": pa.array(["not_fetched"])},
    ],
)
def test_a_hostile_shard_is_one_line(run: Any, tmp_path: Path, change: dict[str, pa.Array]) -> None:
    output = tmp_path / "out"
    run(tmp_path / "a", output, "--shard", "1/1")
    folder = shard_folder(output, parse_shard("1/1"))
    pq.write_table(hostile(change), folder / "states.parquet")
    content = json.loads((folder / "shard.json").read_text())
    content["files"]["states.parquet"] = hashlib.sha256((folder / "states.parquet").read_bytes()).hexdigest()
    (folder / "shard.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"--merge shard 1/1: .* run it again") as raised:
        run(tmp_path / "c", output, "--merge", 1)
    assert "\n" not in str(raised.value)
    assert not (output / "data").exists()
