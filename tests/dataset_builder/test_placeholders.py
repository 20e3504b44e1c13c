import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from dataset_builder import build, inspect
from dataset_builder.downloader import import_images
from dataset_builder.image_dir import ImageDir
from dataset_builder.image_store import ImageStore
from dataset_builder.placeholders import Placeholder, find_placeholders
from product_vqa.errors import InputError
from tests.commands import call
from tests.dataset_builder.files import TEST_COLUMNS, TRAIN_COLUMNS, Shop, jpeg, write_csv


def encode(image: Image.Image, format: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()


@pytest.fixture(scope="module", params=[448, 0, 64])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Placeholders among other images: each with so many URLs, the first of which is in two rows."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "images").mkdir()
    images = {
        "product": ([jpeg(n) for n in range(20)], 20),
        "repeated": ([jpeg(100)], 10),
        "often": ([jpeg(101)], 9),  # too few to be reported
        "pixel": ([encode(Image.new("RGB", (1, 1), "white"), "GIF"), encode(Image.new("RGB", (15, 2)), "PNG")], 4),
        "small": ([jpeg(102, size=(16, 2))], 1),
        "black": ([encode(Image.new("RGB", (100, 100), color="black"))], 12),  # as the challenge's downloader makes it
        "white": ([encode(Image.new("RGB", (300, 200), "white"), "PNG")], 2),
    }
    train: list[list[object]] = []
    for name, (contents, number) in images.items():
        for n in range(number):
            (folder / "images" / f"{name}{n}.jpg").write_bytes(contents[n % len(contents)])
            train += [[f"https://shop.example/{name}{n}.jpg", "g", "width", f"{len(train) + 1} inch"]] * (2 - (n > 0))
    test: list[list[object]] = [
        [0, "https://shop.example/repeated0.jpg", "g", "depth"],
        [1, "https://shop.example/gone.jpg", "g", "depth"],
    ]
    write_csv(folder / "train.csv", TRAIN_COLUMNS, train)
    write_csv(folder / "test.csv", TEST_COLUMNS, test)
    tables: list[str | Path] = ["--train_csv", folder / "train.csv", "--test_csv", folder / "test.csv"]
    images_and_output: list[str | Path] = ["--image_dir", folder / "images", "--output_dir", folder / "out"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        call(build.main, patch, *tables, *images_and_output, "--image_size", str(request.param))
    (folder / "printed.txt").write_text(printed.getvalue())
    return folder


LINES = [
    "tiny images (at most 15 px per side): 5 rows, 4 URLs, for example {}https://shop.example/pixel",
    "black images, like the 100 x 100 placeholder that the challenge's own downloader writes: 13 rows, 12 URLs, "
    "for example {}https://shop.example/black",
    "images of a single colour: 3 rows, 2 URLs, for example {}https://shop.example/white",
    "the same image: 12 rows, 10 URLs, for example {}https://shop.example/repeated",
]


@pytest.mark.slow
def test_images_that_show_no_product_are_named_with_their_number(
    built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(inspect.main, monkeypatch, "--dataset", built / "out")
    inspected = capsys.readouterr().out
    card = (built / "out" / "README.md").read_text()
    for text in ((built / "printed.txt").read_text(), inspected, card):
        for line in LINES:
            assert line.format("`" if text is card else "") in text
        assert "often" not in text and "small" not in text
    recorded = json.loads((built / "out" / "build.json").read_text())["placeholders"]
    assert [(one["kind"], one["urls"], one["rows"]) for one in recorded] == [
        ("tiny", 4, 5), ("black", 12, 13), ("one_colour", 2, 3), ("repeated", 10, 12),
    ]  # fmt: skip
    call(inspect.main, monkeypatch, "--dataset", built / "out", "--json")
    assert len(json.loads(capsys.readouterr().out)["placeholders"]) == 4


def test_a_store_is_looked_at_before_anything_is_built(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = sorted(f"https://shop.example/{file.name}" for file in (built / "images").iterdir())
    import_images(ImageStore(tmp_path / "store"), urls, ImageDir(built / "images"))
    tables: list[str | Path] = ["--train_csv", built / "train.csv", "--test_csv", built / "test.csv"]
    call(inspect.main, monkeypatch, *tables, "--image_store", tmp_path / "store")
    text = capsys.readouterr().out
    for line in LINES:
        assert line.format("") in text
    with pytest.raises(InputError, match=r"--image_store none: not a store that download or build made"):
        call(inspect.main, monkeypatch, *tables, "--image_store", "none")
    with pytest.raises(InputError, match=r"--image_store needs the URLs"):
        call(inspect.main, monkeypatch, "--dataset", built / "out", "--image_store", tmp_path / "store")


def test_of_many_repeated_images_those_under_the_most_urls_are_named() -> None:
    rows = pd.DataFrame(
        [
            {"image_link": f"{image}/{n}", "width": 99, "height": 99, "sha256": f"s{image}", "phash": image + 1}
            for image in range(30)
            for n in range(5 + image)
        ]
    )
    assert [(one.urls, one.example) for one in find_placeholders(rows)] == [(34 - n, f"{29 - n}/0") for n in range(10)]
    assert find_placeholders(rows.drop(columns="sha256")) == []  # a dataset of somebody else's


def test_a_dataset_without_such_images_says_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(build.main, monkeypatch, *shop.arguments(), "--output_dir", shop.folder / "out")
    assert "URLs" not in capsys.readouterr().out
    assert "show no product" not in (shop.folder / "out" / "README.md").read_text()


def test_a_placeholder_reads_as_a_sentence() -> None:
    assert str(Placeholder("repeated", 1200, 3400, "https://h/a.jpg")) == (
        "the same image: 3,400 rows, 1,200 URLs, for example https://h/a.jpg"
    )
