"""Disks that are too small: reported before anything is downloaded, and survived if they fill up all the same."""

import re
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from dataset_builder import build, disk_space
from dataset_builder.disk_space import check_space, usual_image_bytes
from dataset_builder.downloader import download
from dataset_builder.image_preparation import prepare_image
from dataset_builder.image_store import ImageStore
from dataset_builder.options import FetchOptions
from product_vqa.disk_space import Need
from product_vqa.errors import InputError
from tests.commands import call, in_namespace
from tests.dataset_builder.files import Shop, jpeg, write_train_csv
from tests.dataset_builder.image_server import ImageServer

SIZES = re.compile(r"([\d.]+) MB for (\d+) (images|rows) in")


def build_command(folder: Path, disk: Path, *options: object) -> list[str | Path]:
    return [
        sys.executable, "-m", "dataset_builder.build", "--train_csv", folder / "train.csv", "--allow_private_hosts",
        "--image_store", disk / "store", "--output_dir", disk / "out", "--validation_size", "0", *map(str, options),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("megabytes", "max_requests"), [(1, 0), (6, 0), (10, 50)])
def test_a_small_disk_is_refused_before_anything_is_stored_and_nothing_is_asked_for_where_it_is_too_small_by_far(
    server: ImageServer, tmp_path: Path, data_dir: Path, megabytes: int, max_requests: int
) -> None:
    """144 of the challenge's images, which take twice some 6 MB."""
    files = sorted((data_dir / "images" / "test").iterdir())[::4]
    server.answers = {f"/{file.name}": file.read_bytes() for file in files}
    write_train_csv(tmp_path / "train.csv", [f"{server.url}/{file.name}" for file in files])
    (tmp_path / "disk").mkdir()
    done = in_namespace(
        f"mount -t tmpfs -o size={megabytes}m none {tmp_path}/disk",
        ["sh", "-c", '"$@"; code=$?; find "$0" -type f | grep files/ >&2; exit $code', tmp_path / "disk",
         *build_command(tmp_path, tmp_path / "disk")],
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert server.requests.total() <= max_requests
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: too little disk space: about ")
    assert re.search(rf"but only ({megabytes - 1}|{megabytes})\.\d MB free", line)
    assert "; choose a folder on another disk (--image_store or --output_dir)" in line
    assert ("use --image_size 224, which needs about" in line) == (megabytes == 6)  # at 10 MB a larger one would fit
    expected = sum(len(prepare_image(file.read_bytes(), image_size=448).data) for file in files) / 1e6
    estimates = {what: (int(number), float(size)) for size, number, what in SIZES.findall(line)}
    assert {what: number for what, (number, _) in estimates.items()} == {"images": len(files), "rows": len(files)}
    for _, estimate in estimates.values():
        assert 0.75 * expected < estimate < 1.25 * expected


@pytest.mark.faults
def test_a_disk_that_fills_up_is_one_line_and_costs_nothing(server: ImageServer, tmp_path: Path) -> None:
    """20 images on 2.5 MB, of which those of the sample are small; then on enough."""
    server.answers = {
        f"/{number}.jpg": jpeg(number, size=(640, 640) if number % 4 else (100, 100)) for number in range(20)
    }
    urls = [f"{server.url}/{number}.jpg" for number in range(20)]
    write_train_csv(tmp_path / "train.csv", urls)
    disk = tmp_path / "disk"
    disk.mkdir()
    words = " ".join(map(str, build_command(tmp_path, disk)))
    done = in_namespace(
        f"""mount -t tmpfs -o size=2500k none {disk}
        {words} || echo "exit $?"
        mount -o remount,size=40m {disk}
        {words} || echo "exit $?"
        cp {disk}/store/failed.csv {tmp_path}""",
        ["true"],
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("exit")] == ["exit 2"]
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(r"--image_store \S+: cannot be written \(.*(No space left|full).*\); free some space", error)
    assert "Traceback" not in done.stderr
    assert "train: 20 rows" in done.stdout
    assert len((tmp_path / "failed.csv").read_text().splitlines()) == 1
    assert server.requests.total() < 2 * 20  # what was stored before the disk was full was not fetched again


@pytest.mark.parametrize(
    ("share", "is_known", "fits"), [(0.9, True, True), (1, True, False), (1.9, False, True), (2.1, False, False)]
)
def test_what_is_known_must_fit_and_a_guess_may_be_wrong_by_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, is_known: bool, fits: bool
) -> None:
    leave(monkeypatch, 1e9)
    with nullcontext() if fits else pytest.raises(InputError, match="too little disk space"):
        check_space([Need("9 rows", "output_dir", tmp_path, share * 1e9)], image_size=448, is_known=is_known)


def test_what_the_store_holds_says_how_much_the_rest_takes(
    server: ImageServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = {f"/{number}.jpg": jpeg(number) for number in range(80)}
    urls = [f"{server.url}/{number}.jpg" for number in range(80)]
    store = ImageStore(tmp_path)
    download(store, urls[:60], FetchOptions(connections=4, allow_private_hosts=True))
    caplog.set_level("INFO")
    assert disk_space.check_download(store, 1_000_000, [], num_rows=2_000_000, output_dir=tmp_path / "out")
    mean = sum(len(jpeg(number)) for number in range(60)) / 60
    assert (
        f"about {mean / 1e3:.1f} GB for 1000000 images in {tmp_path} and {2 * mean / 1e3:.1f} GB for 2000000 rows"
        in caplog.text
    )


def leave(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))


def test_a_folder_of_images_is_measured_before_it_is_built_from(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 10_000)
    with pytest.raises(InputError, match=r"about 0\.0 MB for 16 rows in .* and 0\.0 MB for 13 images"):
        call(build.main, monkeypatch, *shop.arguments(), "--output_dir", shop.folder / "out")
    assert not (shop.folder / "out").exists()


@pytest.mark.parametrize(
    ("image_size", "remedy"), [(448, "use `image_size` 224"), (0, "use `image_size` 224"), (112, "")]
)
def test_the_largest_image_size_that_fits_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_size: int, remedy: str
) -> None:
    leave(monkeypatch, 1000 * usual_image_bytes(224) * 1.1)
    num_bytes = 1000 * usual_image_bytes(image_size) if remedy else 4e9
    need = Need("1000 images", "image_store", tmp_path / "not" / "yet", num_bytes)
    with pytest.raises(InputError) as refusal:
        check_space([need], image_size=image_size)
    assert ("use `image_size`" in str(refusal.value)) == bool(remedy)
    assert remedy in str(refusal.value)


def test_larger_images_are_expected_to_take_more() -> None:
    expected = [usual_image_bytes(size) for size in (32, 100, 224, 300, 448, 896, 2000)]
    assert expected == sorted(expected)
