"""The engine of a command: the process that was started, or Ray on any number of machines."""

import re
from dataclasses import dataclass, field
from typing import Literal

from product_vqa.errors import InputError

MAX_WORKERS = 9999


@dataclass
class EngineOptions:
    """Where the work is done."""

    engine: Literal["local", "ray"] = field(
        default="local",
        metadata={"help": "local: this process. ray: workers that Ray starts, here or on a cluster (docs/scale.md)."},
    )
    ray_address: str | None = field(
        default=None,
        metadata={
            "help": "With --engine ray: the cluster's head node (HOST:PORT), or auto on a machine of the cluster. "
            "Default: a Ray of its own on this machine."
        },
    )
    ray_workers: int | None = field(
        default=None,
        metadata={
            "help": "With --engine ray: number of workers. Default: what the cluster has when the command begins, one "
            "per core for a build, one per GPU (or else per machine) for a prediction."
        },
    )

    def __post_init__(self) -> None:
        if self.engine == "local":
            for name in self.ray_options:
                if getattr(self, name) is not None:
                    raise InputError(f"`{name}` is for `engine` ray")
        if self.ray_address is not None and not re.fullmatch(
            r"auto|[\w.-]+:\d+|\[[\da-fA-F:]+\]:\d+", self.ray_address
        ):
            raise InputError(
                f"`ray_address` {self.ray_address} must be HOST:PORT or auto. Run this command on a machine of the "
                "cluster: a client of Ray elsewhere (ray://) is not supported"
            )
        if self.ray_workers is not None and not 1 <= self.ray_workers <= MAX_WORKERS:
            raise InputError(f"`ray_workers` must be between 1 and {MAX_WORKERS}, got {self.ray_workers}")

    @property
    def ray_options(self) -> tuple[str, ...]:
        return ("ray_address", "ray_workers")

    @property
    def is_ray(self) -> bool:
        return self.engine == "ray"
