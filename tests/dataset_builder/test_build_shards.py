"""A build in shards: merged, it is that of one machine to the byte, and what does not belong together is refused."""

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from huggingface_hub import HfApi

from dataset_builder import build, build_shards, download
from dataset_builder.build_shards import shard_folder
from product_vqa.errors import InputError
from product_vqa.sharding import parse_shard
from tests.commands import ROOT, call
from tests.dataset_builder.files import contents
from tests.dataset_builder.image_server import ImageServer

COUNT = 3


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
    states = shard_folder(output, parse_shard("2/2")) / "states.jsonl"
    content = states.read_bytes()
    states.write_bytes(content[:-20] + b"x" + content[-19:])
    with pytest.raises(InputError, match=r"shard 2/2: its file states\.jsonl is not as it was written"):
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
    before = (shard_folder(output, parse_shard("1/2")) / "states.jsonl").read_bytes()
    run(tmp_path / "another", output, "--shard", "1/2")
    assert "unchanged" not in capsys.readouterr().out
    assert (shard_folder(output, parse_shard("1/2")) / "states.jsonl").read_bytes() != before


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


def test_images_are_in_files_of_a_bounded_size(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "one", tmp_path / "expected")
    monkeypatch.setattr(build_shards, "MAX_FILE_BYTES", 5000)
    output = tmp_path / "out"
    for number in (1, 2):
        run(tmp_path / f"machine{number}", output, "--shard", f"{number}/2")
    sizes = [file.stat().st_size for file in output.glob("shards/*/images-*.bin")]
    assert len(sizes) > 4 and max(sizes) <= 5000
    run(tmp_path / "c", output, "--merge", 2)
    assert contents(output) == contents(tmp_path / "expected")


def test_a_shard_does_not_import_what_only_a_dataset_needs(csvs: list[Any], tmp_path: Path) -> None:
    """These take as much CPU time as hundreds of images, in each shard."""
    code = (
        "import sys; from dataset_builder.build import main; main(); "
        "print({'datasets', 'pandas', 'pyarrow', 'scipy.sparse'} & sys.modules.keys(), file=sys.stderr)"
    )
    arguments = [*csvs, "--image_store", tmp_path / "store", "--output_dir", tmp_path / "out", "--shard", "1/4"]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    assert completed.stderr.splitlines()[-1] == "set()"
