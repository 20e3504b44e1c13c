"""What an image says is data: `predict --reader ocr` answers validly, and no file that it leads to has more of it."""

import csv
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image

from inference import predict, report, text_source
from product_vqa.ocr.candidates import MAX_CANDIDATES
from product_vqa.ocr.image_text import ImageText
from product_vqa.schemas import save_schema
from product_vqa.task.attributes import Schema
from product_vqa.task.features import FEATURES
from product_vqa.task.kinds import ChoiceKind, IntegerKind, Kind, MultiChoiceKind, PatternKind, QuantityKind
from product_vqa.task.schema import CHALLENGE
from tests.commands import call
from tests.example_schemas import SCHEMAS
from tests.hostile.harness import Trap
from tests.hostile.image_texts import MARK, hostile_texts

TEXTS = hostile_texts()
ALL_SCHEMAS = {"challenge": CHALLENGE, **SCHEMAS}
CORNERS = ((0.1, 0.1, 0.9, 0.1, 0.9, 0.2, 0.1, 0.2), (0.1, 0.2, 0.9, 0.2, 0.9, 0.3, 0.1, 0.3))


def test_there_are_hundreds_of_texts() -> None:
    assert len(TEXTS) == len(set(TEXTS)) > 200


class StrangersTexts:
    """An OCR engine that finds the text whose number is the colour of the image, above a unit."""

    description = "texts of strangers"

    def read(self, image: Image.Image) -> ImageText:
        red, green, _ = np.asarray(image.convert("RGB"))[0, 0].tolist()
        texts = zip((TEXTS[red + 256 * green], "g"), CORNERS, strict=True)
        boxes = [{"text": text, "score": 0.9, "corners": corners} for text, corners in texts]
        return ImageText.from_dict({"width": 800, "height": 600, "texts": boxes})


def label_of(kind: Kind) -> str:
    """Some label that no text has, so that each answer is a mistake, which the report shows."""
    match kind:
        case QuantityKind():
            return f"{kind.format_number(Decimal(7))} {kind.units[-1]}"
        case IntegerKind():
            return "7"
        case ChoiceKind(values=values) | MultiChoiceKind(values=values):
            return list(values)[-1]
        case PatternKind():
            return "ZZ-999"
        case _:
            return "Brand"


def save_questions(folder: Path, schema: Schema) -> Path:
    """A dataset that asks about every attribute of every image."""
    (folder / "data").mkdir(parents=True)
    save_schema(schema, folder)
    rows: list[dict[str, Any]] = []
    for number in range(len(TEXTS)):
        image = Image.new("RGB", (8, 8), (number % 256, number // 256, 0))
        for attribute in schema.attributes.values():
            label = label_of(attribute.kind)
            row = {"index": len(rows), "image": image, "image_link": f"https://x/{number}.jpg", "group_id": "1"}
            rows.append(row | {"entity_name": attribute.name, "entity_value": label, "entity_value_raw": label})
    file = folder / "data" / "validation-00000-of-00001.parquet"
    Dataset.from_list(rows, features=FEATURES).to_parquet(file)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_SCHEMAS)
def test_whatever_an_image_says_files_have_valid_answers_only(
    name: str, trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = ALL_SCHEMAS[name]
    dataset, output = save_questions(tmp_path / "dataset", schema), tmp_path / "s.csv"
    monkeypatch.setattr(text_source, "load_engine", StrangersTexts)
    options = ("--dataset", dataset, "--split", "validation")
    call(predict.main, monkeypatch, "--reader", "ocr", *options, "--output", output)

    rows = pq.read_table(tmp_path / "s.parquet").to_pylist()
    assert len(rows) == len(TEXTS) * len(schema.names)
    assert len({row["prediction"] for row in rows}) > 5  # or else this test would not see much
    for row in rows:
        assert row["reason"] is None
        others = [one["prediction"] for one in row["alternatives"]]
        assert len(others) < MAX_CANDIDATES
        for answer in (row["prediction"], *others):
            assert not answer or schema[row["entity_name"]].is_valid(answer), (row["entity_name"], answer)
            assert not schema[row["entity_name"]].excess(answer)
    with output.open(newline="") as lines:
        submitted = list(csv.reader(lines))
    assert submitted == [["index", "prediction"], *([str(row["index"]), row["prediction"]] for row in rows)]
    assert not [row for row in submitted if re.match(r"[=+\-@\t\r]", row[1])]

    page = tmp_path / "report.html"
    call(
        report.main, monkeypatch, "--predictions", tmp_path / "s.parquet", *options,
        "--output", page, "--bootstrap", "0", "--max_errors", "300",
    )  # fmt: skip
    html = page.read_text()
    assert html.count("<script") == 1 and not re.search(r"\son\w+=|javascript:", html)
    assert html.count("<li data-entity=") == 300
    written = [file.read_bytes() for file in (output, tmp_path / "s.parquet", page)]
    assert not [content for content in written if MARK.encode() in content]
