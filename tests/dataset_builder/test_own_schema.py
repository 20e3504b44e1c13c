"""Datasets of other catalogues than the challenge's, through the command."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from dataset_builder import ProductVqa, build, download
from dataset_builder.image_store import ImageStore
from local_hub import LocalHub
from product_vqa.dataset import count_entities, load_split
from product_vqa.errors import InputError
from product_vqa.hub import Location, locate
from product_vqa.schemas import load_schema
from product_vqa.streaming import count_streamed_entities, open_split
from product_vqa.task.schema_file import parse_schema, read_schema
from tests.commands import ROOT, call
from tests.dataset_builder.catalogues import LABELS, SCHEMAS, Catalogue, dropped_of, labels_of
from tests.dataset_builder.files import Shop, contents, jpeg, write_csv
from tests.dataset_builder.image_server import ImageServer

CHALLENGE_FILE = ROOT / "product_vqa" / "task" / "challenge.yaml"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_dataset_has_the_attributes_of_its_own_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    catalogue, folder = Catalogue(tmp_path, name), tmp_path / "out"
    arguments = ["--train_csv", catalogue.write_long(), "--validation_size", "0", *catalogue.arguments()]
    call(build.main, monkeypatch, *arguments)
    labels, dropped = LABELS[name]
    assert labels_of(folder) == labels
    empty = dropped_of(folder) - dropped
    assert dropped <= dropped_of(folder)
    assert {catalogue.cells[int(photo)][catalogue.columns.index(entity)] for photo, entity, _ in empty} <= {""}

    schema = parse_schema(SCHEMAS[name], name="s")
    assert read_schema(folder / "schema.yaml") == schema == load_schema(Location(str(folder)))
    record = json.loads((folder / "build.json").read_text())
    content = (folder / "schema.yaml").read_bytes()
    assert record["sources"]["schema"] == {"file": "schema.yaml", "sha256": hashlib.sha256(content).hexdigest()}
    assert "schema.yaml" in record["files"] and not record["is_challenge"]

    rows = load_split(Location(str(folder)), "train")
    assert set(rows["entity_name"]) <= set(schema.names)
    counts = count_entities(Location(str(folder)), "train")
    assert list(counts) == list(schema.names) and sum(counts.values()) == len(labels)
    assert counts == count_streamed_entities(Location(str(folder)), "train")
    split = open_split(Location(str(folder)), "train")
    assert split is not None and split.read(0)["entity_name"].to_pylist() == list(rows["entity_name"])


def test_the_card_describes_the_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {}
    for name in SCHEMAS:
        (tmp_path / name).mkdir()
        catalogue = Catalogue(tmp_path / name, name)
        arguments = ["--train_csv", catalogue.write_long(), "--validation_size", "0", *catalogue.arguments()]
        call(build.main, monkeypatch, *arguments)
        cards[name] = (tmp_path / name / "out" / "README.md").read_text()
        assert "\n\n\n" not in cards[name] and "500.0 gram" not in cards[name] and "2024" not in cards[name]
        assert "--schema schema.yaml" in cards[name] and "| schema.yaml | `" in cards[name]
    for name, line in {
        "nutrition": "| salt | `What is the salt?` | quantity | a number (at most 4 decimals) and one of the units "
        "`gram`, `milligram`; empty if the image does not show it |",
        "clothes": "| material | `What is the material?` | multi_choice | some of `cotton`, `wool`, `elastane` |",
        "electronics": "| model | `What is the model?` | pattern | a text that matches `[A-Z]{2}-[0-9]{3,4}` |",
    }.items():
        assert line in cards[name].splitlines(), cards[name]
    assert "such as `How much energy does the panel state?`, with their answers" in cards["nutrition"]
    assert "| a whole number of at most 3 digits |" in cards["nutrition"]
    assert "| waterproof | `What is the waterproof?` | yes_no | `yes`, `no` |" in cards["electronics"]
    assert "| not_a_choice (none of the values) | 2 |" in cards["clothes"]
    assert "| refresh rate | 2 |" in cards["electronics"]
    assert "; empty where the image does not show the attribute, and in `test` |" in cards["nutrition"]
    assert "as the attribute's kind defines it; empty in `test` |" in cards["clothes"]
    assert "and the unit `hertz` |" in cards["electronics"] and "times that" not in cards["electronics"]


def test_the_challenges_schema_as_a_file_is_the_default(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number, schema in enumerate([[], ["--schema", CHALLENGE_FILE]]):
        folder = shop.folder / str(number) / "out"
        call(build.main, monkeypatch, *shop.arguments(), *schema, "--output_dir", folder)
        found.append(contents(folder) | {name: (folder / name).read_bytes() for name in ("README.md", "build.json")})
        assert not (folder / "schema.yaml").exists()
    assert found[0] == found[1]


def test_another_schema_is_another_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    arguments = ["--train_csv", catalogue.write_long(), *catalogue.arguments()]
    call(build.main, monkeypatch, *arguments)
    call(build.main, monkeypatch, *arguments)
    assert "unchanged" in capsys.readouterr().out
    # The order of values decides how a multi_choice is written.
    catalogue.schema.write_text(SCHEMAS["clothes"].replace("[cotton, wool,", "[wool, cotton,"))
    call(build.main, monkeypatch, *arguments)
    assert "unchanged" not in capsys.readouterr().out
    assert ("0", "material", "wool, cotton") in labels_of(tmp_path / "out")
    (tmp_path / "out" / "schema.yaml").write_text(SCHEMAS["nutrition"])
    call(build.main, monkeypatch, *arguments)
    assert read_schema(tmp_path / "out" / "schema.yaml") == read_schema(catalogue.schema)


def test_rows_are_selected_by_the_attributes_of_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(tmp_path, "electronics")
    arguments = ["--train_csv", catalogue.write_long(), "--validation_size", "0", *catalogue.arguments()]
    call(build.main, monkeypatch, *arguments, "--entities", "refresh rate,model")
    assert {name for _, name, _ in labels_of(tmp_path / "out")} == {"refresh rate", "model"}
    assert "--entities 'model,refresh rate'" in (tmp_path / "out" / "README.md").read_text()
    call(build.main, monkeypatch, *arguments, "--entities", "refresh rate,model")  # and the record is valid
    with pytest.raises(InputError, match="--entities: unknown 'voltage'; choose from storage, battery"):
        call(build.main, monkeypatch, *arguments, "--entities", "voltage")


def test_what_the_schema_does_not_have_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    long = catalogue.write_long()
    wrong = write_csv(tmp_path / "wrong.csv", ["image_link", "group_id", "entity_name", "entity_value"],
                      [["0.jpg", "g", "color", "navy"]])  # fmt: skip
    cases: list[tuple[list[Any], str]] = [
        (["--train_csv", wrong], r"--train_csv .*wrong\.csv, line 2: unknown entity_name 'color'; expected one of "
                                 "size, colour, material"),
        (["--train_csv", long, "--schema", tmp_path / "no.yaml"], r"--schema .*no\.yaml cannot be read as a schema"),
        (["--train_csv", long, "--schema", long], r"--schema .*rows\.csv, line 1"),
    ]  # fmt: skip
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            call(build.main, monkeypatch, *catalogue.arguments(), *arguments)
    with pytest.raises(InputError, match="line 2: unknown entity_name 'size'; expected one of width, depth"):
        call(build.main, monkeypatch, "--train_csv", long, *catalogue.arguments()[2:])
    write_csv(wrong, ["image_link", "group_id", "entity_name", "entity_value"], [["0.jpg", "g", "size", "XXL"]] * 2)
    with pytest.raises(
        InputError, match=r"none of the 2 rows has a usable label \(not_a_choice 2; like row 0 \(from 0\)"
    ):
        call(build.main, monkeypatch, "--train_csv", wrong, *catalogue.arguments())
    assert not (tmp_path / "out").exists()


def test_images_are_downloaded_for_any_schema(
    tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    server.answers["/a.jpg"] = jpeg()
    table = write_csv(tmp_path / "rows.csv", ["image_link", "group_id", "entity_name", "entity_value"],
                      [[f"{server.url}/a.jpg", "g", "colour", "navy"]])  # fmt: skip
    options = ["--train_csv", table, "--image_store", tmp_path / "store", "--allow_private_hosts"]
    call(download.main, monkeypatch, *options, "--schema", catalogue.schema)
    assert ImageStore(tmp_path / "store").read(f"{server.url}/a.jpg")
    with pytest.raises(InputError, match="unknown entity_name 'colour'"):
        call(download.main, monkeypatch, *options)


def test_shards_of_another_schema_are_not_merged(
    tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    server.answers["/a.jpg"] = jpeg()
    table = write_csv(tmp_path / "rows.csv", ["image_link", "group_id", "entity_name", "entity_value"],
                      [[f"{server.url}/a.jpg", "g", "colour", "navy"]])  # fmt: skip
    options = ["--train_csv", table, "--image_store", tmp_path / "store", "--allow_private_hosts", "--schema",
               catalogue.schema, "--output_dir", tmp_path / "out"]  # fmt: skip
    call(build.main, monkeypatch, *options, "--shard", "1/1")
    catalogue.schema.write_text(SCHEMAS["clothes"].replace("navy blue", "dark blue"))
    with pytest.raises(InputError, match="was made from other inputs or settings"):
        call(build.main, monkeypatch, *options, "--merge", "1")
    catalogue.schema.write_text(SCHEMAS["clothes"])
    call(build.main, monkeypatch, *options, "--merge", "1")
    call(build.main, monkeypatch, *options, "--merge", "1")  # whose shards are gone
    assert {label for *_, label in labels_of(tmp_path / "out")} == {"navy blue"}


def published_schema() -> tuple[bool, dict[str, int]]:
    """Whether local/clothes has a schema.yaml, and the number of rows of each of its attributes."""
    has_schema = "schema.yaml" in HfApi().list_repo_files("local/clothes", repo_type="dataset")
    return has_schema, count_entities(locate("local/clothes", repo_type="dataset"), "train")


@pytest.mark.slow
def test_the_schema_is_published_with_the_dataset_and_goes_with_it(
    tmp_path: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    published = ["--push_to_hub", "--hub_dataset_id", "local/clothes"]
    arguments = ["--train_csv", catalogue.write_long(), *catalogue.arguments(), *published]
    call(build.main, monkeypatch, *arguments)
    assert published_schema() == (True, {"size": 2, "colour": 3, "material": 2})

    (tmp_path / "challenge").mkdir()
    shop = Shop(tmp_path / "challenge")
    call(build.main, monkeypatch, *shop.arguments(), "--output_dir", shop.folder / "out", *published)
    has_schema, counts = published_schema()
    assert not has_schema and "item_weight" in counts


def test_the_builder_takes_a_schema(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, "clothes")
    builder = ProductVqa(
        train_csv=catalogue.write_long(),
        schema=catalogue.schema,
        image_dir=catalogue.image_dir,
        validation_size=0,
        cache_dir=tmp_path / "cache",
    )
    builder.download_and_prepare()
    rows = builder.as_dataset()["train"]
    assert ("material", "cotton, wool") in set(zip(rows["entity_name"], rows["entity_value"], strict=True))
    assert read_schema(Path(builder.cache_dir) / "schema.yaml") == read_schema(catalogue.schema)
