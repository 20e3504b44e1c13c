"""Predictions by Ray's workers are those of one process, whichever worker or machine is lost."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from benchmarks.ray_nodes import ray_nodes
from inference import predict, ray_prediction
from inference.batch_predictor import Settings
from inference.ray_prediction import DtypeWork, PredictionWork, count_workers, predict_on_cluster
from inference.sources import Sources, find_sources
from product_vqa.engine import EngineOptions
from product_vqa.errors import InputError
from product_vqa.hub import Location
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.reader_loading import describe_reader
from product_vqa.ray_cluster import Cluster
from product_vqa.row_selection import ALL_ROWS
from tests.commands import call
from tests.inference.runs import interrupt
from tests.ray_clusters import finish, lose_a_worker_and_a_node, run, start, wait_until
from tests.tiny import save_dataset

SETTINGS = Settings("test", ALL_ROWS, "float32", None, "on", allow_empty=False, num_beams=1, min_confidence=0.0)
HERE = Cluster(cpus=2, gpus=0, machines=1)


def make_work(sources: Sources, **changes: Any) -> PredictionWork:
    options: dict[str, Any] = {"settings": SETTINGS, "batch_size": 4, "num_workers": None}
    return PredictionWork.of(sources, HERE, workers=1, **options | changes)


class WorkerHere(Cluster):
    """A cluster whose only worker is this process."""

    def run(self, work: Any, items: Any, *, workers: int, gpus_per_worker: int = 0) -> Any:
        answer = work.open()
        for item in items:
            for number, content in answer(item):
                yield number, content, "here"


# ---- Without Ray ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard", "1/2"], "--engine ray shares the batches by itself: drop --shard and --merge"),
        (["--merge", "2"], "--engine ray shares the batches by itself: drop --shard and --merge"),
        ([], "--engine ray needs --batch_size"),
    ],
)
def test_options_that_a_prediction_by_ray_does_not_have_are_named(
    more: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_size = ["--batch_size", "4"] if more else []
    with pytest.raises(InputError, match=message):
        call(predict.main, monkeypatch, "--dataset", "d", "--base_model", "b", "--output", tmp_path / "s.csv",
             "--engine", "ray", *batch_size, *more)  # fmt: skip


def test_several_processes_of_a_launch_do_not_start_ray_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        InputError, match=r"--engine ray starts the workers: run `python -m inference.predict` instead"
    ):
        call(predict.main, monkeypatch, "--dataset", "d", "--base_model", "b", "--output", tmp_path / "s.csv",
             "--engine", "ray", "--batch_size", 4)  # fmt: skip


def test_a_worker_has_a_gpu_or_a_machine_unless_asked_otherwise() -> None:
    assert count_workers(Cluster(cpus=64, gpus=8, machines=2), EngineOptions("ray")) == 8
    assert count_workers(Cluster(cpus=64, gpus=0, machines=2), EngineOptions("ray")) == 2
    assert count_workers(Cluster(cpus=64, gpus=8, machines=2), EngineOptions("ray", ray_workers=3)) == 3


def test_auto_is_the_dtype_of_the_device_that_workers_have() -> None:
    ((number, name),) = DtypeWork("auto", "float32").open()({"number": 0})
    assert (number, name) == (0, b"float32")
    ((_, name),) = DtypeWork("float16", None).open()({"number": 0})
    assert name == b"float16"


@pytest.mark.slow
def test_what_would_be_loaded_is_described_without_loading_it(
    adapter: tuple[str, Any], tiny_repos: tuple[str, str]
) -> None:
    sources = find_sources(tiny_repos[1], adapter=adapter[0], base_model=None)
    for load_in_4bit in (None, False, True):
        reader = AttributeReader.from_pretrained(
            sources.adapter, base_model=sources.base_model, dtype="float32", load_in_4bit=load_in_4bit
        )
        described = describe_reader(
            sources.adapter, sources.base_model, dtype="torch.float32", load_in_4bit=load_in_4bit, schema=None
        )
        assert described == reader.provenance


@pytest.mark.slow
def test_a_worker_answers_like_the_command(
    adapter: tuple[str, Any], tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter, the base model and the rows are from the Hub, at the commits that the command found."""
    call(predict.main, monkeypatch, "--adapter", adapter[0], "--dataset", tiny_repos[1], "--dtype", "float32",
         "--batch_size", 4, "--output", tmp_path / "s.csv")  # fmt: skip
    expected = pq.read_table(tmp_path / "s.parquet")
    sources = find_sources(tiny_repos[1], adapter=adapter[0], base_model=None)
    indexes = [expected["index"].to_pylist()[start : start + 4] for start in range(0, 11, 4)]
    found = dict(predict_on_cluster(WorkerHere(2, 0, 1), make_work(sources), [0, 1, 2], indexes, workers=1))
    assert [row for number in range(3) for row in found[number].to_pylist()] == expected.to_pylist()


@pytest.mark.slow
def test_a_worker_with_other_rows_is_refused(tiny_base: Path, tiny_dataset: Path) -> None:
    sources = find_sources(str(tiny_dataset), adapter=None, base_model=str(tiny_base))
    with pytest.raises(InputError, match=r"`dataset` .*: has other rows on here than here"):
        list(predict_on_cluster(WorkerHere(2, 0, 1), make_work(sources), [0], [[1, 2, 3, 4]], workers=1))


@pytest.mark.slow
def test_a_worker_with_another_adapter_is_refused(
    adapter_folder: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(adapter_folder, tmp_path / "adapter")
    sources = find_sources(str(tiny_dataset), adapter=str(folder), base_model=str(tiny_base))
    work = make_work(sources)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] + 1}))
    with pytest.raises(InputError, match=r"`adapter` .*adapter: has another content on"):
        work.open()


def test_a_folder_that_a_machine_does_not_see_is_named(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers have another working directory: folders reach them as complete paths."""
    monkeypatch.chdir(tiny_base.parent)
    sources = Sources(Location(str(tiny_dataset)), None, Location(tiny_base.name))
    work = make_work(sources)
    monkeypatch.chdir(tmp_path)
    assert work.base_model == Location(str(tiny_base.resolve()))
    missing = replace(work, base_model=Location(str(tmp_path / "nothing")))
    with pytest.raises(
        InputError, match=r"`base_model` .*nothing: no such folder on .*; use a folder that all machines"
    ):
        missing.open()


def test_threads_are_shared_by_the_workers_of_a_machine(
    tiny_base: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Sources(Location(str(tiny_dataset)), None, Location(str(tiny_base)))
    options: dict[str, Any] = {"settings": SETTINGS, "batch_size": 4, "num_workers": None}
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    work = PredictionWork.of(sources, Cluster(cpus=64, gpus=0, machines=2), workers=4, **options)
    assert (work.num_threads, work.workers_per_machine) == (16, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert PredictionWork.of(sources, HERE, workers=4, **options).num_threads is None


def test_items_are_small_enough_for_all_workers_and_large_enough_to_prepare_ahead() -> None:
    class Counting(Cluster):
        def run(self, work: Any, items: Any, *, workers: int, gpus_per_worker: int = 0) -> Any:
            sizes.extend(len(item["numbers"]) for item in items)
            return iter(())

    for missing, workers, expected in ((3, 2, {1}), (64, 2, {4}), (4000, 4, {8})):
        sizes: list[int] = []
        list(predict_on_cluster(Counting(2, 0, 1), None, range(missing), [], workers=workers))  # type: ignore[arg-type]
        assert set(sizes) == expected and sum(sizes) == missing
    assert ray_prediction.MAX_BATCHES_PER_ITEM == 8 and torch.get_num_threads() >= 1


# ---- With Ray -------------------------------------------------------------------------------------------------------


@pytest.mark.faults
def test_a_killed_worker_and_a_lost_machine_change_nothing(tiny_base: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    dataset = save_dataset(tmp_path / "dataset", test=240)
    options = ["--base_model", tiny_base, "--dataset", dataset, "--batch_size", 4, "--dtype", "float32"]
    code, printed = run("inference.predict", *options, "--output", tmp_path / "one.csv")
    assert code == 0, printed
    with ray_nodes() as nodes:
        output = tmp_path / "ray.csv"
        process = start("inference.predict", *options, "--output", output, "--engine", "ray", "--ray_address",
                        nodes.address, "--ray_workers", 2)  # fmt: skip
        batches = output.with_suffix(".parts")
        wait_until(lambda: len([*batches.glob("*.parquet")]) > 2, process=process)
        left = 60 - len([*batches.glob("*.parquet")])
        lose_a_worker_and_a_node(nodes, process=process)
        code, printed = finish(process)
    assert left > 10, "the prediction was about to end"
    assert code == 0, printed
    assert "raylet" not in printed, "what Ray says about its processes is in its logs"
    assert output.read_bytes() == (tmp_path / "one.csv").read_bytes()
    one, other = (pq.read_table(tmp_path / name) for name in ("one.parquet", "ray.parquet"))
    assert one.equals(other, check_metadata=True)
    assert not batches.exists()


@pytest.mark.faults
def test_ray_resumes_what_the_local_engine_began(
    adapter: tuple[str, Any], tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the Hub, with a dtype that the worker chooses, and workers of its own that decode images."""
    pytest.importorskip("ray")
    options = ["--adapter", adapter[0], "--dataset", tiny_repos[1], "--batch_size", 2]
    code, printed = run("inference.predict", *options, "--output", tmp_path / "one.csv")
    assert code == 0, printed
    interrupt(monkeypatch, [*options, "--output", tmp_path / "s.csv"], after=2)
    assert len([*(tmp_path / "s.parts").glob("*.parquet")]) == 2
    code, printed = run("inference.predict", *options, "--output", tmp_path / "s.csv", "--engine", "ray",
                        "--dataloader_num_workers", 1)  # fmt: skip
    assert code == 0, printed
    assert "batches: 100%" in printed and "4/4" in printed
    one, other = (pq.read_table(tmp_path / name) for name in ("one.parquet", "s.parquet"))
    assert one.equals(other, check_metadata=True)
