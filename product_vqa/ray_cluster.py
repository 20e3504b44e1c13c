"""Ray schedules the work of a command on its workers: items go out, results come back as they are ready.

Ray does what it does well: it starts workers on the machines of a cluster, notices when one is lost, starts another,
and gives it the lost item again. What an item is, and what is done with it, is this project's own (`ray_workers`).
"""

import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from huggingface_hub import get_token

from product_vqa.engine import EngineOptions
from product_vqa.errors import InputError, first_line
from product_vqa.ray_workers import ITEM, Attempts, Token, Work, Worker, describe_environment

# Settings of libraries that workers on other machines get too. None of them is a secret: Ray writes them to its logs.
_FORWARDED = (
    "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
)  # fmt: skip
_WORKER_ENVIRONMENT = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # nobody sees them
# Of the items and results that are on their way; Ray's default is a third of the memory.
_OBJECT_STORE_BYTES = 256 * 1024**2
_ANSWER_TIMEOUT_S = 10
_HTTP2_SETTINGS = 4  # the type of a frame
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _HTTP2_SETTINGS, 0, 0, 0, 0, 0])  # RFC 9113, 3.4
# A worker that does nothing else shares its core with Ray's own work. With a whole one for each, two workers on two
# cores waited for ever.
_CPUS_PER_WORKER = 0.5


@dataclass(frozen=True)
class Cluster:
    """A Ray that this process is connected to."""

    cpus: int
    gpus: int
    machines: int

    def run(
        self, work: Work, items: Sequence[dict[str, Any]], *, workers: int, gpus_per_worker: int = 0
    ) -> Iterator[tuple[int, bytes, str]]:
        """Do all items on so many workers; gives (number, content, machine) of the results, in any order.

        An item whose worker or machine is lost is done again by another one. Raises InputError for the first item that
        fails, and then drops the others.
        """
        import ray
        from ray.data import ActorPoolStrategy, from_items
        from ray.exceptions import RayError

        if not items:
            return
        workers = min(workers, len(items))
        counter = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()
        arguments = {
            "work": work,
            "environment": describe_environment(),
            "token": Token(get_token()),
            "count_attempt": _CountAttempt(counter),
        }
        rows = [{ITEM: number, **item} for number, item in enumerate(items)]
        # Each item is a block: or else a worker would get several, up to all of them.
        results = from_items(rows, override_num_blocks=len(rows)).map_batches(
            Worker,
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            fn_constructor_kwargs=arguments,
            num_cpus=_CPUS_PER_WORKER,
            num_gpus=gpus_per_worker,
        )
        try:
            for result in results.iter_rows():
                if result["traceback"] is not None:
                    raise RuntimeError(f"a worker on {result['node']} failed:\n{result['traceback']}")
                if result["error"] is not None:
                    raise InputError(result["error"])
                yield result["number"], result["content"], result["node"]
        except RayError as error:
            raise InputError(_explain(error)) from error


@dataclass(frozen=True)
class _CountAttempt:
    """Count an attempt at an item, from any worker."""

    counter: Any  # the actor of Ray that has the Attempts

    def __call__(self, item: int) -> int:
        import ray

        return ray.get(self.counter.add.remote(item))


@contextmanager
def connect(options: EngineOptions) -> Iterator[Cluster]:
    """Connect to the cluster of the options, or start a Ray on this machine, until the block ends.

    Raises InputError if Ray is not installed, no cluster answers, or it is of another version.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # It would print about each worker that is replaced.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            f"`engine` ray needs Ray ({first_line(error)}): pip install '.[ray]', or `make ray` in a checkout"
        ) from error

    forwarded = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    settings: dict[str, Any] = {
        "runtime_env": {"env_vars": forwarded | _WORKER_ENVIRONMENT},
        "log_to_driver": False,  # errors come as results
        "logging_level": logging.ERROR,
    }
    if options.ray_address is None:
        settings |= {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    else:
        _check_address(options.ray_address)
        settings["address"] = options.ray_address
    try:
        with _without_stderr():
            ray.init(**settings)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"`ray_address` {options.ray_address or '(a local Ray)'}: {_first_lines(error)}") from error
    try:
        _silence(ray.data)
        resources = ray.cluster_resources()
        # Not a head that is there to schedule only.
        machines = sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())
        cluster = Cluster(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)), machines)
        if cluster.cpus < 1:
            raise InputError(
                f"`ray_address` {options.ray_address}: no machine with CPUs has joined yet (`ray status`)"
            )
        yield cluster
    finally:
        ray.shutdown()


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Keep away what Ray prints while it starts, below Python: what goes wrong is raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _check_address(address: str) -> None:
    """Raise InputError at once where no cluster answers: Ray would wait for minutes, and not for SIGINT.

    Ray speaks gRPC, whose server answers a new connection with its settings for HTTP/2. With TLS that is not seen.
    """
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return
            connection.sendall(_HTTP2_HELLO)
            head = connection.recv(9)
            if len(head) < 4 or head[3] != _HTTP2_SETTINGS:
                raise ConnectionError("what listens there is not Ray")
    except (OSError, OverflowError) as error:
        raise InputError(
            f"`ray_address` {address}: no cluster answers ({first_line(error)}); `ray start --head` starts one and "
            "prints its address"
        ) from error


def _silence(ray_data: Any) -> None:
    """Leave the console to the command: Ray Data's lines are in the logs of the session."""
    ray_data.DataContext.get_current().enable_progress_bars = False
    logger = logging.getLogger("ray.data")
    for handler in [*logger.handlers]:
        if isinstance(handler, logging.StreamHandler):
            logger.removeHandler(handler)


def _explain(error: Exception) -> str:
    """The first cause among the pages of an error of Ray."""
    text = str(error)
    if "No module named 'product_vqa'" in text or "No module named 'dataset_builder'" in text:
        return "`ray_address`: a machine of the cluster lacks this package; install the same version on all of them"
    return f"Ray: {_first_lines(error)}"


def _first_lines(error: BaseException) -> str:
    """An error of Ray as one line."""
    return " ".join(str(error).split())[:500] or type(error).__name__
