"""A prediction by Ray's workers: each holds the model, on a GPU of its own if there is one, and answers batches.

The command keeps the batches, as it does with its own, so that an interrupted prediction resumes with either engine.
"""

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from inference.batch_predictor import Settings, load_reader, load_rows, predict_batches
from inference.candidate_finder import find_source, make_finder
from inference.dataloader import RowBatches, default_workers
from inference.sources import Sources
from product_vqa.downloads import download_all
from product_vqa.engine import EngineOptions
from product_vqa.errors import InputError, argument
from product_vqa.hub import Location
from product_vqa.modeling.adapter import download_adapter
from product_vqa.modeling.loading import resolve_dtype
from product_vqa.modeling.reader_loading import trained_dtype
from product_vqa.ray_cluster import Cluster

# A worker prepares the images of the next batch while the model answers one, so several batches are one item. That is
# also what a lost worker's successor has to answer again.
MAX_BATCHES_PER_ITEM = 8


@dataclass(frozen=True)
class DtypeWork:
    """Finds the dtype of `auto` on the device that workers have, which this machine may lack."""

    dtype: str
    trained: str | None

    def open(self) -> Callable[[Mapping[str, Any]], Iterable[tuple[int, bytes]]]:
        return self._resolve

    def _resolve(self, item: Mapping[str, Any]) -> Iterator[tuple[int, bytes]]:
        dtype = resolve_dtype(self.dtype, device=_device(), trained=self.trained)
        yield item["number"], str(dtype).removeprefix("torch.").encode()


@dataclass(frozen=True)
class PredictionWork:
    """What a worker does: it loads the rows and the model, as the command found them, and answers batches of rows."""

    dataset: Location
    adapter: Location | None
    adapter_sha256: str | None
    base_model: Location
    settings: Settings
    batch_size: int
    num_workers: int | None  # that decode images for this worker
    workers_per_machine: int
    num_threads: int | None  # None: what OMP_NUM_THREADS says

    @classmethod
    def of(cls, sources: Sources, cluster: Cluster, *, workers: int, **options: Any) -> "PredictionWork":
        adapter = sources.adapter
        is_set = "OMP_NUM_THREADS" in os.environ  # Ray itself sets it to 1 in its workers
        return cls(
            _absolute(sources.dataset),
            None if adapter is None else _absolute(adapter.location),
            None if adapter is None else adapter.sha256,
            _absolute(sources.base_model),
            workers_per_machine=-(-workers // max(1, cluster.machines)),
            num_threads=None if is_set else max(1, cluster.cpus // workers),
            **options,
        )

    def open(self) -> Callable[[Mapping[str, Any]], Iterable[tuple[int, bytes]]]:
        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        adapter = None
        if self.adapter is not None:
            with argument("adapter"):
                adapter = download_adapter(_here(self.adapter))
                if adapter.sha256 != self.adapter_sha256:
                    raise InputError(f"{self.adapter}: has another content on {platform.node()}")
        with argument("dataset"):
            dataset = _here(self.dataset)
        with argument("base_model"):
            sources = Sources(dataset, adapter, _here(self.base_model))
        download_all(base_model=sources.base_model, dataset=sources.dataset, split=self.settings.split)
        rows = load_rows(sources.dataset, self.settings)
        reader = load_reader(sources, self.settings, device=_device())
        source = find_source(
            self.settings.ground, calibration=reader.calibration, constrain=self.settings.constrain,
            dataset=sources.dataset, split=self.settings.split, rows=rows, warns=False,
        )  # fmt: skip
        batches = RowBatches(
            rows, processor=reader.processor, batch_size=self.batch_size, schema=reader.schema,
            finder=make_finder(source, reader),
        )  # fmt: skip
        num_workers = self.num_workers
        if num_workers is None:
            num_workers = default_workers(reader.model.device, num_processes=self.workers_per_machine)

        def answer(item: Mapping[str, Any]) -> Iterator[tuple[int, bytes]]:
            tables = predict_batches(
                reader, batches, item["numbers"], num_workers=num_workers, min_confidence=self.settings.min_confidence
            )
            for number, table in tables:
                yield number, _to_bytes(table)

        return answer


def count_workers(cluster: Cluster, engine: EngineOptions) -> int:
    """One per GPU; without GPUs one per machine, which uses all of its cores."""
    return engine.ray_workers or cluster.gpus or cluster.machines


def find_dtype(cluster: Cluster, sources: Sources, settings: Settings) -> str:
    """The name of the dtype that all workers will use."""
    if settings.dtype != "auto":
        return settings.dtype
    work = DtypeWork(settings.dtype, trained_dtype(sources.adapter, sources.base_model))
    ((_, name, _),) = cluster.run(work, [{"number": 0}], workers=1, gpus_per_worker=min(1, cluster.gpus))
    return name.decode()


def predict_on_cluster(
    cluster: Cluster, work: PredictionWork, missing: Sequence[int], indexes: Sequence[Sequence[int]], *, workers: int
) -> Iterator[tuple[int, pa.Table]]:
    """Give the predictions of the missing batches, in any order. Raises InputError if a worker has other rows."""
    size = max(1, min(MAX_BATCHES_PER_ITEM, len(missing) // (8 * workers)))
    items = [{"numbers": list(missing[start : start + size])} for start in range(0, len(missing), size)]
    for number, content, machine in cluster.run(work, items, workers=workers, gpus_per_worker=min(1, cluster.gpus)):
        table = _from_bytes(content)
        if table["index"].to_pylist() != list(indexes[number]):
            raise InputError(f"`dataset` {work.dataset}: has other rows on {machine} than here; use the same content")
        yield number, table


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _absolute(location: Location) -> Location:
    """A folder by its complete path: the working directory of workers is another one."""
    return location if location.folder is None else Location(str(location.folder.resolve()))


def _here(location: Location) -> Location:
    """Raises InputError for a folder that this machine does not have."""
    folder = location.folder
    if folder is not None and not Path(folder).is_dir():
        raise InputError(
            f"{folder}: no such folder on {platform.node()}; use a folder that all machines see, or a repo of the Hub"
        )
    return location


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_bytes(content: bytes) -> pa.Table:
    with pa.ipc.open_stream(content) as reader:
        return reader.read_all()
