"""Hostile datasets: folders that hold Parquet files and cards of a stranger, by name."""

import gzip
import json
import os
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.hostile.adapters import Sources, Touch

FILE = "data/validation-00000-of-00001.parquet"
TEXTS = ("image_link", "group_id", "entity_name", "entity_value", "entity_value_raw")
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
ROWS = 3


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[Path, Sources], None]  # the folder exists and is empty


def png(color: str = "red") -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "PNG")
    return file.getvalue()


def good_columns(rows: int = ROWS) -> dict[str, Any]:
    """The columns of a dataset as `dataset_builder.build` makes it."""
    return {
        "index": pa.array(range(rows), pa.int64()),
        "image": pa.array([{"bytes": png(), "path": None}] * rows, IMAGE),
        "image_link": pa.array([f"https://example.com/{row}.jpg" for row in range(rows)]),
        "group_id": pa.array(["1"] * rows),
        "entity_name": pa.array(["item_weight"] * rows),
        "entity_value": pa.array(["5.0 gram"] * rows),
        "entity_value_raw": pa.array(["5 gram"] * rows),
    }


def write(folder: Path, columns: dict[str, Any], *, name: str = FILE, metadata: Any = None, **options: Any) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, file, **options)


def _columns(**changes: Any) -> Callable[[Path, Sources], None]:
    """The good columns, of which some are others; None drops one."""

    def make(folder: Path, sources: Sources) -> None:
        columns = {**good_columns(), **changes}
        write(folder, {name: column for name, column in columns.items() if column is not None})

    return make


def _image(*stored: Any, kind: Any = IMAGE) -> Callable[[Path, Sources], None]:
    """The image of row 1. In a text, SECRET and SERVER are replaced by what they must not reach."""

    def fill(value: Any, sources: Sources) -> Any:
        if isinstance(value, str):
            return value.replace("SECRET", str(sources.secret)).replace("SERVER", sources.server)
        return {key: fill(one, sources) for key, one in value.items()} if isinstance(value, dict) else value

    def make(folder: Path, sources: Sources) -> None:
        values = [fill(one, sources) for one in (stored if len(stored) == ROWS else stored * ROWS)]
        write(folder, {**good_columns(), "image": pa.array(values, kind)})

    return make


def dataset_cases() -> list[Case]:
    groups = {
        "image": _images(), "bytes": _image_bytes(), "card": _cards(), "schema": _schemas(), "file": _files(),
        "values": _values(), "size": _sizes(),
    }  # fmt: skip
    return [Case(f"{group}: {name}", make) for group, cases in groups.items() for name, make in cases]


Made = Iterator[tuple[str, Callable[[Path, Sources], None]]]


def _images() -> Made:
    for path in ("SECRET", "SERVER/x.png", "file://SECRET", "hf://datasets/user/x/y.png", "zip://x::SECRET",
    "/dev/zero",
                 "../../../etc/passwd", "~/x.png", "\0", "x" * 10_000, "", "x\ny", "simplecache::SERVER/x", "s3://a/b",
                 "\\\\server\\share", "memory://x", "github://a:b@/c", "fifo"):  # fmt: skip
        yield f"only the path {path[:25]!a}", _image({"bytes": None, "path": path})
        yield f"bytes and the path {path[:25]!a}", _image({"bytes": png(), "path": path})
    yield "only the path, in one row", _image({"bytes": png(), "path": None}, None, {"bytes": None, "path": "SECRET"})
    yield "neither bytes nor path", _image({"bytes": None, "path": None})
    kinds: dict[str, tuple[Any, Any]] = {
        "text": ("SECRET", pa.string()), "URL": ("SERVER/x.png", pa.string()), "binary": (png(), pa.binary()),
        "list of binary": ([png()], pa.list_(pa.binary())),
        "list of structs": ([{"bytes": None, "path": "SECRET"}], pa.list_(IMAGE)),
        "list of texts": (["SECRET"], pa.list_(pa.string())),
        "only a path": ({"path": "SECRET"}, pa.struct({"path": pa.string()})),
        "only bytes": ({"bytes": png()}, pa.struct({"bytes": pa.binary()})),
        "nested": ({"bytes": {"bytes": None, "path": "SECRET"}, "path": None},
        pa.struct({"bytes": IMAGE, "path": pa.string()})),
        "large binary": ({"bytes": png(), "path": "SECRET"},
        pa.struct({"bytes": pa.large_binary(), "path": pa.large_string()})),
        "swapped": ({"path": "SECRET", "bytes": None}, pa.struct({"path": pa.string(), "bytes": pa.binary()})),
        "more fields": ({"bytes": None, "path": "SECRET", "url": "SERVER"},
        pa.struct([*IMAGE, pa.field("url", pa.string())])),
        "path as bytes": ({"bytes": b"x", "path": b"\xff"}, pa.struct({"bytes": pa.binary(), "path": pa.binary()})),
        "integers": ({"bytes": 1, "path": 2}, pa.struct({"bytes": pa.int64(), "path": pa.int64()})),
        "bytes as list": ({"bytes": [1], "path": "x"},
        pa.struct({"bytes": pa.list_(pa.uint8()), "path": pa.string()})),
        "bytes as text": ({"bytes": "SECRET", "path": None}, pa.struct({"bytes": pa.string(), "path": pa.string()})),
        "map": ([("a", "SECRET")], pa.map_(pa.string(), pa.string())), "number": (1.5, pa.float64()),
        "nothing": (None, pa.null()),
        "fixed size": (b"x" * 8, pa.binary(8)), "true": (True, pa.bool_()),
    }  # fmt: skip
    for name, (value, kind) in kinds.items():
        yield f"stored as {name}", _image(value, kind=kind)


def _image_bytes() -> Made:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (10**6).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    for name, data in {
        "empty": b"", "garbage": b"\xff" * 100, "10**12 pixels": header, "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "HTML": b"<script>alert(1)</script>", "cut": png()[:40], "ZIP": b"PK\x03\x04", "pickle": pickle.dumps([1]),
    }.items():  # fmt: skip
        yield name, _image({"bytes": data, "path": None})


def _cards() -> Made:
    files: dict[str, Any] = {
        "http": "SERVER/x.parquet", "file": "file://SECRET", "hf": "hf://datasets/user/x/**", "absolute": "SECRET",
        "above": "../*.parquet", "far above": "../../../../../../etc/*", "chain": "zip://*.parquet::SERVER/x.zip",
        "cache": "simplecache::SERVER/x.parquet", "all": "**", "brackets": "[" * 1000,
        "stars": "*" * 1000 + "x", "null": None,
        "number": 5, "list": ["SERVER/a.parquet", "SECRET"], "nested list": [["a"]], "numbers": [1, 2], "empty": [],
        "dicts without path": [{"split": "validation"}], "path is null": [{"split": "validation", "path": None}],
        "path is a mapping": [{"split": "validation", "path": {"a": "b"}}],
        "split above": [{"split": "../../x", "path": FILE}],
        "http in a split": [{"split": "validation", "path": "SERVER/x.parquet"}],
        "secret in a split": [{"split": "validation", "path": ["SECRET", "../*"]}],
        "many": [{"split": f"s{number}", "path": "*"} for number in range(20_000)],
    }  # fmt: skip
    for name, value in files.items():
        text = json.dumps({"configs": [{"config_name": "default", "data_files": value}]})
        yield f"data_files: {name}", _card(text)
    for name, text in {
        "configs is a number": "configs: 7", "configs is a text": "configs: x",
        "configs without name": "configs: [{data_files: x}]",
        "no YAML": "a: [", "tabs": "a:\n\t- b", "a tag": "a: !!python/object/apply:os.system ['true']",
        "a list": "- a",
        "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{chr(98 + level)}: &{chr(98 + level)} [{','.join(['*' + chr(97 + level)] * 9)}]\n" for level in range(9)
        ),
        "nested": "a: " + "[" * 5000, "recursive": "a: &a [*a]", "a number of 10,000 digits": "a: " + "9" * 10_000,
        "NUL": "a: \0", "a date": "a: 2026-99-99",
        "features": json.dumps({"dataset_info": {"features": [{"name": "image", "dtype": "os.system"}], "splits": 5}}),
        "a builder": json.dumps({"configs": [{"config_name": "default", "builder_name": "webdataset",
        "data_dir": "/etc"}]}),
    }.items():  # fmt: skip
        yield name, _card(text)
    for name, data in {
        "not UTF-8": b"---\nconfigs: \xff\n---\n",
        "no end": b"---\na: b\n",
        "3 MB": b"---\n" + b"#\n" * 1_500_000,
    }.items():
        yield name, _card_bytes(data)
    for kind in ("pipe", "folder", "link to a secret", "dangling link", "sparse"):
        yield f"README.md is a {kind}", _with_file("README.md", kind)


def _card(text: str) -> Callable[[Path, Sources], None]:
    def make(folder: Path, sources: Sources) -> None:
        write(folder, good_columns())
        filled = text.replace("SECRET", str(sources.secret)).replace("SERVER", sources.server)
        (folder / "README.md").write_text(f"---\n{filled}\n---\n")

    return make


def _card_bytes(data: bytes) -> Callable[[Path, Sources], None]:
    def make(folder: Path, sources: Sources) -> None:
        write(folder, good_columns())
        (folder / "README.md").write_bytes(data)

    return make


def _with_file(name: str, kind: str) -> Callable[[Path, Sources], None]:
    """A good dataset, one of whose files is something else."""

    def make(folder: Path, sources: Sources) -> None:
        write(folder, good_columns())
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(file)
        elif kind == "folder":
            file.mkdir()
        elif kind == "sparse":
            with file.open("wb") as stream:
                stream.truncate(2 * 1024**3)
        else:
            targets: dict[str, Any] = {
                "link to a secret": sources.secret, "dangling link": folder / "none", "link to /dev/zero": "/dev/zero",
                "loop of links": file, "link to another dataset": sources.secret.with_suffix(".parquet"),
            }  # fmt: skip
            file.symlink_to(targets[kind])

    return make


def _schemas() -> Made:
    def features(**changed: Any) -> bytes:
        texts = {name: {"dtype": "string", "_type": "Value"} for name in TEXTS}
        known: dict[str, Any] = {"index": {"dtype": "int64", "_type": "Value"}, "image": {"_type": "Image"}, **texts}
        return json.dumps({"info": {"features": {**known, **changed}}}).encode()

    for name, value in {
        "garbage": b"\xff{", "nested": b"[" * 10_000, "a list": b"[]", "a number": b"5", "no features": b"{}",
        "a feature of an unknown type": features(image={"_type": "os.system"}),
        "a text as feature": features(image="x"),
        "URLs as images": features(image_link={"_type": "Image"}),
        "URLs as audio": features(image_link={"_type": "Audio"}),
        "URLs as video": features(image_link={"_type": "Video"}), "URLs as PDF": features(image_link={"_type": "Pdf"}),
        "names from a file": features(group_id={"_type": "ClassLabel", "names_file": "/etc/passwd"}),
        "a billion names": features(group_id={"_type": "ClassLabel", "num_classes": 10**9}),
        "one column more": features(more={"_type": "Image"}), "images in a list": features(image=[{"_type": "Image"}]),
        "an array": features(group_id={"_type": "Array2D", "shape": [10**9, 10**9], "dtype": "float32"}),
    }.items():  # fmt: skip
        yield f"features: {name}", _metadata({b"huggingface": value})
    for name, value in {"garbage": b"\xff", "text": b"abc", "base64": b"AAAA" * 100}.items():
        yield f"ARROW:schema: {name}", _metadata({b"ARROW:schema": value}, store_schema=False)
    yield "pandas: garbage", _metadata({b"pandas": b"{"})

    def extension(name: str, payload: Callable[[Sources], bytes]) -> Callable[[Path, Sources], None]:
        def make(folder: Path, sources: Sources) -> None:
            tags = {b"ARROW:extension:name": name.encode(), b"ARROW:extension:metadata": payload(sources)}
            columns = good_columns()
            schema = pa.schema(
                [
                    pa.field(key, value.type, metadata=tags if key == "group_id" else None)
                    for key, value in columns.items()
                ]
            )
            file = folder / FILE
            file.parent.mkdir(parents=True)
            pq.write_table(pa.table(list(columns.values()), schema=schema), file)

        return make

    def touch(sources: Sources) -> bytes:
        return pickle.dumps(Touch(sources.mark))

    for name in ("arrow.py_extension_type", "arrow.json", "arrow.uuid", "arrow.fixed_shape_tensor", "none.x",
                 "datasets.features.features.Array2DExtensionType"):  # fmt: skip
        yield f"extension type {name}", extension(name, touch)
    more = {f"more {number}": [1] * ROWS for number in range(1100)}
    yield "1,100 columns more", _columns(**more)
    yield (
        "a column more that is only paths",
        _columns(more=pa.array([{"bytes": None, "path": "/etc/passwd"}] * ROWS, IMAGE)),
    )
    yield "a column with an escape sequence", _columns(**{"\x1b[31m\n": [1] * ROWS, "group_id": None})

    def twice(folder: Path, sources: Sources) -> None:
        columns = good_columns()
        (folder / "data").mkdir()
        table = pa.Table.from_arrays([*columns.values(), columns["image"]], [*columns, "image"])
        pq.write_table(table, folder / FILE)

    yield "a column twice", twice


def _metadata(metadata: dict[bytes, bytes], **options: Any) -> Callable[[Path, Sources], None]:
    return lambda folder, sources: write(folder, good_columns(), metadata=metadata, **options)


def _files() -> Made:
    for kind in ("pipe", "folder", "sparse", "link to a secret", "dangling link", "link to /dev/zero", "loop of links",
                 "link to another dataset"):  # fmt: skip
        yield f"the Parquet file is a {kind}", _with_file(FILE, kind)

    def changed(change: Callable[[bytes], bytes]) -> Callable[[Path, Sources], None]:
        def make(folder: Path, sources: Sources) -> None:
            write(folder, good_columns())
            (folder / FILE).write_bytes(change((folder / FILE).read_bytes()))

        return make

    for number in range(12):
        yield f"cut at {number / 12:.0%}", changed(lambda data, share=number / 12: data[: int(len(data) * share)])  # type: ignore[misc]

    def garble(data: bytes, seed: int) -> bytes:
        rng, garbled = random.Random(seed), bytearray(data)
        for _ in range(1 + seed % 4):
            garbled[rng.randrange(4, len(data) - 4)] ^= 1 << rng.randrange(8)
        return bytes(garbled)

    for seed in range(60):
        yield f"garbled {seed}", changed(lambda data, seed=seed: garble(data, seed))  # type: ignore[misc]
    yield "compressed", changed(gzip.compress)
    yield "encrypted", changed(lambda data: b"PARE" + data[4:-4] + b"PARE")
    yield "only magic numbers", changed(lambda data: b"PAR1PAR1")
    yield "a footer of 2 GB", changed(lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1")
    yield "a CSV", changed(lambda data: b"index,image\n1,/etc/passwd\n")
    for name in ("data/validation::http:-x-0.parquet", "data/validation-\n0.parquet", "data/validation-[0].parquet",
                 "data/validation-*.parquet", "data/validation-\\..-0.parquet",
                 "data/validation-\x1b[31m-0.parquet"):  # fmt: skip
        yield f"named {name!a}", lambda folder, sources, name=name: write(folder, good_columns(), name=name)  # type: ignore[misc]
    yield "no files", lambda folder, sources: None


def _values() -> Made:
    for name in ("index", *TEXTS):
        kind = pa.int64() if name == "index" else pa.string()
        good = good_columns()[name].to_pylist()
        yield f"{name} is missing", _columns(**{name: None})
        yield f"{name} has a null", _columns(**{name: pa.array([good[0], None, good[2]], kind)})
        yield f"{name} is null", _columns(**{name: pa.nulls(ROWS, kind)})
        yield f"{name} is a list", _columns(**{name: [[one] for one in good]})
        yield f"{name} is a number", _columns(**{name: [1.5] * ROWS})
        yield f"{name} is true", _columns(**{name: [True] * ROWS})
        if name != "index":
            for what, text in {
                "not UTF-8": b"\xff\xfe",
                "a surrogate": b"\xed\xa0\x80",
                "cut": "ü".encode()[:1],
            }.items():
                values = pa.array([b"item_weight", text, b"x"], pa.binary())
                damaged = pa.Array.from_buffers(pa.string(), ROWS, values.buffers())
                yield f"{name} is {what}", _columns(**{name: damaged})
            for what, plain in {
                "empty": "", "control characters": "\0\x1b[2J\n\r", "markup": "<script>alert(1)</script>",
                "70,000 long": "x" * 70_000,
                "right to left": "\u202e\u2066", "a formula": "=cmd|' /C calc'!A0",
            }.items():  # fmt: skip
                yield f"{name} is {what}", _columns(**{name: [plain] * ROWS})
    for what, indexes in {
        "twice the same": [1, 1, 2], "negative": [-1, -2, -3], "the largest": [2**63 - 1, -(2**63), 0],
    }.items():  # fmt: skip
        yield f"index: {what}", _columns(index=pa.array(indexes, pa.int64()))
    yield "index: 32 bits", _columns(index=pa.array([0, 1, 2], pa.int32()))
    yield "index: unsigned", _columns(index=pa.array([2**64 - 1, 1, 2], pa.uint64()))
    yield "index: a date", _columns(index=pa.array([0, 1, 2], pa.timestamp("ns")))
    yield "entity_name: a dictionary", _columns(entity_name=pa.array(["item_weight"] * ROWS).dictionary_encode())
    yield "entity_name: large texts", _columns(entity_name=pa.array(["item_weight"] * ROWS, pa.large_string()))
    yield (
        "entity_value: a label of 5,000 digits",
        _columns(entity_value=["9" * 5000 + ".0 gram"] * ROWS, entity_value_raw=["9" * 5000 + ".0 gram"] * ROWS),
    )
    yield "no rows", lambda folder, sources: write(folder, good_columns(0))


def _sizes() -> Made:
    def bomb(rows: int, **changes: Any) -> Callable[[Path, Sources], None]:
        def make(folder: Path, sources: Sources) -> None:
            options = {"row_group_size": changes.get("row_group_size", rows)}
            columns = good_columns(1)
            repeated = {name: pa.concat_arrays([column] * rows) for name, column in columns.items()}
            write(
                folder,
                {**repeated, **{name: value for name, value in changes.items() if name != "row_group_size"}},
                **options,
            )

        return make

    yield "an image of 1 MB, 3,000 times", _repeated({"image": {"bytes": b"x" * 1_000_000, "path": None}}, 3_000)
    yield "a text of 1 MB, 3,000 times", _repeated({"image_link": "x" * 1_000_000}, 3_000)
    yield "in 30 row groups", _repeated({"group_id": "x" * 1_000_000}, 3_000, row_group_size=100)
    yield "100,000 rows of empty texts", bomb(100_000, **{name: pa.array([""] * 100_000) for name in TEXTS})
    yield "a billion nulls", bomb(10, image=pa.nulls(10, IMAGE))


def _repeated(value: dict[str, Any], times: int, **options: Any) -> Callable[[Path, Sources], None]:
    """One value that is stored once, and takes gigabytes in memory. It is written a few rows at a time."""

    def make(folder: Path, sources: Sources) -> None:
        columns = {name: pa.concat_arrays([column] * 100) for name, column in good_columns(1).items()}
        for name, one in value.items():
            kind = IMAGE if name == "image" else pa.string()
            index = pa.array([0] * 100, pa.int32())
            columns[name] = (
                pa.DictionaryArray.from_arrays(index, pa.array([one], kind))
                if name != "image"
                else pa.array([one] * 100, kind)
            )
        table = pa.table(columns)
        (folder / "data").mkdir()
        with pq.ParquetWriter(folder / FILE, table.schema) as writer:
            for _ in range(times // 100):
                writer.write_table(table)

    return make
