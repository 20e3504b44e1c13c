"""What will be written is added up for each disk."""

import os
from pathlib import Path

import pytest

from product_vqa.disk_space import Need, by_disk, format_bytes, free_bytes


def test_folders_that_do_not_exist_yet_are_on_the_disk_of_their_parents(tmp_path: Path) -> None:
    (disk,) = by_disk(
        [
            Need("9 rows", "`output_dir`", tmp_path / "new" / "out", 2e9),
            Need("5 images", "`image_store`", tmp_path, 5e6),
        ]
    )
    assert disk.needed == 2_005_000_000
    assert str(disk) == f"2.0 GB for 9 rows in {tmp_path}/new/out and 5.0 MB for 5 images in {tmp_path}"
    assert 0 < disk.free == pytest.approx(free_bytes(tmp_path / "new"), rel=0.05)


def test_each_disk_is_compared_on_its_own(tmp_path: Path) -> None:
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("/dev/shm is not a disk of its own")
    needs = [Need("a", "`x`", tmp_path, 1), Need("b", "`y`", Path("/dev/shm/new"), 2), Need("c", "`x`", tmp_path, 3)]
    assert [[need.what for need in disk.needs] for disk in by_disk(needs)] == [["a", "c"], ["b"]]


def test_sizes_are_decimal() -> None:
    assert (format_bytes(999_000_000), format_bytes(5_912_345_678)) == ("999.0 MB", "5.9 GB")
