"""Disks that are too small: said before anything is downloaded, and survived where they fill up all the same."""

import re
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from dataset_builder import disk_space
from dataset_builder.disk_space import Need, check_space, usual_image_bytes
from dataset_builder.downloader import fill
from dataset_builder.image_preparation import prepare_picture
from dataset_builder.image_store import ImageStore
from dataset_builder.options import FetchOptions
from product_vqa.errors import InputError
from tests.commands import in_namespace
from tests.dataset_builder.conftest import TRAIN_COLUMNS, PictureServer, Shop, jpeg, run_here, write_csv

SIZES = re.compile(r"([\d.]+) MB for (\d+) (images|rows) in")


def build(folder: Path, disk: Path, *options: object) -> list[str | Path]:
    return [
        sys.executable, "-m", "dataset_builder.build", "--train_csv", folder / "train.csv", "--allow_private_hosts",
        "--image_store", disk / "store", "--output_dir", disk / "out", "--validation_size", "0", *map(str, options),
    ]  # fmt: skip


def write_train(folder: Path, urls: list[str]) -> Path:
    rows = [[url, 1, "width", f"{number + 1} inch"] for number, url in enumerate(urls)]
    return write_csv(folder / "train.csv", TRAIN_COLUMNS, rows)


@pytest.mark.parametrize(("megabytes", "max_requests"), [(1, 0), (6, 0), (10, 50)])
def test_a_small_disk_is_refused_before_anything_is_stored_and_nothing_is_asked_for_where_it_is_too_small_by_far(
    server: PictureServer, tmp_path: Path, data_dir: Path, megabytes: int, max_requests: int
):
    """144 of the challenge's photographs, which take twice some 6 MB."""
    files = sorted((data_dir / "images" / "test").iterdir())[::4]
    server.answers = {f"/{file.name}": file.read_bytes() for file in files}
    write_train(tmp_path, [f"{server.url}/{file.name}" for file in files])
    (tmp_path / "disk").mkdir()
    done = in_namespace(
        f"mount -t tmpfs -o size={megabytes}m none {tmp_path}/disk",
        ["sh", "-c", '"$@"; code=$?; find "$0" -type f | grep files/ >&2; exit $code', tmp_path / "disk",
         *build(tmp_path, tmp_path / "disk")],
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert server.requests.total() <= max_requests
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: too little disk space: about ")
    assert re.search(rf"and {megabytes - 1}\.\d MB are free there|and {megabytes}\.\d MB are free there", line)
    assert "; choose a folder on another disk (--image_store or --output_dir)" in line
    assert ("--image_size 224, which takes about" in line) == (megabytes == 6)  # at 10 MB a larger one would fit
    expected = sum(len(prepare_picture(file.read_bytes(), image_size=448).data) for file in files) / 1e6
    estimates = {what: (int(number), float(size)) for size, number, what in SIZES.findall(line)}
    assert {what: number for what, (number, _) in estimates.items()} == {"images": len(files), "rows": len(files)}
    for _, estimate in estimates.values():
        assert 0.75 * expected < estimate < 1.25 * expected


@pytest.mark.faults
def test_a_disk_that_fills_up_is_one_line_and_costs_nothing(server: PictureServer, tmp_path: Path):
    """20 images on 2.5 MB, of which those of the sample are small; then on enough."""
    server.answers = {
        f"/{number}.jpg": jpeg(number, size=(640, 640) if number % 4 else (100, 100)) for number in range(20)
    }
    urls = [f"{server.url}/{number}.jpg" for number in range(20)]
    write_train(tmp_path, urls)
    disk = tmp_path / "disk"
    disk.mkdir()
    words = " ".join(map(str, build(tmp_path, disk)))
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


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("full", ["temporary files", "table"])
def test_what_cannot_be_written_is_not_held_against_the_image(
    server: PictureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
):
    server.answers = {f"/{number}.jpg": jpeg(number, size=(640, 640)) for number in range(60)}
    urls = [f"{server.url}/{number}.jpg" for number in range(60)]
    store, options = ImageStore(tmp_path), FetchOptions(connections=4, allow_private_hosts=True)
    if full == "table":
        pages = store._state.execute("PRAGMA page_count").fetchone()[0]
        store._state.execute(f"PRAGMA max_page_count = {pages + 1}")
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    message = r"^--image_store \S+: cannot be written \(.*free some space there"
    with pytest.raises(InputError, match=message) as refusal:
        fill(store, urls, options)
    assert "\n" not in str(refusal.value)
    assert set(store.failures(urls).values()) == {"not_fetched"}
    monkeypatch.undo()
    assert not fill(ImageStore(tmp_path), urls, options)


def test_a_file_that_was_not_written_to_its_end_never_has_its_name(tmp_path: Path):
    store, picture = ImageStore(tmp_path), prepare_picture(jpeg(1, size=(300, 300)), image_size=448)
    assert len(picture.data) > 20_000
    with files_of_at_most(20_000), pytest.raises(OSError, match="File too large"):
        store.save(picture)
    assert {file.suffix for file in tmp_path.glob("files/*/*")} <= {".part"}
    store.save(picture)
    assert next(tmp_path.glob(f"files/*/{picture.sha256}")).read_bytes() == picture.data


@pytest.mark.parametrize(
    ("share", "is_known", "fits"), [(0.9, True, True), (1, True, False), (1.9, False, True), (2.1, False, False)]
)
def test_what_is_known_must_fit_and_a_guess_may_be_wrong_by_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, is_known: bool, fits: bool
):
    leave(monkeypatch, 1e9)
    with nullcontext() if fits else pytest.raises(InputError, match="too little disk space"):
        check_space([Need("9 rows", "--output_dir", tmp_path, share * 1e9)], image_size=448, is_known=is_known)


def test_what_the_store_holds_says_how_much_the_rest_takes(server: PictureServer, tmp_path: Path, caplog):
    server.answers = {f"/{number}.jpg": jpeg(number) for number in range(80)}
    urls = [f"{server.url}/{number}.jpg" for number in range(80)]
    store = ImageStore(tmp_path)
    fill(store, urls[:60], FetchOptions(connections=4, allow_private_hosts=True))
    caplog.set_level("INFO")
    assert disk_space.check_download(store, 1_000_000, [], num_rows=2_000_000, output_dir=tmp_path / "out")
    mean = sum(len(jpeg(number)) for number in range(60)) / 60
    assert (
        f"about {mean / 1e3:.1f} GB for 1000000 images in {tmp_path} and {2 * mean / 1e3:.1f} GB for 2000000 rows"
        in caplog.text
    )


def test_a_sample_decides_where_nothing_is_known_and_is_not_fetched_twice(server: PictureServer, tmp_path: Path):
    server.answers = {f"/{number}.jpg": jpeg(number) for number in range(40)}
    urls = [f"{server.url}/{number}.jpg" for number in range(40)]
    store, asked, options = ImageStore(tmp_path), [], FetchOptions(connections=4, allow_private_hosts=True)

    def check_space(num_images: int, sampled: list[int]) -> bool:
        asked.append((num_images, sorted(sampled)))
        if sampled and len(asked) == 2:
            raise InputError("too little disk space")
        return bool(sampled)

    with pytest.raises(InputError, match="too little disk space"):
        fill(store, urls, options, check_space=check_space)
    expected = sorted(len(jpeg(number)) for number in range(0, 40, 4))
    assert asked == [(40, []), (40, expected)]
    assert server.requests.total() == 10
    assert not list(tmp_path.glob("files/*/*")) and set(store.failures(urls).values()) == {"not_fetched"}
    assert not fill(store, urls, options, check_space=check_space)
    assert server.requests.total() == 50
    assert [store.read(url) for url in urls] == [jpeg(number) for number in range(40)]


def leave(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))


def test_a_folder_of_images_is_measured_before_it_is_built_from(shop: Shop, monkeypatch):
    leave(monkeypatch, 10_000)
    with pytest.raises(InputError, match=r"about 0\.0 MB for 16 rows in .* and 0\.0 MB for 13 images"):
        run_here(monkeypatch, "build", *shop.arguments(), "--output_dir", shop.folder / "out")
    assert not (shop.folder / "out").exists()


@pytest.mark.parametrize(("image_size", "remedy"), [(448, "--image_size 224"), (0, "--image_size 224"), (112, "")])
def test_the_largest_image_size_that_fits_is_named(tmp_path: Path, monkeypatch, image_size: int, remedy: str):
    leave(monkeypatch, 1000 * usual_image_bytes(224) * 1.1)
    num_bytes = 1000 * usual_image_bytes(image_size) if remedy else 4e9
    need = Need("1000 images", "--image_store", tmp_path / "not" / "yet", num_bytes)
    with pytest.raises(InputError) as refusal:
        check_space([need], image_size=image_size)
    assert ("--image_size" in str(refusal.value)) == bool(remedy)
    assert remedy in str(refusal.value)


def test_larger_images_are_expected_to_take_more():
    expected = [usual_image_bytes(size) for size in (32, 100, 224, 300, 448, 896, 2000)]
    assert expected == sorted(expected)
