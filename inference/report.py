"""One HTML file with the scores and the mistakes of a prediction. It opens from disk and loads nothing else.

    python -m inference.report --predictions submission.parquet --dataset user/dataset --split validation \\
        --output report.html
"""

import base64
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.tables.layout import LONG
from product_vqa.task.kinds import QuantityKind
from product_vqa.task.schema import is_challenge

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from PIL import Image

    from product_vqa.hub import Location
    from product_vqa.modeling.attribute_reader import AttributeReader
    from product_vqa.ocr.image_text import Box
    from product_vqa.task.attributes import Schema

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
THUMBNAIL_SIZE = 320  # px, at most
CONFUSIONS_LISTED = 20


@dataclass
class ReportOptions:
    """The predictions, the labels and images, and the output."""

    predictions: str = field(metadata={"help": "X.parquet of inference.predict, or a CSV with index, prediction."})
    dataset: str = field(metadata={"help": "Dataset with the images: a repo (user/name[@revision]) or a folder."})
    split: str = field(default="validation", metadata={"help": "The split that was predicted."})
    references: str | None = field(
        default=None,
        metadata={"help": "Labels, if not those of the split: a CSV with index, entity_name, entity_value."},
    )
    adapter: str | None = field(
        default=None,
        metadata={"help": "The adapter that made the predictions, to show where in an image a mistake was read."},
    )
    base_model: str | None = field(
        default=None, metadata={"help": "Its base model, if not the one that the adapter names: a repo or a folder."}
    )
    output: str = field(default="report.html", metadata={"help": "The file to write."})
    title: str | None = field(default=None, metadata={"help": "Heading of the report; default: the adapter's name."})
    max_errors: int = field(
        default=120, metadata={"help": "Maximum number of mistakes shown with their image (about 15 kB each)."}
    )
    bootstrap: int = field(
        default=1000,
        metadata={"help": "Bootstrap resamples (over images) for the 95 percent confidence interval; 0: none."},
    )

    def __post_init__(self) -> None:
        for name in ("max_errors", "bootstrap"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} must not be negative, got {getattr(self, name)}")


def main() -> None:
    (options,) = parse_options(ReportOptions, description="Show the scores and mistakes of a prediction as HTML.")

    from inference.references import join
    from inference.submission import read_boxes, read_run
    from product_vqa.atomic_io import atomic_write
    from product_vqa.dataset import load_split
    from product_vqa.hub import locate
    from product_vqa.paths import writable_folder
    from product_vqa.schemas import load_schema

    output = Path(options.output)
    with argument("output"):
        writable_folder(output.parent)
    with argument("dataset"):
        location = locate(options.dataset, repo_type="dataset")
        dataset = load_split(location, options.split)
        schema = load_schema(location)
    table = join(options.predictions, options.references or f"{location}:{options.split}", schema=schema, layout=LONG)
    if (table["reference"] == "").all():
        raise InputError(
            f"--dataset {location}: split {options.split} has no labels; pass a CSV of them as --references"
        )
    reader = None
    if options.adapter is not None:
        from product_vqa.modeling.attribute_reader import AttributeReader

        reader = AttributeReader.from_pretrained(options.adapter, base_model=options.base_model)
    made_by = read_run(options.predictions)
    page = render(
        table,
        dataset,
        title=options.title or f"Predictions of {_short_name(made_by.get('adapter'), options.predictions)}",
        about=describe_sources(made_by, location=location, split=options.split),
        max_errors=options.max_errors,
        bootstrap=options.bootstrap,
        schema=schema,
        reader=reader,
        boxes=read_boxes(options.predictions),
    )
    with atomic_write(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"{output}: {len(page) / 1e6:.1f} MB")


def _short_name(adapter: Any, predictions: str) -> str:
    """The adapter without its commit, which is in the list below the heading; or else the file."""
    return re.sub("@[0-9a-f]{40}$", "", str(adapter)) if adapter else Path(predictions).name


def describe_sources(
    made_by: dict[str, Any], *, location: "Location", split: str
) -> list[tuple[str, str, str | None]]:
    """(name, text, URL or None) of what was predicted with which model."""
    sources = [
        (name.replace("_", " "), str(made_by[name]), hub_url(str(made_by[name])))
        for name in ("adapter", "base_model")
        if made_by.get(name)
    ]
    return [*sources, ("dataset", f"{location}, split {split}", hub_url(str(location), repo_type="dataset"))]


def hub_url(location: str, *, repo_type: str = "model") -> str | None:
    """The page of a repo at its commit; None for a folder."""
    from product_vqa.hub import page_url

    repo_id, at, revision = location.rpartition("@")
    return f"{page_url(repo_id, repo_type=repo_type)}/tree/{revision}" if at else None


def render(
    table: "pd.DataFrame",
    dataset: "Dataset",
    *,
    title: str,
    about: list[tuple[str, str, str | None]],
    max_errors: int,
    bootstrap: int = 0,
    schema: "Schema",
    reader: "AttributeReader | None" = None,
    boxes: "Mapping[int, Box] | None" = None,
) -> str:
    """The HTML. `table` is of `inference.references.join`, for this schema; `dataset` has the images by `index`.

    With `boxes`, of texts by index, the images of the mistakes show what OCR read, and with a `reader` where those
    without such a box were read.
    """
    from inference.metrics import calibration_error, describe_mistakes, mistakes, reliability, score_table, sweep
    from product_vqa.html_pages import render_page

    row_of_index = {index: row for row, index in enumerate(dataset["index"][:])}
    if unknown := sorted(set(table["index"]) - row_of_index.keys()):
        raise InputError(f"`references`: index {unknown[0]} is not in the split; are these labels of another split?")
    # A CSV of labels may lack the URLs, by which the other labels of an image are found.
    links = dataset["image_link"][:]
    table = table.assign(image_link=[links[row_of_index[index]] for index in table["index"]])
    table = table.assign(kind=mistakes(table, schema=schema))
    wrong = table[table["kind"].notna()].sort_values("confidence", ascending=False, kind="stable")
    context: dict[str, Any] = {
        "title": title,
        "about": about,
        "is_challenge": is_challenge(schema),
        "quantities": [name for name, one in schema.attributes.items() if isinstance(one.kind, QuantityKind)],
        "scores": score_table(table, schema=schema, resamples=bootstrap),
        "kinds": describe_mistakes(schema),
        "confusion": confused_units(table, schema=schema),
        "confused_values": confused_values(table, schema=schema),
        "reliability": [],
        "shown_bins": shown_bins(table),
        "wrong": len(wrong),
        "errors": [
            _error(
                row,
                dataset[row_of_index[row["index"]]]["image"],
                question=schema[row["entity_name"]].question,
                reader=reader,
                box=(boxes or {}).get(row["index"]),
            )
            for row in wrong.head(max_errors).to_dict("records")
        ],
        "has_regions": reader is not None,
        "has_boxes": bool(boxes),
    }
    has_label = (table["reference"] != "") | table["entity_name"].isin(schema.not_shown)
    measured = table[table["confidence"].notna() & has_label]
    if len(measured):
        confidences, is_right = measured["confidence"].to_numpy(), measured["kind"].isna().to_numpy()
        context["reliability"] = reliability(confidences, is_right)
        context["calibration_error"] = calibration_error(confidences, is_right)
        context["sweep"] = sweep(table)
    return render_page(TEMPLATE, context)


def shown_bins(table: "pd.DataFrame") -> list[dict[str, float]]:
    """The shares of rows by `shown`, in ten equal bins, with and without a label; [] if one kind of row has none."""
    import numpy as np

    if "shown" not in table:
        return []
    known = table[table["shown"].notna()]
    kinds = [known["shown"][(known["reference"] != "") == is_shown].to_numpy() for is_shown in (True, False)]
    if not all(map(len, kinds)):
        return []
    shares = [np.histogram(values, bins=10, range=(0, 1))[0] / len(values) for values in kinds]
    return [
        {"middle": (number + 0.5) / 10, "answerable": float(one), "not_shown": float(other)}
        for number, (one, other) in enumerate(zip(*shares, strict=True))
    ]


def confused_units(table: "pd.DataFrame", *, schema: "Schema") -> list[dict[str, Any]]:
    """Pairs of the label's unit and another one that was predicted, the most frequent first."""
    import pandas as pd

    def units(column: str) -> list[str | None]:
        if is_challenge(schema):
            return [_unit(text) for text in table[column]]
        return [_part(name, text, ("quantity",), schema) for name, text in _answers(table, column)]

    pairs = pd.DataFrame({"label": units("reference"), "prediction": units("prediction")}).dropna()
    totals = pairs["label"].value_counts()
    counted = pairs[pairs["label"] != pairs["prediction"]].value_counts().head(CONFUSIONS_LISTED)
    return [
        {"label": label, "prediction": prediction, "rows": int(number), "share": number / totals[label]}
        for (label, prediction), number in counted.items()
    ]


def confused_values(table: "pd.DataFrame", *, schema: "Schema") -> list[dict[str, Any]]:
    """Pairs of the label's value and another one that was predicted for the same choice, the most frequent first."""
    import pandas as pd

    def values(column: str) -> list[str | None]:
        return [_part(name, text, ("choice", "yes_no"), schema) for name, text in _answers(table, column)]

    columns = {"entity_name": list(table["entity_name"]), "label": values("reference")}
    pairs = pd.DataFrame(columns | {"prediction": values("prediction")}).dropna()
    totals = pairs[["entity_name", "label"]].value_counts()
    counted = pairs[pairs["label"] != pairs["prediction"]].value_counts().head(CONFUSIONS_LISTED)
    return [
        {"entity_name": name, "label": label, "prediction": prediction, "rows": int(number),
         "share": number / totals[name, label]}
        for (name, label, prediction), number in counted.items()
    ]  # fmt: skip


def _unit(text: str) -> str | None:
    from inference.error_analysis import quantity_or_none

    quantity = quantity_or_none(text)
    return quantity.unit if quantity else None


def _answers(table: "pd.DataFrame", column: str) -> Iterable[tuple[str, str]]:
    return zip(table["entity_name"], table[column], strict=True)


def _part(entity_name: str, text: str, kinds: tuple[str, ...], schema: "Schema") -> str | None:
    """The unit of a quantity, or else the value; None if the attribute is of another kind, or the answer not valid."""
    attribute = schema[entity_name]
    if not text or attribute.kind.name not in kinds or not attribute.is_valid(text):
        return None
    value, unit = attribute.kind.split(text)
    return unit or value


def _error(
    row: Mapping[str, Any],
    image: object,
    *,
    question: str,
    reader: "AttributeReader | None",
    box: "Box | None",
) -> dict[str, Any]:
    from product_vqa.html_pages import embed_image
    from product_vqa.images import ImageError, as_image

    try:
        decoded = None if image is None else as_image(image)
        thumbnail = (
            None
            if decoded is None
            else (_region(decoded, row, reader, box) or embed_image(decoded, size=THUMBNAIL_SIZE))
        )
    except ImageError:  # predict left the row empty, with the reason
        thumbnail = None
    return {
        "index": row["index"],
        "entity_name": row["entity_name"],
        "question": question,
        "prediction": row["prediction"],
        "reference": row["reference"],
        "confidence": None if math.isnan(row["confidence"]) else row["confidence"],
        "shown": None if math.isnan(row.get("shown", math.nan)) else row["shown"],
        "kind": row["kind"],
        "thumbnail": thumbnail,
    }


def _region(
    image: "Image.Image", row: Mapping[str, Any], reader: "AttributeReader | None", box: "Box | None"
) -> str | None:
    """The image with the region of the prediction, in base64; None if there is none."""
    if not row["prediction"] or (reader is None and box is None):
        return None
    from inference.region_image import draw_region, text_region

    if box is not None:
        region = text_region(row["prediction"], box, image)
    else:
        assert reader is not None
        attribute = reader.schema.attributes.get(row["entity_name"])
        if attribute is None or not attribute.is_valid(row["prediction"]):
            return None
        region = reader.locate(image, row["entity_name"], prediction=row["prediction"])
    return base64.b64encode(draw_region(image, region)).decode() if region.box else None


if __name__ == "__main__":
    run(main)
