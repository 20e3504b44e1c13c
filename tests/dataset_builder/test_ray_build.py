"""Builds by Ray's workers are those of one machine, wherever shards meet and whatever is lost meanwhile."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from benchmarks.ray_nodes import ray_nodes
from dataset_builder import build
from dataset_builder.build_shards import Inputs, shard_folder
from dataset_builder.csv_reader import read_tables
from dataset_builder.options import BuildOptions, BuildSourceOptions, FetchOptions, TableOptions
from dataset_builder.ray_build import ShardWork, collect_shards, count_shards, find_target, scratch_folder
from dataset_builder.shard_targets import FolderTarget, HubTarget, UrlTarget
from product_vqa.errors import InputError
from product_vqa.row_selection import ALL_ROWS
from product_vqa.sharding import Shard, parse_shard
from tests.commands import ROOT, call
from tests.dataset_builder.files import contents
from tests.dataset_builder.image_server import ImageServer, slowly
from tests.ray_clusters import finish, grep, lose_a_worker_and_a_node, start, wait_until
from tests.ray_clusters import run as run_command


@pytest.fixture
def inputs(csvs: list[Any]) -> Inputs:
    return Inputs.of(tables_of(csvs), ALL_ROWS, image_size=448)


def tables_of(csvs: list[Any]) -> Any:
    return read_tables(TableOptions(train_csv=str(csvs[1]), test_csv=str(csvs[3])))


def slow_down(server: ImageServer, *, pause_s: float) -> dict[str, Any]:
    """Let the server wait before each image; returns its answers without that."""
    fast: dict[str, Any] = {**server.answers}
    server.answers = {path: slowly(image, pause_s=pause_s) for path, image in fast.items()}
    return fast


# ---- Without Ray ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard", "1/2"], "--engine ray makes all shards and merges them: drop --shard and --merge"),
        (["--merge", "2"], "--engine ray makes all shards and merges them: drop --shard and --merge"),
        (["--download", "false"], "--engine ray downloads the images: drop --download false"),
        (["--retry_failed"], "--retry_failed needs the --image_store of a build without Ray"),
        (["--image_store", "store"], "with --engine ray, give neither --image_dir nor --image_store"),
        (["--ray_shards", "0"], "--ray_shards must be between 1 and 9999, got 0"),
        (["--shards_url", "/mnt/shared"], "--shards_url /mnt/shared must be a URL like s3://bucket/build"),
    ],
)
def test_options_that_a_build_by_ray_does_not_have_are_named(
    csvs: list[Any], more: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=message):
        call(build.main, monkeypatch, *csvs, "--output_dir", tmp_path / "out", "--engine", "ray", *more)


def test_options_of_ray_need_the_engine(csvs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ray_shards", 3), ("shards_url", "s3://a/b"), ("ray_workers", 2)):
        with pytest.raises(InputError, match=f"--{name} is for --engine ray"):
            call(build.main, monkeypatch, *csvs, "--output_dir", tmp_path / "out", "--image_store", tmp_path / "s",
                 f"--{name}", value)  # fmt: skip


def test_the_number_of_shards_depends_on_the_command_and_its_inputs_only(tmp_path: Path) -> None:
    source, folder, hub = BuildSourceOptions(engine="ray"), FolderTarget(tmp_path), HubTarget("a/b", private=True)
    counts = [count_shards(source, folder, num_urls=number) for number in (0, 1, 1000, 1001, 346_572, 10**10)]
    assert counts == [1, 1, 1, 2, 347, 9999]
    assert [count_shards(source, hub, num_urls=number) for number in (1001, 346_572)] == [2, 100]
    assert count_shards(replace(source, ray_shards=7), hub, num_urls=10**6) == 7


def test_shards_meet_at_the_url_else_on_the_hub_else_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    pushed = BuildOptions(str(folder), push_to_hub=True, hub_dataset_id="a/b", hub_private_repo=False)
    source = BuildSourceOptions(engine="ray")
    assert find_target(folder, source, BuildOptions(str(folder)), location="out") == FolderTarget(folder)
    assert find_target(folder, source, pushed, location="a/b") == HubTarget("a/b", private=False)
    at_url = find_target(folder, replace(source, shards_url="s3://x/y/"), pushed, location="a/b")
    assert at_url == UrlTarget("s3://x/y", downloads=tmp_path / ".out.shards")


def test_a_worker_writes_what_shard_writes(
    run: Any, csvs: list[Any], inputs: Inputs, server: ImageServer, tmp_path: Path
) -> None:
    run(tmp_path / "machine", tmp_path / "expected", "--shard", "2/3")
    shard = parse_shard("2/3")
    urls = [url for url in tables_of(csvs).urls() if shard.owns_url(url)]
    target = FolderTarget(tmp_path / "out")
    target.prepare()
    work = ShardWork(target, 3, inputs, FetchOptions(allow_private_hosts=True), cores=1)
    ((number, content),) = work.open()({"number": 2, "urls": urls})
    folders = [shard_folder(tmp_path / name, shard) for name in ("out", "expected")]
    assert {file.name: file.read_bytes() for file in folders[0].iterdir()} == {
        file.name: file.read_bytes() for file in folders[1].iterdir()
    }
    missing = [url for url in urls if url.endswith(("/7.jpg", "/45.jpg"))]
    assert (number, json.loads(content)) == (2, {"http_404": len(missing)} if missing else {})
    # Again, as where its machine was lost after the shard was put: nothing is downloaded.
    requests = server.requests.total()
    assert list(work.open()({"number": 2, "urls": urls})) == [(2, b"{}")]
    assert server.requests.total() == requests


def test_an_error_names_the_shard_and_the_machine(inputs: Inputs, tmp_path: Path) -> None:
    target = FolderTarget(tmp_path / "out")  # which is not prepared: this machine does not see it
    work = ShardWork(target, 4, inputs, FetchOptions(), cores=1)
    with pytest.raises(InputError, match=r"`output_dir` .* is not on this machine .* \(shard 3/4, on .+\)"):
        list(work.open()({"number": 3, "urls": []}))


def test_a_damaged_shard_is_removed_so_that_a_rerun_makes_it_again(
    run: Any, csvs: list[Any], inputs: Inputs, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    for number in (1, 2):
        run(tmp_path / f"machine{number}", output, "--shard", f"{number}/2")
    target, urls = FolderTarget(output), tables_of(csvs).urls()
    assert target.find([Shard(1, 2), Shard(2, 2)], inputs=inputs) == {Shard(1, 2), Shard(2, 2)}
    file = shard_folder(output, Shard(2, 2)) / "images-00000.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(
        InputError, match=r"out: shard 2/2: images-00000\.bin .* it was removed; rerun the same command"
    ):
        collect_shards(target, urls, count=2, inputs=inputs)
    assert target.find([Shard(1, 2), Shard(2, 2)], inputs=inputs) == {Shard(1, 2)}


def test_a_scratch_folder_is_removed_with_those_of_killed_workers_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "product-vqa-shard-killed").mkdir()
    (tmp_path / "product-vqa-shard-killed" / "image").write_bytes(b"x")
    (tmp_path / "somebody-else").mkdir()
    with scratch_folder() as one, scratch_folder() as other:
        assert one != other
        assert {path.name for path in tmp_path.iterdir()} == {one.name, other.name, "somebody-else"}
        descriptor = os.open(one, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
    assert [path.name for path in tmp_path.iterdir()] == ["somebody-else"]


def test_a_machine_without_ray_says_how_to_install_it(csvs: list[Any], tmp_path: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; from dataset_builder.build import main, run; run(main)"
    arguments = [*csvs, "--output_dir", tmp_path / "out", "--engine", "ray"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --engine ray needs Ray")
    assert "pip install '.[ray]'" in done.stderr and done.stderr.count("\n") == 1


# ---- With Ray -------------------------------------------------------------------------------------------------------


@pytest.mark.faults
def test_a_killed_worker_and_a_lost_machine_change_nothing(
    run: Any, csvs: list[Any], server: ImageServer, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    run(tmp_path / "one", tmp_path / "expected")
    output = tmp_path / "out"
    slow_down(server, pause_s=0.5)
    with ray_nodes() as nodes:
        process = start("dataset_builder.build", *csvs, "--output_dir", output, "--engine", "ray", "--ray_address",
                        nodes.address, "--ray_shards", 25, "--connections", 1)  # fmt: skip
        shards = output / "shards"
        wait_until(lambda: shards.is_dir() and len(os.listdir(shards)) > 2, process=process)
        left = 25 - len(os.listdir(shards))
        lose_a_worker_and_a_node(nodes, process=process)
        code, printed = finish(process)
    assert left > 5, "the build was about to end"
    assert code == 0, printed
    assert "raylet" not in printed, "what Ray says about its processes is in its logs"
    assert contents(output) == contents(tmp_path / "expected")
    assert "2 URLs have no image (http_404 2)" in printed
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out"]


@pytest.mark.faults
def test_an_interrupted_build_resumes_at_a_url_and_keeps_its_secrets(
    run: Any, csvs: list[Any], server: ImageServer, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    run(tmp_path / "one", tmp_path / "expected")
    server.requests.clear()
    token = "hf_" + "Zq7" * 12
    with ray_nodes(1) as nodes:
        url = (tmp_path / "bucket").as_uri()
        command = ["dataset_builder.build", *csvs, "--output_dir", tmp_path / "out", "--shards_url", url, "--engine",
                   "ray", "--ray_address", nodes.address, "--ray_shards", 10, "--connections", 1]  # fmt: skip
        fast = slow_down(server, pause_s=1.0)  # on busy cores too, the signal comes before the last shard
        process = start(*command, HF_TOKEN=token)
        wait_until(lambda: len([*tmp_path.glob("bucket/shards/*/shard.json")]) > 2, process=process)
        process.send_signal(signal.SIGINT)
        code, printed = finish(process)
        assert code == 130
        assert printed.splitlines()[-1] == "Interrupted. Rerun the same command to resume."
        done = len([*tmp_path.glob("bucket/shards/*/shard.json")])
        assert 2 < done < 10
        server.answers = fast
        code, printed = run_command(*command, HF_TOKEN=token)
        assert code == 0, printed
        assert grep(token, nodes.folder) == []
        assert token not in printed
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    repeated = sum(number > 1 for number in server.requests.values())
    assert repeated <= 12, "more than the shards that were interrupted"
    assert not (tmp_path / "bucket" / "shards").exists() and not (tmp_path / ".out.shards").exists()


@pytest.mark.faults
def test_shards_meet_on_the_hub_and_the_command_makes_one_commit(
    run: Any, csvs: list[Any], hub: object, tmp_path: Path
) -> None:
    """Ray runs on this machine only, as by default."""
    pytest.importorskip("ray")
    run(tmp_path / "one", tmp_path / "expected")
    HfApi().delete_repo("local/by-ray", repo_type="dataset", missing_ok=True)
    code, printed = run_command(
        "dataset_builder.build", *csvs, "--output_dir", tmp_path / "out", "--engine", "ray", "--ray_shards", 4,
        "--push_to_hub", "--hub_dataset_id", "local/by-ray", RAY_TMPDIR="/tmp",
    )  # fmt: skip
    assert code == 0, printed
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    commits = HfApi().list_repo_commits("local/by-ray", repo_type="dataset")
    assert [commit.title for commit in commits][:1] == ["Build with product-vqa"]
    assert sum(commit.title == "Build with product-vqa" for commit in commits) == 1
    assert [ref.name for ref in HfApi().list_repo_refs("local/by-ray", repo_type="dataset").branches] == ["main"]
    assert "Shards: 100%" in printed and "ray" not in printed.replace(str(tmp_path), "").replace("by-ray", "").lower()


@pytest.mark.faults
def test_shards_meet_at_a_url_of_another_protocol(run: Any, csvs: list[Any], hub: object, tmp_path: Path) -> None:
    """hf:// is a file system of fsspec, over HTTP, whose files processes share."""
    pytest.importorskip("ray")
    run(tmp_path / "one", tmp_path / "expected")
    HfApi().create_repo("local/shards-of-ray", repo_type="dataset", exist_ok=True)
    code, printed = run_command(
        "dataset_builder.build", *csvs, "--output_dir", tmp_path / "out", "--engine", "ray", "--ray_shards", 2,
        "--shards_url", "hf://datasets/local/shards-of-ray/build",
    )  # fmt: skip
    assert code == 0, printed
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    names = HfApi().list_repo_files("local/shards-of-ray", repo_type="dataset")
    assert [name for name in names if "shard" in name] == []


@pytest.mark.faults
def test_no_host_that_answers_ends_the_build_in_one_line(csvs: list[Any], server: ImageServer, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    server.close()
    code, printed = run_command(
        "dataset_builder.build", *csvs, "--output_dir", tmp_path / "out", "--engine", "ray", "--ray_shards", 3
    )
    assert code == 2
    (error,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert re.search(r"\(shard \d/3, on .+\)$", error) and "Traceback" not in printed
    assert not (tmp_path / "out" / "data").exists()
