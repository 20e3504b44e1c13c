"""`predict --images` and `--table`: a folder or a table in, a table out; a broken image is a row with its error."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inference import catalogue, predict
from inference.batch_files import BatchFiles
from inference.catalogue_options import CatalogueOptions
from product_vqa import AttributeReader
from product_vqa.errors import InputError
from product_vqa.schemas import save_schema
from product_vqa.task.schema import CHALLENGE
from tests.commands import call
from tests.product_vqa.blocked import run_without_extras
from tests.tiny import make_image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("b.png", "more/a.JPG", "=c.png")):
        make_image(number).save(folder / name, "JPEG" if name.endswith("JPG") else "PNG")
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:3000])
    (folder / "notes.txt").write_text("no image")
    return folder


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def options_for(tiny_base: Path, tmp_path: Path, *more: str | Path) -> list[str | Path]:
    return ["--base_model", tiny_base, "--dtype", "float32", "--output", tmp_path / "table.csv", *more]


def test_a_folder_becomes_a_table_with_a_row_for_each_image_and_attribute(
    photos: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(
        predict.main, monkeypatch, "--images", photos, "--entities", "voltage,width", *options_for(tiny_base, tmp_path)
    )
    rows = rows_of(tmp_path / "table.csv")
    assert [(row["file"], row["entity_name"]) for row in rows] == [
        (file, name) for file in ("=c.png", "b.png", "broken.png", "more/a.JPG") for name in ("width", "voltage")
    ]
    reader = AttributeReader.from_pretrained(None, base_model=str(tiny_base), dtype="float32", device="cpu")
    for row in rows:
        if row["file"] == "broken.png":
            assert (row["value"], row["unit"], row["confidence"]) == ("", "", "")
            assert row["error"] == "image_unreadable: OSError: image file is truncated"
        else:
            answer = reader.read(photos / row["file"], row["entity_name"])
            assert (row["value"], row["unit"], row["error"]) == (answer.value, answer.unit, "")
            assert float(row["confidence"]) == pytest.approx(answer.confidence, rel=1e-3)
    printed = capsys.readouterr()
    assert "broken.png: image_unreadable: OSError: image file is truncated\n" in printed.err
    assert printed.err.count("broken.png: image_unreadable") == 1
    assert "8 rows about 4 images" in printed.out and "1 images cannot be read" in printed.out
    table = pq.read_table(tmp_path / "table.parquet").to_pylist()
    assert [row["file"] for row in table] == [row["file"] for row in rows]
    assert table[0]["number"] == float(rows[0]["value"]) and table[4]["confidence"] is None
    assert not (tmp_path / "table.parts").exists()


def test_the_keys_of_a_table_are_returned_as_they_were(
    photos: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "products.csv"
    keys = ["007", ' é,"x"', "=1+1", "", "007"]
    files = ["photos/b.png", "photos/more/a.JPG", "photos/=c.png", "photos/none.png", "photos/b.png"]
    with table.open("w", newline="") as lines:
        csv.writer(lines).writerows([("sku", "photo"), *zip(keys, files, strict=True)])
    call(
        predict.main, monkeypatch, "--table", table, "--columns", "image_link=photo,key=sku", "--entities", "width",
        *options_for(tiny_base, tmp_path, "--min_confidence", "1"),
    )  # fmt: skip
    rows = rows_of(tmp_path / "table.csv")
    assert [row["sku"] for row in rows] == keys
    assert [row["error"] for row in rows] == ["", "", "", "file_unreadable: No such file or directory", ""]
    assert not any(row["value"] for row in rows)  # below the threshold
    assert pq.read_table(tmp_path / "table.parquet")["sku"].to_pylist() == keys
    assert pq.read_table(tmp_path / "table.parquet")["answer"].null_count == 1


def test_a_run_that_was_interrupted_answers_the_rest_only(
    photos: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--images", photos, "--entities", "width", *options_for(tiny_base, tmp_path)]
    monkeypatch.setattr(catalogue, "PART_SIZE", 2)
    call(predict.main, monkeypatch, *arguments)
    expected = (tmp_path / "table.csv").read_bytes()
    save, read_many, asked = BatchFiles.save, AttributeReader.read_many, []

    def save_one(self: BatchFiles, number: int, rows: Any) -> None:
        save(self, number, rows)
        raise KeyboardInterrupt

    def count(self: AttributeReader, items: Any, **options: Any) -> Any:
        asked.append(list(items))
        return read_many(self, asked[-1], **options)

    with monkeypatch.context() as patched:
        patched.setattr(BatchFiles, "save", save_one)
        with pytest.raises(KeyboardInterrupt):
            call(predict.main, patched, *arguments)
    monkeypatch.setattr(AttributeReader, "read_many", count)
    call(predict.main, monkeypatch, *arguments)
    assert [file.name for file, _ in asked[0]] == ["broken.png", "a.JPG"]
    assert (tmp_path / "table.csv").read_bytes() == expected


def test_parts_of_a_version_that_had_fewer_columns_are_answered_again(
    photos: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    save_schema(CHALLENGE.with_not_shown(["width"]), base)
    arguments = ["--images", photos, "--entities", "width,voltage", *options_for(base, tmp_path)]
    with monkeypatch.context() as patched:
        columns = [field for field in catalogue.ANSWERS if field.name not in ("shown", "box")]
        patched.setattr(catalogue, "ANSWERS", pa.schema(columns))
        patched.setattr(catalogue, "write_answers", stop)
        with pytest.raises(KeyboardInterrupt):
            call(predict.main, patched, *arguments)
    assert (tmp_path / "table.parts" / "000000.parquet").is_file()
    call(predict.main, monkeypatch, *arguments)
    reader = AttributeReader.from_pretrained(None, base_model=str(base), dtype="float32", device="cpu")
    for row in pq.read_table(tmp_path / "table.parquet").to_pylist():
        if row["error"] is None and row["entity_name"] == "width":
            assert row["shown"] == pytest.approx(reader.read(photos / row["file"], "width").shown, rel=1e-3)
        else:
            assert row["shown"] is None
        assert row["box"] is None


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_another_folder_does_not_resume(
    photos: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = tmp_path / "table.parts"
    parts.mkdir()
    (parts / "run.json").write_text(json.dumps({"questions": 4, "questions_sha256": "0"}))
    with pytest.raises(InputError, match=r"--output .*table.parts holds batches of a prediction with other settings"):
        call(predict.main, monkeypatch, "--images", photos, "--entities", "width", *options_for(tiny_base, tmp_path))


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (b"sku,photo\n1,a.png\n", None, r"needs one column image_link; it has sku, photo \(see `columns`\)"),
        (b"photo,photo\na,b\n", "image_link=photo", r"needs one column photo; it has photo, photo"),
        (b"image_link\n", None, r"has no rows"),
        (b"", None, r"needs one column image_link; it has none"),
        (b"image_link,b\na.png\n", None, r"line 2: 1 cells, but the header has 2"),
        (b"image_link\n\xff\n", None, r"cannot be read as a CSV in UTF-8"),
        (b"value,image_link\n1,a.png\n", "key=value", r"the key column value has the name of a column of the output"),
        (b"\x89PNG\r\n", None, r"is a PNG image, not a CSV"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes, columns: str | None, message: str
) -> None:
    table = tmp_path / "products.csv"
    table.write_bytes(content)
    image, key = CatalogueOptions(table=str(table), columns=columns).column_names()
    with pytest.raises(InputError, match=message):
        catalogue.read_table(table, image_column=image, key_column=key, folder=tmp_path, entity_names=["width"])


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        catalogue.list_images(tmp_path / "none")
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"has no image \(.jpg, "):
        catalogue.list_images(tmp_path)


@pytest.mark.faults
def test_images_are_predicted_without_any_extra(photos: Path, tiny_base: Path, tmp_path: Path) -> None:
    program = "from product_vqa.console import main; main()"
    done = run_without_extras(
        program, "predict", "--images", photos, "--entities", "width", *options_for(tiny_base, tmp_path)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(rows_of(tmp_path / "table.csv")) == 4
