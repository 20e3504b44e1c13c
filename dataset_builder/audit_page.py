"""The page of an audit: suspicious labels with their images, and what a person decides about each.

The page loads nothing and sends nothing. The browser keeps the decisions, and saves them as a CSV that `corrections`
reads.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from dataset_builder.audit_rows import AuditedRow, LabelledRow
from dataset_builder.label_ranking import is_same
from product_vqa.html_pages import embed_image, render_page
from product_vqa.hub import Location
from product_vqa.hub.urls import page_url
from product_vqa.images import ImageError, as_image
from product_vqa.provenance import DATASET_FILES, content_sha256
from product_vqa.quoting import as_cell
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import IntegerKind, QuantityKind

TEMPLATE = Path(__file__).parent / "templates" / "audit.html"
IMAGE_SIZE = 448  # px, at most: small print must be readable
_ANSWERS_SHOWN = 3
# Of what a person types, the page checks this much; `build` reads it by the schema.
_PATTERNS = {QuantityKind: r"-?[0-9]*[.,]?[0-9]+ *[^0-9 ].*", IntegerKind: r"-?[0-9]+"}


def render_audit(
    rows: Sequence[AuditedRow],
    dataset: Dataset,
    *,
    schema: Schema,
    location: Location,
    split: str,
    num_rows: int,
    sources: Sequence[tuple[str, str]],
) -> str:
    """The HTML of these rows, the first of `num_rows`. `sources` are names and texts for its heading."""
    content = f"{content_sha256(location, DATASET_FILES) or location} {split}"
    about = [
        ("dataset", f"{location}, split {split}", _url(location)),
        *((name, text, None) for name, text in sources),
    ]
    context = {
        "title": f"Labels of {location.name if location.folder is None else location.folder.name} that look wrong",
        "about": about,
        "num_rows": num_rows,
        "rows": [_describe(one, dataset, schema) for one in rows],
        # Decisions are kept for the dataset: an audit of the same rows in another order has them, too.
        "storage_key": f"product-vqa audit {hashlib.sha256(content.encode()).hexdigest()[:16]}",
    }
    return render_page(TEMPLATE, context)


def _url(location: Location) -> str | None:
    if location.revision is None:
        return None
    return f"{page_url(location.name, repo_type='dataset')}/tree/{location.revision}"


def _describe(one: AuditedRow, dataset: Dataset, schema: Schema) -> dict[str, Any]:
    row, attribute = one.row, schema[one.row.key.entity_name]
    candidates = [
        {
            "answer": candidate.answer,
            "evidence": candidate.evidence.value,
            "score": candidate.score,
            "is_label": is_same(attribute, row.label, candidate.answer),
            "box": _percentages(candidate.box),
        }
        for candidate in one.candidates or ()
    ]
    return {
        "cells": cells_of(row),
        "index": row.key.index,
        "question": attribute.question,
        "entity_name": row.key.entity_name,
        "label": row.label,
        "label_raw": row.label_raw,
        "suggestion": one.suspicion.suggestion,
        "score": one.suspicion.score,
        "score_predictions": one.suspicion.predictions,
        "score_ocr": one.suspicion.ocr,
        "predictions": [
            {"answer": answer, "share": share, "is_label": is_same(attribute, row.label, answer)}
            for answer, share in list(one.predictions.items())[:_ANSWERS_SHOWN]
        ],
        "is_read": one.candidates is not None,
        "candidates": candidates,
        # Boxes of the label and of the best other candidate; of more, the image would be hidden.
        "boxes": [*_first(candidates, is_label=True), *_first(candidates, is_label=False)],
        "pattern": next((text for kind, text in _PATTERNS.items() if isinstance(attribute.kind, kind)), r".*\S.*"),
        "image": _embed(dataset[row.position]["image"]),
    }


def cells_of(row: LabelledRow) -> str:
    """The beginning of the row's line in the CSV of corrections, quoted for spreadsheets."""
    line = io.StringIO()
    cells = (row.key.index, row.key.image_link, row.key.entity_name, row.label_raw)
    csv.writer(line, lineterminator="").writerow([as_cell(cell) for cell in cells])
    return line.getvalue()


def _first(candidates: Sequence[dict[str, Any]], *, is_label: bool) -> list[dict[str, Any]]:
    return [one for one in candidates if one["is_label"] == is_label][:1]


def _percentages(box: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, top, width and height of a box, in percent of the image."""
    left, top, right, bottom = (round(100 * side, 2) for side in box)
    return left, top, right - left, bottom - top


def _embed(image: object) -> str | None:
    try:
        return None if image is None else embed_image(as_image(image), size=IMAGE_SIZE)
    except ImageError:
        return None
