"""The dataset as a folder: Parquet, the rows left out, the record of how it was made, and its card."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq

import product_vqa
from dataset_builder.builder import ROWS_FOLDER, ProductVqa
from dataset_builder.leakage import find_leaks, rows_of_folder
from dataset_builder.placeholders import find_placeholders
from dataset_builder.row_filter import LEFT_OUT_FILE, count_left_out
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder

RECORD_FILE = "build.json"
MAX_SHARD_BYTES = 500 * 1024**2
# All images of the challenge are here. A dataset with a single one elsewhere is somebody's own, of which its card's
# words about the licence need not be true.
_CHALLENGE_URL = re.compile(r"\s*https?://m\.media-amazon\.com/", re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """How a dataset folder was made and what is in it. Names and counts only, no path of the machine."""

    fingerprint: str
    sources: dict[str, dict[str, str]]  # train_csv, test_csv -> file, sha256
    picture_source: str  # "image_dir" or "image_store"
    image_size: int
    ranges: str
    validation_size: float
    seed: int
    versions: dict[str, str]
    rows: dict[str, dict[str, int]]  # split -> entity -> rows
    rows_left_out: dict[str, int]  # reason -> rows of train.csv
    images_missing: dict[str, int]  # reason -> rows of test.csv
    oversize: list[dict[str, Any]]  # rows that belong together and are in train for their number
    leaks: list[dict[str, Any]]  # what every two splits share
    placeholders: list[dict[str, Any]]  # images that show no product
    dataset_info: dict[str, Any] = field(default_factory=dict)  # as the card's metadata give it
    is_challenge: bool = False  # whether the images are those of the Amazon ML Challenge 2024


def check_output(folder: Path) -> Record | None:
    """The record of the earlier build in `folder`, None if nothing is there. Raises InputError for anything else."""
    with argument("output_dir"):
        writable_folder(folder.parent)
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(f"--output_dir {folder}: is a file; choose another name")
    with argument("output_dir"):
        writable_folder(folder)
    if not any(folder.iterdir()):
        return None
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or "fingerprint" not in record:
        raise InputError(
            f"--output_dir {folder}: holds files that are not an earlier build of this command; "
            "choose another folder, or empty it yourself"
        )
    try:
        return Record(**record)
    except TypeError:  # of another version: to be built anew
        return None


@contextmanager
def temporary_beside(folder: Path) -> Iterator[Path]:
    """A folder on the same disk, in which a build can grow unseen; gone at the end, or when the next build starts.

    With --image_dir it takes twice the bytes of the pictures for a while: as files, fitted, and as Parquet.
    """
    temporary = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_dataset(builder: ProductVqa, folder: Path) -> Record:
    """Run the builder and write all but the card to `folder`, which must not exist yet."""
    try:
        builder.download_and_prepare(str(folder), file_format="parquet", max_shard_size=MAX_SHARD_BYTES)
        (folder / datasets.config.DATASET_INFO_FILENAME).unlink()  # the card says the same
        (folder / "data").mkdir()
        for file in folder.glob(f"{builder.dataset_name}-*.parquet"):
            name = file.stem.removeprefix(f"{builder.dataset_name}-")
            name = name if "-of-" in name else f"{name}-00000-of-00001"  # datasets does not count a single one
            file.rename(folder / "data" / f"{name}.parquet")
        record = _record(builder, folder)
        for leak in record.leaks:
            assert leak["splits"] != ("train", "validation") or not leak["crossing"], leak
        (folder / RECORD_FILE).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    except (OSError, datasets.exceptions.DatasetGenerationError) as error:
        raise InputError(f"--output_dir: the dataset cannot be written ({error.__cause__ or error})") from error
    return record


def _record(builder: ProductVqa, folder: Path) -> Record:
    config = builder.config
    info = datasets.DatasetInfo(
        features=builder.info.features,
        splits=builder.info.splits,
        download_size=sum(file.stat().st_size for file in (folder / "data").iterdir()),
        dataset_size=builder.info.dataset_size,
    )
    rows = rows_of_folder(folder / ROWS_FOLDER)
    card_data: dict[str, Any] = {}
    datasets.info.DatasetInfosDict(default=info).to_dataset_card_data(card_data)
    return Record(
        fingerprint=config.fingerprint,
        sources={
            flag: {"file": table.name, "sha256": table.sha256}
            for flag, table in zip(("train_csv", "test_csv"), config.tables, strict=True)
            if table
        },
        picture_source="image_dir" if config.image_dir else "image_store",
        image_size=config.image_size,
        ranges=config.ranges,
        validation_size=config.validation_size,
        seed=config.seed,
        versions={"product-vqa": product_vqa.__version__, "datasets": datasets.__version__},
        rows={
            str(split): dict(Counter(_entities(folder / ROWS_FOLDER / f"{split}.parquet")).most_common())
            for split in builder.info.splits
        },
        rows_left_out=count_left_out(folder / LEFT_OUT_FILE, "row"),
        images_missing=count_left_out(folder / LEFT_OUT_FILE, "image"),
        oversize=[asdict(part) for part in builder.selection.oversize],
        leaks=[asdict(leak) for leak in find_leaks(rows)],
        placeholders=[asdict(placeholder) for placeholder in find_placeholders(rows)],
        dataset_info=card_data["dataset_info"],
        is_challenge=all(
            _CHALLENGE_URL.match(row.image_link) for table in config.tables if table for row in table.rows
        ),
    )


def _entities(file: Path) -> list[str]:
    return pq.read_table(file, columns=["entity_name"])["entity_name"].to_pylist()
