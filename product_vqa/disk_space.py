"""Compare what will be written with the free space of the disks."""

import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from product_vqa.errors import InputError

logger = logging.getLogger(__name__)

_MARGIN = 1.02  # for partly filled blocks


@dataclass(frozen=True)
class Need:
    """What will be written to a folder. The folder need not exist yet."""

    what: str  # `346572 images`
    argument: str  # the argument or environment variable that chooses the folder
    folder: Path
    num_bytes: float


@dataclass(frozen=True)
class Disk:
    """What will be written to one file system."""

    needs: list[Need]
    free: int

    @property
    def needed(self) -> float:
        return sum(need.num_bytes for need in self.needs)

    def __str__(self) -> str:
        """`5.9 GB for 346572 images in store and 1.2 GB for 263859 rows in out`"""
        return " and ".join(f"{format_bytes(need.num_bytes)} for {need.what} in {need.folder}" for need in self.needs)


@dataclass(frozen=True)
class DiskPlan:
    """What will be written to disk, and how much of it is downloaded."""

    needs: tuple[Need, ...]
    downloaded: int  # bytes

    def __add__(self, other: "DiskPlan") -> "DiskPlan":
        return DiskPlan(self.needs + other.needs, self.downloaded + other.downloaded)

    def __str__(self) -> str:
        """`Disk space: about 31.1 GB needed, 18.5 GB of it downloaded: base model 5.9 GB, dataset 12.6 GB ...`"""
        total = format_bytes(sum(need.num_bytes for need in self.needs))
        parts = ", ".join(f"{need.what} {format_bytes(need.num_bytes)}" for need in self.needs)
        free = " and ".join(f"{format_bytes(disk.free)} free" for disk in by_disk(self.needs))
        downloaded = f", {format_bytes(self.downloaded)} of it downloaded" if self.downloaded else ""
        return f"Disk space: about {total} needed{downloaded}: {parts}; {free}"

    def announce(self) -> None:
        """Log the plan, if anything will be written, and `check` it."""
        if self.needs:
            logger.info(self)
            self.check()

    def check(self) -> None:
        """Raise InputError, with the remedy, if a disk is too small."""
        for disk in by_disk(self.needs):
            if disk.needed * _MARGIN <= disk.free:
                continue
            arguments = " or ".join(dict.fromkeys(need.argument for need in disk.needs))
            raise InputError(
                f"too little disk space: {disk} needed, but only {format_bytes(disk.free)} free; set {arguments} to a "
                "folder on another disk"
            )


def by_disk(needs: Iterable[Need]) -> list[Disk]:
    """Group needs by the file system of their folders."""
    grouped: defaultdict[int, list[Need]] = defaultdict(list)
    for need in needs:
        grouped[os.stat(_existing(need.folder)).st_dev].append(need)
    return [Disk(on_disk, free_bytes(on_disk[0].folder)) for on_disk in grouped.values()]


def free_bytes(folder: Path) -> int:
    """Return the free space of the file system of a folder, which need not exist yet."""
    return shutil.disk_usage(_existing(folder)).free


def _existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def format_bytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
