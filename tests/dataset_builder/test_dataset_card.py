import io
import json
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from dataset_builder import build
from tests.commands import call
from tests.dataset_builder.files import (
    TRAIN_COLUMNS,
    Shop,
    card_data,
    write_csv,
)


def test_the_card_says_what_is_in_it_and_how_it_came(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.file(shop.test_urls[0]).unlink()
    folder = shop.folder / "out"
    call(build.main, monkeypatch, *shop.arguments(), "--validation_size", "0", "--output_dir", folder)
    data = card_data(folder)
    assert data["configs"] == [
        {
            "config_name": "default",
            "data_files": [{"split": split, "path": f"data/{split}-*"} for split in ("train", "test")],
        },
        {
            "config_name": "rows",
            "data_files": [{"split": split, "path": f"rows/{split}.parquet"} for split in ("train", "test")],
        },
    ]
    assert [(split["name"], split["num_examples"]) for split in data["dataset_info"]["splits"]] == [
        ("train", 11),
        ("test", 4),
    ]
    assert data["license"] == "other"
    assert data["license_details"]
    assert data["task_categories"] == ["visual-question-answering"]
    text = (folder / "README.md").read_text()
    for line in (
        "| entity_name | train | test |",
        "| item_weight | 10 | 0 |",
        "| all | 11 | 4 |",
        "| range_brackets (like `[100.0, 240.0] volt`) | 1 |",
        "| image_missing | 2 |",
        "  --train_csv train.csv \\",
    ):
        assert line in text.splitlines(), text
    assert "\n\n\n" not in text
    record = (folder / "build.json").read_text()
    assert json.loads(record)["images_missing"] == {"image_missing": 2}
    for published in (text, record, (folder / "left_out.csv").read_text()):
        assert str(shop.folder) not in published
    metadata = pq.read_metadata(folder / "data" / "test-00000-of-00001.parquet")
    assert b"Image" in metadata.metadata[b"huggingface"]


@pytest.mark.parametrize(
    ("host", "options", "license", "name", "says"),
    [
        ("shop.example", [], "other", "not-stated", "has not stated the license of the images"),
        ("shop.example", ["--license", "cc-by-4.0"], "cc-by-4.0", None, "published under `cc-by-4.0`"),
        ("shop.example", ["--license", "other", "--license_name", "Our own"], "other", "Our own", "under `Our own`"),
        ("m.media-amazon.com", [], "other", "images-without-a-license", "URLs that state no license"),
        ("m.media-amazon.com", ["--license", "mit"], "mit", None, "published under `mit`"),
    ],
)
def test_the_card_names_the_license_that_is_stated_and_the_challenges_for_its_own_images_only(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    options: list[str],
    license: str,
    name: str | None,
    says: str,
) -> None:
    for file in (shop.train_csv, shop.test_csv):
        file.write_text(file.read_text().replace("shop.example", host))
    folder = shop.folder / "out"
    call(build.main, monkeypatch, *shop.arguments(), "--output_dir", folder, *options)
    data, text = card_data(folder), (folder / "README.md").read_text()
    assert (data["license"], data.get("license_name")) == (license, name)
    assert says in text
    assert ("state no license" in text) is (host != "shop.example" and not options)
    assert ("are from the Amazon ML Challenge 2024" in text) is (host != "shop.example")
    assert all(option in text for option in options[:2])  # in the command that builds it again

    call(build.main, monkeypatch, *shop.arguments(), "--output_dir", folder, "--license", "cc0-1.0")
    assert card_data(folder)["license"] == "cc0-1.0", "the same rows, another license"


def test_one_image_from_elsewhere_makes_it_no_challenge(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (shop.train_csv, shop.test_csv):
        file.write_text(file.read_text().replace("shop.example", "m.media-amazon.com"))
    rows = shop.test_csv.read_text()
    shop.test_csv.write_text(rows.replace("m.media-amazon.com/p/test2", "m.media-amazon.com.evil/p/test2"))
    call(build.main, monkeypatch, *shop.arguments(), "--output_dir", shop.folder / "out")
    assert card_data(shop.folder / "out")["license_name"] == "not-stated"


@pytest.mark.parametrize(
    "text",
    [
        "\n\n# HEADING\n\n", "\r\n\r\n## HEADING\r\n", "<script>alert(1)</script>", "[link](https://evil.example)",
        "![image](https://evil.example/x)", "`` ` `` <b>x</b>", "\u2028# HEADING", "\n---\nlicense: mit\n---\n",
        "\n<!-- product-vqa: generated end -->\n", "{{ 7 * 7 }}", "\x1b[2J", "https://evil.example/x",
    ],
    ids=repr,
)  # fmt: skip
def test_what_strangers_wrote_makes_no_heading_link_or_html_in_the_card(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """In URLs, which appear as examples of placeholders, and in the names of the CSVs."""
    black = io.BytesIO()
    Image.new("RGB", (100, 100)).save(black, "PNG")
    (shop.image_dir / "x.png").write_bytes(black.getvalue())
    tags = []
    for words in ("x", text):
        url = f"https://shop.example/x.png?{words}"
        name = words.replace("/", "_") if words.isprintable() else "unprintable"  # which is refused as a name
        csv_file = shop.folder / f"a{name}.csv"
        write_csv(csv_file, TRAIN_COLUMNS, [*shop.train_rows, [url, "g", "width", "20 inch"]])
        options: list[str | Path] = ["--train_csv", csv_file, "--image_dir", shop.image_dir]
        call(build.main, monkeypatch, *options, "--output_dir", shop.folder / "out")
        card = (shop.folder / "out" / "README.md").read_text()
        assert "black images" in card and len(card_data(shop.folder / "out")) == 10
        html = (
            MarkdownIt("commonmark")
            .enable("table")
            .render(re.sub(r"\A---.*?^---$", "", card, flags=re.DOTALL | re.MULTILINE))
        )
        html = re.sub("<code.*?</code>", "", html, flags=re.DOTALL)
        assert ".example" not in html  # the Hub makes a link of a URL, unless it is code
        tags.append(Counter(re.findall(r"<(/?\w+|!--)", html)))
    assert tags[0] == tags[1] and tags[0]["h2"] >= 5
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))
