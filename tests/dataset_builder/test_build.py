import csv
import json
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from dataset_builder import build
from dataset_builder.downloader import download
from dataset_builder.image_store import ImageStore
from dataset_builder.options import FetchOptions
from dataset_builder.output_folder import temporary_folder
from product_vqa.atomic_io import one_writer
from product_vqa.errors import InputError
from tests.commands import call, run_here, run_module
from tests.dataset_builder.files import (
    READ_ELSEWHERE,
    TRAIN_COLUMNS,
    Shop,
    jpeg,
    run_elsewhere,
    write_csv,
    write_train_csv,
)
from tests.dataset_builder.image_server import ImageServer, closed_port

OPTIONS = FetchOptions(connections=4, allow_private_hosts=True)


def store_arguments(folder: Path) -> list[str | Path]:
    return ["--train_csv", folder / "train.csv", "--image_store", folder / "store", "--allow_private_hosts"]


@pytest.mark.slow
def test_a_built_folder_is_a_dataset_to_everyone(shop: Shop) -> None:
    folder = shop.folder / "out"
    (shop.folder / "build.yaml").write_text(f"output_dir: {folder}\nvalidation_size: 0.25\nseed: 3\n")
    config = shop.folder / "build.yaml"
    done = run_module("dataset_builder.build", "--config", config, *shop.arguments())
    assert "test: 4 rows" in done.stdout
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "README.md",
        "build.json",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
        "left_out.csv",
        "rows/test.parquet",
        "rows/train.parquet",
        "rows/validation.parquet",
    ]
    assert not list(shop.folder.glob(".*"))
    assert 'load_dataset("out")' in (folder / "README.md").read_text()

    *splits, kinds = run_elsewhere(READ_ELSEWHERE, folder, cwd=shop.folder)
    assert kinds == "int64 Image"
    assert splits[0::2] == splits[1::2]  # loaded and streamed
    assert splits[-1] == "test|7:(48, 32):|3:(48, 32):|11:(48, 32):|12:(48, 32):"
    labelled = [row for split in splits[0:4:2] for row in split.split("|")[1:]]
    assert len(labelled) == 11
    assert "11:(48, 32):2.5 inch" in labelled

    # The same again: nothing is generated, and the card follows the repo's name.
    before = (folder / "data" / "train-00000-of-00001.parquet").stat().st_mtime_ns
    again = run_here("dataset_builder.build", "--config", config, *shop.arguments(), "--hub_dataset_id", "a/b")
    assert again.stdout == f"unchanged: {folder}\n"
    assert (folder / "data" / "train-00000-of-00001.parquet").stat().st_mtime_ns == before
    assert 'load_dataset("a/b")' in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--license", "MIT"], "--license MIT is not a license identifier of the Hub"),
        (["--license", "my license"], "--license my license is not a license identifier"),
        (["--license", "other"], "--license other and --license_name NAME must be used together"),
        (["--license", "mit", "--license_name", "x"], "--license other and --license_name NAME must be used together"),
        (["--license_name", "x"], "--license other and --license_name NAME must be used together"),
    ],
)
def test_a_license_that_the_hub_would_not_know_is_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, options: list[str], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        call(build.main, monkeypatch, *shop.arguments(), "--output_dir", shop.folder / "out", *options)
    assert not (shop.folder / "out").exists()


def test_a_store_is_filled_as_needed(server: ImageServer, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, image in shop.images.items():
        server.answers["/" + url.rsplit("/", 1)[-1]] = image
    rows: list[list[object]] = [
        [f"{server.url}/{str(url).rpartition('/')[2]}", *others] for url, *others in shop.train_rows
    ]
    rows.append([server.url + "/gone.jpg", "g", "width", "1 inch"])
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    stored: list[str | Path] = ["--image_store", shop.folder / "store", "--allow_private_hosts"]
    call(build.main, monkeypatch, "--train_csv", shop.train_csv, *stored, "--output_dir", shop.folder / "out")
    assert json.loads((shop.folder / "out" / "build.json").read_text())["rows_left_out"] == {
        "range_brackets": 1,
        "http_404": 1,
    }
    assert server.requests.total() == 11  # ten images and the one that is gone, each once


@pytest.mark.slow
def test_the_splits_are_the_same_whatever_port_serves_the_images_and_wherever_they_are_stored(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    for number in range(3):
        server, folder = ImageServer(), shop.folder / f"elsewhere{number}"
        folder.mkdir()
        server.answers |= {f"/{number}.jpg": jpeg(number) for number in range(40)}
        write_train_csv(folder / "train.csv", [f"{server.url}/{number}.jpg" for number in range(40)])
        options: list[str | Path] = ["--validation_size", "0.3", "--output_dir", folder / "out"]
        call(build.main, monkeypatch, *store_arguments(folder), *options)
        server.close()
        built.append(
            {
                split: pq.read_table(folder / "out" / "data" / f"{split}-00000-of-00001.parquet")
                .drop_columns("image_link")
                .to_pylist()
                for split in ("train", "validation")
            }
        )
    assert len(built[0]["validation"]) == 12
    assert built[0] == built[1] == built[2]


REFUSED = [
    (["--train_csv", "nowhere.csv"], "--train_csv nowhere.csv: no such file"),
    (["--image_store", "store"], "exactly one source of images"),
    (["--push_to_hub"], "--hub_dataset_id user/name"),
    (["--validation_size", "2"], "--validation_size must be"),
    (["--output_dir", "train.csv"], "train.csv: is a file"),
    (["--output_dir", "images"], "contains files that are not an earlier build"),
    (["--output_dir", "train.csv/out"], "cannot be created"),
    (["--image_dri", "images"], "unknown option --image_dri (did you mean --image_dir?)"),
    (["--config", "wrong.yaml"], "unknown key validaton_size (did you mean --validation_size?)"),
    (["--connections", "0"], "--connections must be between 1 and 256"),
]


@pytest.mark.parametrize(("arguments", "complaint"), REFUSED, ids=[case[-1] for case in REFUSED])
def test_wrong_input_is_refused_and_leaves_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    monkeypatch.chdir(shop.folder)
    Path("wrong.yaml").write_text("validaton_size: 0.1\n")
    before = sorted(shop.folder.rglob("*"))
    with pytest.raises(InputError) as refusal:
        call(build.main, monkeypatch, *shop.arguments(), "--output_dir", "out", *arguments)
    assert complaint in str(refusal.value)
    assert sorted(shop.folder.rglob("*")) == before


def test_a_build_that_fails_leaves_the_earlier_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shop.folder / "out"
    call(build.main, monkeypatch, *shop.arguments(), "--output_dir", folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    (shop.folder / "empty").mkdir()
    with pytest.raises(InputError, match="none of the 13 images could be loaded"):
        call(build.main, monkeypatch, *shop.arguments(), "--output_dir", folder, "--image_dir", shop.folder / "empty")
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert not list(shop.folder.glob(".*"))

    # A build that succeeds takes its place.
    call(build.main, monkeypatch, *shop.arguments()[2:], "--output_dir", folder)
    assert sorted(file.name for file in (folder / "data").iterdir()) == ["test-00000-of-00001.parquet"]


def test_a_second_build_into_one_folder_is_one_line_and_leaves_the_first_alone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shop.folder / "out"
    with temporary_folder(folder) as first, one_writer(folder, argument="output_dir"):
        (first / "half").touch()
        with pytest.raises(InputError, match=rf"^--output_dir {folder}: another process is writing it; wait until"):
            call(build.main, monkeypatch, *shop.arguments(), "--output_dir", folder)
        assert (first / "half").is_file()
    assert not folder.exists() and not list(shop.folder.glob(".*"))


def test_an_earlier_build_survives_a_kill_while_it_is_replaced(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shop.folder / "out"
    call(build.main, monkeypatch, *shop.arguments(), "--output_dir", folder)
    with (folder / "README.md").open("a") as card:
        card.write("\nMine.\n")
    folder.rename(shop.folder / ".out.old")  # the first of two renames, then the kill
    call(build.main, monkeypatch, *shop.arguments(), "--output_dir", folder, "--validation_size", "0")
    assert (folder / "README.md").read_text().endswith("\nMine.\n")
    assert not list(shop.folder.glob(".*"))


@pytest.mark.slow
def test_a_wrong_row_ends_the_command_with_one_line_and_code_2(shop: Shop) -> None:
    with shop.train_csv.open("a") as stream:
        stream.write("https://shop.example/p/x.jpg,1,colour,red\n")
    done = run_module("dataset_builder.build", *shop.arguments(), "--output_dir", shop.folder / "out", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --train_csv {shop.train_csv}, line 14: unknown entity_name 'colour'")
    assert done.stderr.count("\n") == 1
    assert not (shop.folder / "out").exists()


# A URL as typed or exported (URL stands for the server's), and the path that is requested.
SPELLINGS = [
    ("URL/a.jpg ", "/a.jpg"),
    ("  URL/a.jpg", "/a.jpg"),
    ("URL/a.jpg\r", "/a.jpg"),
    ("\tURL/a.jpg\n", "/a.jpg"),
    ("\u00a0URL/a.jpg\u3000", "/a.jpg"),
    ("HTTP://HOST/a.jpg", "/a.jpg"),
    ("URL/größe.jpg", "/gr%C3%B6%C3%9Fe.jpg"),
    ("URL/two words.jpg", "/two%20words.jpg"),
    ("URL/two%20words.jpg", "/two%20words.jpg"),
    ("URL/a.jpg?size=large&x=ü#top", "/a.jpg?size=large&x=%C3%BC"),
    ("URL/日本.jpg", "/%E6%97%A5%E6%9C%AC.jpg"),
]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_spaces_and_line_ends_around_a_url_are_not_part_of_it(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line_end: str
) -> None:
    urls = [url.replace("URL", server.url).replace("HOST", server.url.partition("//")[2]) for url, _ in SPELLINGS]
    server.answers |= {path: jpeg(number) for number, (_, path) in enumerate(SPELLINGS)}
    frame = pd.DataFrame({"image_link": urls, "group_id": 1, "entity_name": "width", "entity_value": "1 inch"})
    frame.to_csv(
        tmp_path / "train.csv", index=False, lineterminator=line_end, encoding="utf-8-sig", quoting=csv.QUOTE_ALL
    )
    call(
        build.main, monkeypatch, *store_arguments(tmp_path), "--validation_size", "0", "--output_dir", tmp_path / "out"
    )
    assert set(server.requests) == {path for _, path in SPELLINGS}
    assert not (tmp_path / "store" / "failed.csv").read_text().splitlines()[1:]
    published = pq.read_table(tmp_path / "out" / "rows" / "train.parquet")["image_link"].to_pylist()
    assert published == [url.strip() for url in urls]


@pytest.mark.slow
def test_without_a_network_a_build_stops_within_seconds_and_the_next_one_fetches_everything(
    server: ImageServer, tmp_path: Path
) -> None:
    """5,000 URLs to a closed port, then the same command while a server listens there."""
    port = int(server.url.rpartition(":")[2])
    server.close()
    urls = [f"{server.url}/{number}.jpg" for number in range(5000)]
    write_train_csv(tmp_path / "train.csv", urls)
    arguments = [*store_arguments(tmp_path), "--output_dir", tmp_path / "out"]
    start = time.monotonic()
    done = run_module("dataset_builder.build", *arguments, check=False)
    assert done.returncode == 2, done.stderr
    assert time.monotonic() - start < 20
    assert "error: no network: none of 1 hosts can be reached" in done.stderr and "Traceback" not in done.stderr
    assert set(ImageStore(tmp_path / "store").failures(urls[::100]).values()) == {"not_fetched"}
    assert not (tmp_path / "out").exists()

    listening = ImageServer(port=port)
    listening.answers = dict.fromkeys((f"/{number}.jpg" for number in range(5000)), jpeg(1))
    try:
        store = ImageStore(tmp_path / "store")
        assert not download(store, urls[:200], OPTIONS)  # those of the first run, without retry_failed
        assert listening.requests.total() == 200
    finally:
        listening.close()


def test_a_build_without_downloading_uses_the_images_in_the_store(
    server: ImageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/0.jpg"] = jpeg(0)
    urls = [f"{server.url}/0.jpg", f"{closed_port()}/1.jpg"]
    write_train_csv(tmp_path / "train.csv", urls)
    download(ImageStore(tmp_path / "store"), urls[:1], OPTIONS)
    options: list[str | Path] = ["--download", "false", "--validation_size", "0", "--output_dir", tmp_path / "out"]
    call(build.main, monkeypatch, *store_arguments(tmp_path), *options)
    assert pq.read_table(tmp_path / "out" / "rows" / "train.parquet")["image_link"].to_pylist() == urls[:1]
    assert "row,not_fetched," in (tmp_path / "out" / "left_out.csv").read_text()
