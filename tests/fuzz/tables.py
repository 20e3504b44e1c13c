"""Targets: train.csv and test.csv, plain or compressed, and submissions."""

import bz2
import csv
import gzip
import io
import lzma
import random
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa

from inference.check import Verdict
from inference.submission import PREDICTIONS, read_predictions, write_submission
from product_vqa.errors import InputError
from product_vqa.tables.rows import Table
from product_vqa.task.schema import ENTITIES, UNITS_BY_ENTITY
from tests.dataset_builder.challenge import read_test_csv, read_train_csv
from tests.fuzz.target import Target, assert_message
from tests.inference.challenge import check_submission

TRAIN = b"""index,image_link,group_id,entity_name,entity_value
0,https://x/a.jpg,1,width,12.5 centimetre
1,https://x/b.jpg,2,item_weight,"[100.0, 240.0] gram"
7,https://x/c.jpg,2,voltage,"5 volt to
 6 volt"
"""
TEST = b"""index,image_link,group_id,entity_name
0,http://x/a.jpg,1,width
5,http://x/a.jpg,1,item_weight
6,http://x/b.jpg,1,voltage
9,http://x/c.jpg,1,item_volume
"""
SUBMISSION = b"index,prediction\n0,12.5 centimetre\n5,\n6,230 volt\n9,2 cubic feet\n"
_ENTITY_BY_INDEX = {0: "width", 5: "item_weight", 6: "voltage", 9: "item_volume"}


@cache
def folder() -> Path:
    """A folder that ends with the process."""
    made = tempfile.TemporaryDirectory(prefix="fuzz-tables-")
    _kept.append(made)
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def _fuzz_table(data: bytes, read: Callable[[Path], Table], name: str) -> None:
    file = folder() / name
    file.write_bytes(data)
    try:
        table = read(file)
    except InputError as error:
        assert_message(error, names=name)
        return
    assert table.name == name and len(table.sha256) == 64 and table.rows
    assert [row.position for row in table.rows] == list(range(len(table.rows)))
    assert len({row.index for row in table.rows}) == len(table.rows)
    assert all(row.entity_name in ENTITIES and row.image_link == row.image_link.strip() for row in table.rows)


def fuzz_train_csv(data: bytes) -> None:
    """A CSV is read with consistent rows, or refused in one line that names the file."""
    _fuzz_table(data, read_train_csv, "train.csv")


def fuzz_test_csv(data: bytes) -> None:
    _fuzz_table(data, read_test_csv, "test.csv")


def _check(submission: Path, *, official: bool = False) -> Verdict | None:
    test = folder() / "fixed_test.csv"
    if not test.exists():
        test.write_bytes(TEST)
    try:
        return check_submission(submission, test, official=official)
    except InputError as error:
        assert_message(error)
        return None


def fuzz_submission(data: bytes) -> None:
    """A submission is accepted, refused with problems, or cannot be checked, which is one line."""
    file = folder() / "submission.csv"
    file.write_bytes(data)
    verdict = _check(file)
    official = _check(file, official=True)
    assert (verdict is None) == (official is None)
    if verdict is None or official is None:
        return
    for one in (verdict, official):
        assert one.ok == (not one.problems) and one.answered + one.empty == one.rows
    assert official.ok or not verdict.ok, "stricter with --official"
    if verdict.ok:
        read = read_predictions(file)
        assert sorted(read["index"]) == sorted(_ENTITY_BY_INDEX)


def fuzz_written_submission(data: bytes) -> None:
    """What predict writes is accepted by check, and read back as it was."""
    rng = random.Random(data)
    predictions = {index: _prediction(rng, entity) for index, entity in _ENTITY_BY_INDEX.items()}
    rows = [
        {"index": index, "prediction": prediction, "image_link": rng.choice((None, "", "a,b", '"', "\n", "é\u2028"))}
        for index, prediction in predictions.items()
    ]
    output = folder() / "written.csv"
    write_submission(pa.Table.from_pylist(rows, schema=PREDICTIONS), output, run={"data": data.decode("latin-1")})
    verdict = _check(output)
    assert verdict is not None and verdict.ok, verdict
    for file in (output, output.with_suffix(".parquet")):
        read = read_predictions(file)
        assert dict(zip(read["index"], read["prediction"], strict=True)) == predictions


def _prediction(rng: random.Random, entity: str) -> str:
    from product_vqa.task.quantity import format_quantity, parse_quantity

    if rng.random() < 0.2:
        return ""
    digits = str(rng.getrandbits(rng.choice((1, 4, 10, 64, 200))))
    fraction = rng.choice(("", ".0", ".5", ".00034", f".{rng.getrandbits(100)}"))
    return format_quantity(parse_quantity(f"{digits}{fraction} {rng.choice(UNITS_BY_ENTITY[entity])}"))


def _zip(data: bytes, *names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # of 1980: the same bytes each time
    return stream.getvalue()


def _compressed(data: bytes) -> list[bytes]:
    return [
        data, data.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + data, gzip.compress(data, mtime=0), bz2.compress(data),
        lzma.compress(data), _zip(data, "a.csv"), _zip(data, "a.csv", "b.csv"),
        gzip.compress(data, mtime=0) * 2, gzip.compress(gzip.compress(data, mtime=0), mtime=0),
        gzip.compress(data + b"8,https://x/d.jpg,2,voltage,5 volt\n" * 2000, mtime=0),
    ]  # fmt: skip


def _generate_csv(rng: random.Random, header: list[str], rows: int) -> bytes:
    columns = [*header]
    if rng.random() < 0.2:
        rng.shuffle(columns)
    if rng.random() < 0.2:
        columns.append(rng.choice(("extra", "index", "", "prediction")))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=rng.choice(("\n", "\r\n", "\r")), quoting=rng.choice((0, 1)))
    writer.writerow(columns)
    for number in range(rng.randrange(rows)):
        values = {
            "index": rng.choice((str(number), str(number), f"{number}.0", "x", "", "1e3", str(rng.getrandbits(70)))),
            "image_link": rng.choice(("https://x/a.jpg", " https://x/ä.jpg\n", "", "\x00")),
            "group_id": rng.choice(("1", "", "x\ny")),
            "entity_name": rng.choice((*ENTITIES, "color")) if rng.random() < 0.1 else rng.choice(ENTITIES),
            "entity_value": rng.choice(("5 gram", "", "[1, 2] volt", "x" * 300, '"')),
            "prediction": rng.choice(
                ("5 gram", "12 volt", "", "nan", "NA", "5 gm", "-1 gram", "١ gram", "1\u20285 gram")
            ),
        }
        writer.writerow([values.get(column, "x") for column in columns])
    return stream.getvalue().encode("utf-8", "surrogatepass")


def _generate_train(rng: random.Random) -> bytes:
    return _generate_csv(rng, ["index", "image_link", "group_id", "entity_name", "entity_value"], 8)


def _generate_test(rng: random.Random) -> bytes:
    return _generate_csv(rng, ["index", "image_link", "group_id", "entity_name"], 8)


def _generate_submission(rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        rows = [f"{index},{rng.choice(('', '5 gram', '1 volt', '2 inch', '3 cup'))}" for index in _ENTITY_BY_INDEX]
        rng.shuffle(rows)
        return ("index,prediction\n" + "\n".join(rows)).encode()
    return _generate_csv(rng, ["index", "prediction"], 8)


_WORDS = (
    b"index", b"image_link", b"group_id", b"entity_name", b"entity_value", b"prediction", b",", b'"', b'""', b"\r",
    b"\n", b"\x1f\x8b", b"BZh91AY&", b"\xfd7zXZ\x00", b"PK\x03\x04", b"PAR1", b"item_weight", b"\t", b";",
)  # fmt: skip

TARGETS = [
    Target("train_csv", fuzz_train_csv, lambda: _compressed(TRAIN), words=_WORDS, generate=_generate_train),
    Target("test_csv", fuzz_test_csv, lambda: _compressed(TEST), words=_WORDS, generate=_generate_test),
    Target(
        "submission", fuzz_submission, lambda: _compressed(SUBMISSION), words=_WORDS, generate=_generate_submission
    ),
    Target("written_submission", fuzz_written_submission, lambda: [b""], generate=lambda rng: rng.randbytes(8)),
]
