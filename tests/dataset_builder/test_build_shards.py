"""A build in shards: merged, it is that of one machine to the byte, and what does not belong together is refused."""

import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import HfApi

from dataset_builder import build, download
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


def test_merged_shards_are_the_dataset_of_one_machine(run: Any, server: ImageServer, tmp_path: Path) -> None:
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
