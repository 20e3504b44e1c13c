"""Targets: the files of a shard that another machine made, of a build and of a prediction."""

import hashlib
import io
import json
import random
import shutil
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.build_shards import MANIFEST_FILE, STATES_FILE, Inputs, shard_folder, write_shard
from dataset_builder.image_preparation import PreparedImage
from dataset_builder.image_store import ImageStore, Status, UrlState
from dataset_builder.shard_images import open_shards
from inference import prediction_shards
from inference.submission import PREDICTIONS
from product_vqa.errors import InputError
from product_vqa.sharding import Shard
from tests.fuzz.documents import WORDS, random_value
from tests.fuzz.target import Target, assert_message

_ONE = Shard(1, 1)
_URLS = [f"http://example.com/{number}.jpg" for number in range(4)]
_INPUTS = Inputs(sources={"train_csv": "0" * 64}, row_selection={}, image_size=448, libraries={}, format_version=1)
_IMAGES_FILE = "images-00000.bin"
_kept: list[tempfile.TemporaryDirectory[str]] = []


@cache
def _scratch() -> Path:
    made = tempfile.TemporaryDirectory(prefix="fuzz-shards-")
    _kept.append(made)
    return Path(made.name)


# ---- Of a build ---------------------------------------------------------------------------------------------------


@cache
def _files() -> dict[str, bytes]:
    """The files of a shard with three images, of which two are equal, and a URL that failed."""
    store = ImageStore(_scratch() / "first", image_size=448)
    data = [b"\xff\xd8\xff one", b"\xff\xd8\xff two"]
    images = [PreparedImage(content, 10, 20, 5) for content in data]
    with store.locked():
        for url, image in zip(_URLS, [*images, images[0]], strict=False):
            store.save(image)
            sha256 = hashlib.sha256(image.data).hexdigest()
            store.record(UrlState(url, Status.STORED, "", 200, 1, 0.5, "now", len(image.data), 10, 20, sha256, 5))
        store.record(UrlState(_URLS[3], Status.FAILED, "http_404", 404, 1, 0.5, "now", *[None] * 5))
    folder = _scratch() / "shard"
    write_shard(folder, store, _URLS, shard=_ONE, inputs=_INPUTS)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _read(name: str, data: bytes) -> None:
    """Read the shard with one file replaced; `shard.json` has the digests of the files as they are."""
    files = _files() | {name: data}
    if name != MANIFEST_FILE:
        content = json.loads(files[MANIFEST_FILE])
        content["files"][name] = hashlib.sha256(data).hexdigest()
        files[MANIFEST_FILE] = json.dumps(content).encode()
    output = _scratch() / "output"
    folder = shard_folder(output, _ONE)
    shutil.rmtree(output, ignore_errors=True)
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    try:
        shards = open_shards(output, _URLS, count=1, inputs=_INPUTS, where="x")
    except InputError as error:
        assert_message(error, names="shard 1/1")
        return
    images, failures = shards.find(_URLS)
    assert images.keys() | failures.keys() == set(_URLS) and not images.keys() & failures.keys()
    for image in images.values():
        assert hashlib.sha256(shards.read_image(image)).hexdigest() == image.sha256
    json.dumps(
        [*images, *(image.as_dict() for image in images.values()), *failures.items()], ensure_ascii=False
    ).encode()


def fuzz_shard_manifest(data: bytes) -> None:
    """A shard whose `shard.json` says anything is read whole, or refused in one line."""
    _read(MANIFEST_FILE, data)


def fuzz_shard_states(data: bytes) -> None:
    """Whatever a shard says of its URLs, each gets an outcome that a build can have, or the shard is refused."""
    _read(STATES_FILE, data)


def fuzz_shard_images(data: bytes) -> None:
    """Only the images that its URLs have come out of a shard."""
    _read(_IMAGES_FILE, data)


# ---- Of a prediction ----------------------------------------------------------------------------------------------

_RUN = {"rows": 2, "batch_size": 2, "dataset": "user/data@" + "0" * 40}


def _rows(index: int = 1) -> pa.Table:
    row = {
        "index": index, "image_link": _URLS[0], "entity_name": "item_weight", "prediction": "34.0 gram",
        "answer": "34.0 gram", "confidence": 0.5, "number_confidence": 0.5, "unit_confidence": 0.5,
        "allowed_probability": 0.9, "reason": "", "alternatives": [{"prediction": "3.0 gram", "confidence": 0.1}],
    }  # fmt: skip
    return pa.Table.from_pylist([row, row | {"index": index + 1, "alternatives": []}], schema=PREDICTIONS)


@cache
def _prediction() -> bytes:
    file = _scratch() / "s.parquet"
    prediction_shards.write_shard(_rows(), file, shard=_ONE, run=_RUN)
    return file.read_bytes()


def fuzz_prediction_shard(data: bytes) -> None:
    """A shard of predictions is rows as they were written, or refused in one line that names the file."""
    file = _scratch() / "s-00000-of-00001.parquet"
    file.write_bytes(data)
    try:
        table, run = prediction_shards.merge_shards([file], expected={})
    except InputError as error:
        assert_message(error)
        return
    assert table.schema == PREDICTIONS and len(table) == run["rows"]


# ---- Their cases --------------------------------------------------------------------------------------------------


def _changed(table: pa.Table, rng: random.Random) -> bytes:
    """A Parquet file of a table in which one column has another name, another type, or other values."""
    position = rng.randrange(len(table.column_names))
    name, rows = table.column_names[position], len(table)
    kind = rng.randrange(4)
    if kind == 0:
        table = table.rename_columns([rng.choice((old, old, old, "x", "")) for old in table.column_names])
    elif kind == 1:
        values: Any = rng.choice((1, -1, 10**12, 0.5, "x", "\x1b[31m", b"\xff", None, "../../x", "a\nb", float("nan")))
        table = table.set_column(position, name, pa.array([values] * rows))
    elif kind == 2:
        column = table.column(position).to_pylist()
        rng.shuffle(column)
        table = table.set_column(
            position, table.schema.field(position), pa.array(column, table.schema.types[position])
        )
    else:
        table = rng.choice((table.slice(0, rng.randrange(rows + 1)), pa.concat_tables([table, table])))
    stream = io.BytesIO()
    pq.write_table(table, stream, compression=rng.choice(("none", "snappy", "zstd")))
    return stream.getvalue()


def _generate_prediction(rng: random.Random) -> bytes:
    return _changed(pq.read_table(io.BytesIO(_prediction())), rng)


def _generate_states(rng: random.Random) -> bytes:
    """The lines of a shard in which one has another value or key, or which are others or in another order."""
    rows = [json.loads(line) for line in _files()[STATES_FILE].splitlines()]
    row = rng.choice(rows)
    kind = rng.randrange(4)
    if kind == 0:
        row[rng.choice((*row, "more"))] = random_value(rng)
    elif kind == 1:
        row[rng.choice([*row])] = rng.choice(
            (True, -1, 2**63, 0.5, "", "not_fetched", "a: \u2028", "\ud800", None, [])
        )
    elif kind == 2:
        row.pop(rng.choice([*row]))
    else:
        rng.shuffle(rows)
        rows = rng.choice((rows, rows[1:], rows + rows[:1]))
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _generate_manifest(rng: random.Random) -> bytes:
    content = json.loads(_files()[MANIFEST_FILE])
    key = rng.choice((*content, "more"))
    if key in ("files", "inputs") and rng.random() < 0.7:
        inner = rng.choice((*content[key], "../x", "images-00001.bin"))
        content[key][inner] = rng.choice((None, "0" * 64, random_value(rng)))
    else:
        content[key] = rng.choice((None, "2/2", asdict(_INPUTS), {}, random_value(rng)))
    return json.dumps(content).encode()


TARGETS = [
    Target(
        "shard_manifest", fuzz_shard_manifest, lambda: [_files()[MANIFEST_FILE], b"{}", b""],
        words=(b'"files"', b'"inputs"', *WORDS), generate=_generate_manifest, max_bytes=4000,
    ),
    Target(
        "shard_states", fuzz_shard_states, lambda: [_files()[STATES_FILE], b"{}\n", b""],
        words=(b'"url"', b'"reason"', *WORDS), generate=_generate_states,
    ),
    Target("shard_images", fuzz_shard_images, lambda: [_files()[_IMAGES_FILE], b""], words=(b"\xff\xd8\xff",)),
    Target(
        "prediction_shard", fuzz_prediction_shard, lambda: [_prediction(), b"PAR1PAR1", b""],
        words=(b"PAR1", b"\x15\x00"), generate=_generate_prediction,
    ),
]  # fmt: skip
