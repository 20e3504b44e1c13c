"""Attributes of a folder of images, or of the images of a table: the answers as a table, with errors by image.

Nothing here needs a dataset: `AttributeReader.read_many` answers, and `batch_files` keeps what is finished.
"""

import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from inference.batch_files import BatchFiles, check_output
from inference.candidate_finder import describe_grounding, find_engine
from inference.catalogue_options import CatalogueOptions
from inference.text_source import TextSource
from product_vqa.atomic_io import atomic_write, one_writer
from product_vqa.csv_files import BROKEN_ARCHIVE, open_csv
from product_vqa.errors import InputError, argument, first_line
from product_vqa.modeling.answer import Answer
from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.ocr.interface import OcrEngine
from product_vqa.quoting import as_cell, one_line
from product_vqa.task.attributes import Schema

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
PART_SIZE = 512  # questions per file of finished answers
MAX_KEY_LENGTH = 10_000
RUN_KEY = b"product_vqa.run"
_HEADER = ("entity_name", "value", "unit", "confidence", "error")  # of the CSV, after the key

ANSWERS = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),  # the file, or the user's own
        pa.field("entity_name", pa.string(), nullable=False),
        pa.field("prediction", pa.string(), nullable=False),  # "" below the threshold, and for an image with an error
        pa.field("value", pa.string(), nullable=False),
        pa.field("number", pa.float64()),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("answer", pa.string()),  # as decoded; null for an image with an error, and so are the next columns
        pa.field("confidence", pa.float64()),
        pa.field("shown", pa.float64()),  # that the image shows the attribute; null without silence
        pa.field("number_confidence", pa.float64()),
        pa.field("unit_confidence", pa.float64()),
        pa.field("allowed_probability", pa.float64()),
        pa.field("alternatives", pa.list_(pa.struct({"prediction": pa.string(), "confidence": pa.float64()}))),
        pa.field("box", pa.list_(pa.float64())),  # as that of PREDICTIONS; null without OCR
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Question:
    key: str
    file: Path
    entity_name: str


@dataclass(frozen=True)
class Catalogue:
    """The questions, in order, and the name of the column of their keys."""

    key_name: str
    questions: Sequence[Question]
    num_images: int

    def fingerprint(self) -> str:
        """A hash of the questions and of their files as they are now, by size and date."""
        digest = hashlib.sha256()
        for question in self.questions:
            try:
                stat = question.file.stat()
                state = (stat.st_size, stat.st_mtime_ns)
            except (OSError, ValueError):
                state = (-1, -1)
            digest.update(json.dumps([question.key, str(question.file), question.entity_name, *state]).encode())
        return digest.hexdigest()


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder and its subfolders, by name. Raises InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise InputError(f"{folder}: has no image ({', '.join(SUFFIXES)})")
    return files


def read_folder(folder: Path, entity_names: Sequence[str]) -> Catalogue:
    """Ask for each attribute in each image. The key is the path in the folder."""
    files = list_images(folder)
    questions = [Question(file.relative_to(folder).as_posix(), file, name) for file in files for name in entity_names]
    return Catalogue("file", questions, len(files))


def read_table(
    table: Path, *, image_column: str, key_column: str | None, folder: Path, entity_names: Sequence[str]
) -> Catalogue:
    """Ask for each attribute in the image of each row of a CSV. The key is a column of the user's, as it was."""
    key_name = key_column or image_column
    if key_name in ANSWERS.names:
        raise InputError(f"{table}: the key column {key_name} has the name of a column of the output; rename it")
    questions: list[Question] = []
    num_rows = 0
    try:
        with io.TextIOWrapper(open_csv(table), encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines, strict=True)
            header = next(rows, [])
            positions = []
            for name in (key_name, image_column):
                if header.count(name) != 1:
                    found = one_line(", ".join(header), max_length=300)
                    raise InputError(f"{table}: needs one column {name}; it has {found or 'none'} (see `columns`)")
                positions.append(header.index(name))
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{table}, line {rows.line_num}: {len(row)} cells, but the header has {len(header)}"
                    )
                key, image = (row[position] for position in positions)
                if len(key) > MAX_KEY_LENGTH:
                    raise InputError(f"{table}, line {rows.line_num}: {key_name} has {len(key)} characters")
                questions += [Question(key, folder / image.strip(), name) for name in entity_names]
                num_rows += 1
    except (UnicodeDecodeError, csv.Error, *BROKEN_ARCHIVE) as error:
        raise InputError(f"{table}: cannot be read as a CSV in UTF-8 ({first_line(error)})") from error
    if not questions:
        raise InputError(f"{table}: has no rows")
    return Catalogue(key_name, questions, num_rows)


def choose_entities(schema: Schema, names: tuple[str, ...] | None) -> list[str]:
    """The attributes to ask for, in the schema's order: all, or those of `entities`. Raises InputError for others."""
    if unknown := sorted(set(names or ()) - set(schema.names)):
        raise InputError(f"`entities`: unknown {', '.join(unknown)}; known are {', '.join(schema.names)}")
    return [name for name in schema.names if names is None or name in names]


def answer_catalogue(
    catalogue: Catalogue,
    reader: AttributeReader,
    files: BatchFiles,
    *,
    batch_size: int | None,
    min_confidence: float,
    engine: OcrEngine | None = None,
) -> Iterator[int]:
    """Answer the questions that have no file yet, and save them part by part; gives the size of each part.

    An `engine` reads the images too, and grounds the answers.
    """
    parts = split_parts(catalogue)
    missing = [number for number, indexes in parts.items() if not files.has(number, indexes)]
    asked = chain.from_iterable(parts[number] for number in missing)
    items = ((catalogue.questions[index].file, catalogue.questions[index].entity_name) for index in asked)
    answers = reader.read_many(items, batch_size=batch_size, ocr=engine)
    for number in missing:
        indexes = parts[number]
        rows = [
            _row(index, catalogue.questions[index], answer, min_confidence=min_confidence)
            for index, answer in zip(indexes, islice(answers, len(indexes)), strict=True)
        ]
        files.save(number, pa.Table.from_pylist(rows, schema=ANSWERS))
        yield len(indexes)


def split_parts(catalogue: Catalogue) -> dict[int, range]:
    """Number of each part -> the indexes of its questions."""
    count = len(catalogue.questions)
    return {start // PART_SIZE: range(start, min(start + PART_SIZE, count)) for start in range(0, count, PART_SIZE)}


def _row(index: int, question: Question, answer: Answer, *, min_confidence: float) -> dict[str, Any]:
    row: dict[str, Any] = {"index": index, "key": question.key, "entity_name": question.entity_name}
    if answer.error is not None:
        # `items[7] folder/photo.jpg: reason`: the row has the file already.
        reason = answer.error.partition(f"{one_line(str(question.file), max_length=200)}: ")[2] or answer.error
        return row | {"prediction": "", "value": "", "unit": "", "error": reason}
    kept = answer.confidence >= min_confidence
    return row | {
        "prediction": answer.prediction if kept else "",
        "value": answer.value if kept else "",
        "number": answer.number if kept else None,
        "unit": answer.unit if kept else "",
        "answer": answer.text,
        "confidence": answer.confidence,
        "shown": answer.shown,
        "number_confidence": answer.number_confidence,
        "unit_confidence": answer.unit_confidence,
        "allowed_probability": answer.allowed_probability,
        "alternatives": [
            {"prediction": other.prediction, "confidence": other.confidence} for other in answer.alternatives
        ],
        "box": None if answer.box is None else list(answer.box),
    }


def write_answers(table: pa.Table, output: Path, *, key_name: str, run: dict[str, Any]) -> None:
    """Write X.parquet with all columns, then X.csv. The keys are as they were; other texts run no formula."""
    columns = table.drop_columns(["index"])
    columns = columns.rename_columns([key_name if name == "key" else name for name in columns.column_names])
    with atomic_write(output.with_suffix(".parquet")) as temporary:
        pq.write_table(columns.replace_schema_metadata({RUN_KEY: json.dumps(run)}), temporary)
    with atomic_write(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow([key_name, *_HEADER])
        for batch in table.to_batches():
            for row in batch.to_pylist():
                confidence = "" if row["confidence"] is None else f"{row['confidence']:.6g}"
                cells = [row["entity_name"], row["value"], row["unit"], confidence, row["error"] or ""]
                writer.writerow([row["key"], *map(as_cell, cells)])


def report_errors(table: pa.Table) -> int:
    """Name each image with an error once on stderr; returns how many there are."""
    reasons = {
        key: error
        for key, error in zip(table["key"].to_pylist(), table["error"].to_pylist(), strict=True)
        if error is not None
    }
    for key, error in reasons.items():
        print(f"{one_line(key)}: {one_line(error)}", file=sys.stderr)
    return len(reasons)


def predict_images(options: CatalogueOptions, predict_options: Any, entity_names: tuple[str, ...] | None) -> None:
    """Read the attributes of a folder or a table, and write the answers. `predict_options` are those of `predict`."""
    with argument("output"):
        output = check_output(predict_options.output)
    files = BatchFiles(output.with_suffix(".parts"), schema=ANSWERS)
    with one_writer(output, argument="output"):
        _predict_images(options, predict_options, entity_names, output=output, files=files)


def _predict_images(
    options: CatalogueOptions,
    predict_options: Any,
    entity_names: tuple[str, ...] | None,
    *,
    output: Path,
    files: BatchFiles,
) -> None:
    reader = AttributeReader.from_pretrained(
        predict_options.adapter,
        base_model=predict_options.base_model,
        dtype=predict_options.dtype,
        load_in_4bit=predict_options.load_in_4bit,
        constrain=predict_options.constrain == "on",
        allow_empty=predict_options.allow_empty,
        num_beams=predict_options.num_beams,
    )
    names = choose_entities(reader.schema, entity_names)
    if options.table is None:
        with argument("images"):
            catalogue = read_folder(Path(str(options.images)), names)
    else:
        table = Path(options.table)
        image_column, key_column = options.column_names()
        folder = table.parent if options.images is None else Path(options.images)
        with argument("table"):
            catalogue = read_table(
                table, image_column=image_column, key_column=key_column, folder=folder, entity_names=names
            )
    # Not by default, even where it gains: it takes seconds per image, which on a GPU is all of the time.
    engine = find_engine("ocr", reader) if predict_options.ground == "ocr" else None
    settings = ("constrain", "allow_empty", "num_beams", "min_confidence")
    run = {
        "questions": len(catalogue.questions),
        "questions_sha256": catalogue.fingerprint(),
        **{name: getattr(predict_options, name) for name in settings},
        **reader.provenance,
        **describe_grounding(None if engine is None else TextSource(engine=engine), reader.calibration),
    }
    with argument("output"):
        files.open(run)
    parts = answer_catalogue(
        catalogue, reader, files, batch_size=predict_options.batch_size,
        min_confidence=predict_options.min_confidence, engine=engine,
    )  # fmt: skip
    with tqdm(total=len(catalogue.questions), desc="answers") as progress:
        for size in parts:
            progress.update(size)
    table_of_answers = files.load(split_parts(catalogue))
    write_answers(table_of_answers, output, key_name=catalogue.key_name, run=run)
    files.remove()
    num_broken = report_errors(table_of_answers)
    answered = len(table_of_answers) - table_of_answers["prediction"].to_pylist().count("")
    print(
        f"{output}: {len(table_of_answers)} rows about {catalogue.num_images} images, {answered} answered; "
        f"{num_broken} images cannot be read"
    )
