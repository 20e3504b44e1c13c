import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from product_vqa.errors import InputError
from tests.dataset_builder.conftest import (
    TRAIN_COLUMNS,
    PictureServer,
    Shop,
    jpeg,
    run_command,
    run_elsewhere,
    run_here,
    write_csv,
)

READ_ELSEWHERE = """
from datasets import load_dataset
dataset = load_dataset(sys.argv[1])
streamed = load_dataset(sys.argv[1], streaming=True)
for split in dataset:
    for rows in (dataset[split], streamed[split]):
        print(split, *[f"{row['index']}:{row['image'].size}:{row['entity_value']}" for row in rows], sep="|")
print(dataset["test"].features["index"].dtype, type(dataset["test"].features["image"]).__name__)
"""
# The other ways to read a dataset of 1,000 rows of train, all without this project.
READ_IN_EVERY_WAY = """
from datasets import load_dataset, get_dataset_config_names
from datasets.distributed import split_dataset_by_node
name = sys.argv[1]
print(get_dataset_config_names(name))
print(len(load_dataset(name, split="train[:1%]")))
stream = load_dataset(name, split="train", streaming=True)
print(sorted(row["index"] for row in stream.shuffle(seed=1, buffer_size=100)) == list(range(1000)))
print([row["index"] for row in stream.shuffle(seed=1, buffer_size=100).take(3)] != [0, 1, 2])
nodes = [{row["index"] for row in split_dataset_by_node(stream, rank=rank, world_size=2)} for rank in (0, 1)]
print(min(map(len, nodes)) > 0, sum(map(len, nodes)), len(set.union(*nodes)))
columns = load_dataset(name, split="train", columns=["index", "entity_value"])
print(columns.column_names, columns[999])
rows = load_dataset(name, "rows", split="train")
print(rows.column_names, rows[0]["width"], rows[0]["height"])
"""


def test_a_dataset_is_read_in_every_way_without_this_project(shop: Shop, monkeypatch):
    rows = [[shop.train_links[number % 10], "g", "width", f"{number + 1} inch"] for number in range(1000)]
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    monkeypatch.setattr("dataset_builder.writer.MAX_SHARD_BYTES", 300_000)
    folder = shop.folder / "out"
    arguments = ["--train_csv", shop.train_csv, "--image_dir", shop.image_dir, "--validation_size", 0]
    run_here(monkeypatch, "build", *arguments, "--output_dir", folder)
    assert len(list((folder / "data").iterdir())) >= 4
    assert run_elsewhere(READ_IN_EVERY_WAY, folder, cwd=shop.folder) == [
        "['default', 'rows']",
        "10",
        "True",
        "True",
        "True 1000 1000",
        "['index', 'entity_value'] {'index': 999, 'entity_value': '1000.0 inch'}",
        "['index', 'image_link', 'group_id', 'entity_name', 'entity_value', 'entity_value_raw', "
        "'num_bytes', 'width', 'height', 'sha256', 'phash'] 48 32",
    ]


def card_data(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_a_built_folder_is_a_dataset_to_everyone(shop: Shop):
    folder = shop.folder / "out"
    (shop.folder / "build.yaml").write_text(f"output_dir: {folder}\nvalidation_size: 0.25\nseed: 3\n")
    done = run_command("build", "--config", "build.yaml", *shop.arguments(), cwd=shop.folder)
    assert done.returncode == 0, done.stderr
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
    again = run_command(
        "build", "--config", "build.yaml", *shop.arguments(), "--hub_dataset_id", "a/b", cwd=shop.folder
    )
    assert again.stdout == f"unchanged: {folder}\n"
    assert (folder / "data" / "train-00000-of-00001.parquet").stat().st_mtime_ns == before
    assert 'load_dataset("a/b")' in (folder / "README.md").read_text()


def test_the_card_says_what_is_in_it_and_how_it_came(shop: Shop, monkeypatch):
    shop.file(shop.test_links[0]).unlink()
    folder = shop.folder / "out"
    run_here(monkeypatch, "build", *shop.arguments(), "--validation_size", 0, "--output_dir", folder)
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
        ("shop.example", [], "other", "not-stated", "has not stated the licence of the images"),
        ("shop.example", ["--license", "cc-by-4.0"], "cc-by-4.0", None, "published under `cc-by-4.0`"),
        ("shop.example", ["--license", "other", "--license_name", "Our own"], "other", "Our own", "under `Our own`"),
        ("m.media-amazon.com", [], "other", "photographs-without-a-licence", "links that carry no licence"),
        ("m.media-amazon.com", ["--license", "mit"], "mit", None, "published under `mit`"),
    ],
)
def test_the_card_names_the_licence_that_is_stated_and_the_challenges_for_its_own_images_only(
    shop: Shop, monkeypatch, host: str, options: list[str], license: str, name: str | None, says: str
):
    for file in (shop.train_csv, shop.test_csv):
        file.write_text(file.read_text().replace("shop.example", host))
    folder = shop.folder / "out"
    run_here(monkeypatch, "build", *shop.arguments(), "--output_dir", folder, *options)
    data, text = card_data(folder), (folder / "README.md").read_text()
    assert (data["license"], data.get("license_name")) == (license, name)
    assert says in text
    assert ("carry no licence" in text) is (host != "shop.example" and not options)
    assert ("are from the Amazon ML Challenge 2024" in text) is (host != "shop.example")
    assert all(option in text for option in options[:2])  # in the command that builds it again

    run_here(monkeypatch, "build", *shop.arguments(), "--output_dir", folder, "--license", "cc0-1.0")
    assert card_data(folder)["license"] == "cc0-1.0", "the same rows, another licence"


def test_one_image_from_elsewhere_makes_it_no_challenge(shop: Shop, monkeypatch):
    for file in (shop.train_csv, shop.test_csv):
        file.write_text(file.read_text().replace("shop.example", "m.media-amazon.com"))
    rows = shop.test_csv.read_text()
    shop.test_csv.write_text(rows.replace("m.media-amazon.com/p/test2", "m.media-amazon.com.evil/p/test2"))
    run_here(monkeypatch, "build", *shop.arguments(), "--output_dir", shop.folder / "out")
    assert card_data(shop.folder / "out")["license_name"] == "not-stated"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--license", "MIT"], "--license MIT is not an id of the Hub's list"),
        (["--license", "my licence"], "--license my licence is not an id"),
        (["--license", "other"], "--license other and --license_name NAME go together"),
        (["--license", "mit", "--license_name", "x"], "--license other and --license_name NAME go together"),
        (["--license_name", "x"], "--license other and --license_name NAME go together"),
    ],
)
def test_a_licence_that_the_hub_would_not_know_is_refused(shop: Shop, monkeypatch, options: list[str], complaint: str):
    with pytest.raises(InputError, match=complaint):
        run_here(monkeypatch, "build", *shop.arguments(), "--output_dir", shop.folder / "out", *options)
    assert not (shop.folder / "out").exists()


def test_shards_and_row_groups_are_bounded(shop: Shop, monkeypatch):
    rows = [[shop.train_links[number % 10], "g", "width", f"{number + 1} inch"] for number in range(230)]
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    monkeypatch.setattr("dataset_builder.writer.MAX_SHARD_BYTES", 200_000)
    folder = shop.folder / "out"
    run_here(
        monkeypatch,
        "build",
        *shop.arguments()[:2],
        *shop.arguments()[4:],
        "--validation_size",
        0,
        "--output_dir",
        folder,
    )
    files = sorted((folder / "data").iterdir())
    assert [file.name for file in files] == [f"train-{n:05d}-of-{len(files):05d}.parquet" for n in range(len(files))]
    assert len(files) >= 2
    metadata = [pq.read_metadata(file) for file in files]
    assert sum(part.num_rows for part in metadata) == 230
    assert all(part.row_group(n).num_rows <= 100 for part in metadata for n in range(part.num_row_groups))


def test_a_store_is_filled_as_needed(server: PictureServer, shop: Shop, monkeypatch):
    for link, picture in shop.pictures.items():
        server.answers["/" + link.rsplit("/", 1)[-1]] = picture
    rows = [[server.url + "/" + row[0].rsplit("/", 1)[-1], *row[1:]] for row in shop.train_rows]
    rows.append([server.url + "/gone.jpg", "g", "width", "1 inch"])
    write_csv(shop.train_csv, TRAIN_COLUMNS, rows)
    run_here(
        monkeypatch, "build", "--train_csv", shop.train_csv, "--image_store", shop.folder / "store",
        "--allow_private_hosts", "--output_dir", shop.folder / "out",
    )  # fmt: skip
    assert json.loads((shop.folder / "out" / "build.json").read_text())["rows_left_out"] == {
        "range_brackets": 1,
        "http_404": 1,
    }
    assert server.requests.total() == 11  # ten pictures and the one that is gone, each once


def test_the_splits_are_the_same_whatever_port_serves_the_images_and_wherever_they_are_stored(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    built = []
    for number in range(3):
        server, folder = PictureServer(), shop.folder / f"elsewhere{number}"
        folder.mkdir()
        train = [[f"{server.url}/{number}.jpg", "g", "width", f"{number + 1} inch"] for number in range(40)]
        server.answers |= {f"/{number}.jpg": jpeg(number) for number in range(40)}
        run_here(
            monkeypatch, "build", "--train_csv", write_csv(folder / "train.csv", TRAIN_COLUMNS, train),
            "--image_store", folder / "store", "--allow_private_hosts", "--validation_size", 0.3,
            "--output_dir", folder / "out",
        )  # fmt: skip
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
    (["--image_store", "store"], "one of the two"),
    (["--push_to_hub"], "--hub_dataset_id user/name"),
    (["--validation_size", "2"], "--validation_size must be"),
    (["--output_dir", "train.csv"], "train.csv: is a file"),
    (["--output_dir", "images"], "holds files that are not an earlier build"),
    (["--output_dir", "train.csv/out"], "cannot be created"),
    (["--image_dri", "images"], "unknown option --image_dri (did you mean --image_dir?)"),
    (["--config", "wrong.yaml"], "unknown key validaton_size (did you mean --validation_size?)"),
    (["--connections", "0"], "--connections must be between 1 and 256"),
]


@pytest.mark.parametrize(("arguments", "complaint"), REFUSED, ids=[case[-1] for case in REFUSED])
def test_wrong_input_is_refused_and_leaves_nothing(shop: Shop, monkeypatch, arguments: list[str], complaint: str):
    monkeypatch.chdir(shop.folder)
    Path("wrong.yaml").write_text("validaton_size: 0.1\n")
    before = sorted(shop.folder.rglob("*"))
    with pytest.raises(InputError) as refusal:
        run_here(monkeypatch, "build", *shop.arguments(), "--output_dir", "out", *arguments)
    assert complaint in str(refusal.value)
    assert sorted(shop.folder.rglob("*")) == before


def test_a_build_that_fails_leaves_the_earlier_one(shop: Shop, monkeypatch):
    folder = shop.folder / "out"
    run_here(monkeypatch, "build", *shop.arguments(), "--output_dir", folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    (shop.folder / "empty").mkdir()
    with pytest.raises(InputError, match="not one of the 13 pictures"):
        run_here(monkeypatch, "build", *shop.arguments(), "--output_dir", folder, "--image_dir", shop.folder / "empty")
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert not list(shop.folder.glob(".*"))

    run_here(
        monkeypatch, "build", *shop.arguments()[2:], "--output_dir", folder
    )  # and one that succeeds takes its place
    assert sorted(file.name for file in (folder / "data").iterdir()) == ["test-00000-of-00001.parquet"]


def test_a_wrong_row_ends_the_command_with_one_line_and_code_2(shop: Shop):
    with shop.train_csv.open("a") as stream:
        stream.write("https://shop.example/p/x.jpg,1,colour,red\n")
    done = run_command("build", *shop.arguments(), "--output_dir", "out", cwd=shop.folder)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --train_csv {shop.train_csv}, line 14: unknown entity_name 'colour'")
    assert done.stderr.count("\n") == 1
    assert not (shop.folder / "out").exists()
