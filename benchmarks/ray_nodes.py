"""A Ray cluster on this machine, whose workers are killed and whose nodes come and go."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil


class RayNodes:
    """A head node and others, with one CPU each and these variables. Their logs are in `folder`."""

    def __init__(self, count: int, **environment: str) -> None:
        from ray.cluster_utils import Cluster

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # a short name: that of a socket has at most 107 bytes
        self._node: dict[str, Any] = {
            "num_cpus": 1,
            "object_store_memory": 100 * 1024**2,
            "env_vars": environment or None,
        }
        head = {**self._node, "include_dashboard": False, "temp_dir": str(self.folder)}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self._nodes: list[Any] = [self._cluster.head_node]
        for _ in range(count - 1):
            self.add()

    def add(self) -> None:
        self._nodes.append(self._cluster.add_node(**self._node))

    def remove(self, number: int) -> None:
        """Kill all processes of a node; the head is number 0."""
        self._cluster.remove_node(self._nodes.pop(number), allow_graceful=False)

    def workers(self, number: int) -> list[psutil.Process]:
        """The processes of a node that do a command's work now."""
        raylet = psutil.Process(self._nodes[number].all_processes["raylet"][0].process.pid)
        return [child for child in raylet.children(recursive=True) if "MapWorker" in " ".join(child.cmdline())]

    def kill_worker(self, number: int) -> bool:
        """SIGKILL a worker of a node; returns whether there was one."""
        workers = self.workers(number)
        if workers:
            os.kill(workers[0].pid, signal.SIGKILL)
        return bool(workers)

    def close(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def ray_nodes(count: int = 2) -> Iterator[RayNodes]:
    nodes = RayNodes(count)
    try:
        yield nodes
    finally:
        nodes.close()
