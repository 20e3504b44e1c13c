"""One HTML file that shows how good a prediction is and where it is wrong: it opens from disk and asks nobody.

    python -m inference.report --predictions submission.parquet --dataset user/dataset --split validation \\
        --output report.html
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from product_vqa.atomic_io import atomic_write
from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL_SIZE = (320, 320)  # px, at most
CONFUSIONS_LISTED = 20


@dataclass
class ReportOptions:
    """What was predicted, the labels and pictures, and where the page goes."""

    predictions: str = field(metadata={"help": "X.parquet of inference.predict, or a CSV with index, prediction."})
    dataset: str = field(metadata={"help": "Dataset with the pictures: a repo (user/name[@revision]) or a folder."})
    split: str = field(default="validation", metadata={"help": "The split that was answered."})
    references: str | None = field(
        default=None, metadata={"help": "Where the labels stand if not in that split: a CSV with index, entity_value."}
    )
    output: str = field(default="report.html", metadata={"help": "The file to write."})
    title: str | None = field(default=None, metadata={"help": "Its heading; the adapter's name if not given."})
    max_errors: int = field(default=120, metadata={"help": "Mistakes shown with their picture (about 15 kB each)."})
    bootstrap: int = field(
        default=1000, metadata={"help": "Pictures are drawn anew so often for the 95 percent interval; 0: none."}
    )

    def __post_init__(self) -> None:
        for name in ("max_errors", "bootstrap"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} must not be negative, got {getattr(self, name)}")


def main() -> None:
    (options,) = parse_options(ReportOptions, description="Show a prediction's scores and mistakes as one HTML file.")

    from inference.evaluate import join
    from inference.predictions import read_provenance
    from product_vqa.dataset import load_split
    from product_vqa.hub import locate

    output = Path(options.output)
    with argument("output"):
        writable_folder(output.parent)
    with argument("dataset"):
        location = locate(options.dataset, repo_type="dataset")
    with argument("dataset"):
        dataset = load_split(location, options.split)
    table = join(options.predictions, options.references or f"{location}:{options.split}")
    if (table["reference"] == "").all():
        raise InputError(
            f"--dataset {location}: split {options.split} has no labels; --references names a CSV of them"
        )
    provenance = read_provenance(options.predictions)
    title = options.title or f"Answers of {provenance.get('adapter') or Path(options.predictions).name}"
    about = [
        *((name.replace("_", " "), provenance[name], hub_url(provenance[name])) for name in
          ("adapter", "base_model") if name in provenance),
        ("dataset", f"{location}, split {options.split}", hub_url(str(location), repo_type="dataset")),
    ]  # fmt: skip
    page = render(table, dataset, title=title, about=about, max_errors=options.max_errors, bootstrap=options.bootstrap)
    with atomic_write(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"{output}: {len(page) / 1e6:.1f} MB")


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
) -> str:
    """The page. `table` is what `inference.evaluate.join` makes, `dataset` has the pictures by `index`."""
    from importlib.metadata import version

    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from inference.error_analysis import KINDS
    from inference.metrics import calibration_error, mistakes, reliability, score_parts, sweep

    rows = {index: row for row, index in enumerate(dataset["index"][:])}
    if unknown := sorted(set(table["index"]) - rows.keys()):
        raise InputError(f"--references: index {unknown[0]} does not stand in the dataset's split; is it another's?")
    # The CSV of the labels may lack the links, by which a picture's other labels are found.
    links = dataset["image_link"][:]
    table = table.assign(image_link=[links[rows[index]] for index in table["index"]])
    table = table.assign(kind=mistakes(table))
    context: dict[str, Any] = {
        "scores": score_parts(table, resamples=bootstrap),
        "kinds": KINDS,
        "title": title,
        "about": about,
    }
    sure = table[table["confidence"].notna() & (table["reference"] != "")]
    context["reliability"] = []
    if len(sure):
        is_right = (sure["kind"].isna()).to_numpy()
        confidences = sure["confidence"].to_numpy()
        context["reliability"] = reliability(confidences, is_right)
        context["calibration_error"] = calibration_error(confidences, is_right)
        context["sweep"] = sweep(table)
    wrong = table[table["kind"].notna()].sort_values("confidence", ascending=False, kind="stable")
    context |= {
        "confusion": confused_units(table),
        "wrong": len(wrong),
        "errors": [
            _error(row, dataset[rows[row["index"]]]["image"]) for row in wrong.head(max_errors).to_dict("records")
        ],
        "version": version("product-vqa"),
    }
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html").render(context)


def confused_units(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Pairs of the label's unit and another that was answered, the most frequent first."""
    import pandas as pd

    from inference.error_analysis import quantity_or_none

    meant = table["reference"].map(lambda text: getattr(quantity_or_none(text), "unit", None))
    said = table["prediction"].map(lambda text: getattr(quantity_or_none(text), "unit", None))
    pairs = pd.DataFrame({"meant": meant, "said": said}).dropna()
    totals = pairs["meant"].value_counts()
    counted = pairs[pairs["meant"] != pairs["said"]].value_counts().head(CONFUSIONS_LISTED)
    return [
        {"meant": meant, "said": said, "rows": int(number), "share": number / totals[meant]}
        for (meant, said), number in counted.items()
    ]


def _error(row: Mapping[str, Any], image: object) -> dict[str, Any]:
    from product_vqa.images import ImageError, as_image
    from product_vqa.task.prompt import format_prompt

    try:
        thumbnail = None if image is None else _thumbnail(as_image(image))
    except ImageError:  # predict has answered nothing to it
        thumbnail = None

    return {
        "index": row["index"],
        "entity_name": row["entity_name"],
        "question": format_prompt(row["entity_name"]),
        "prediction": row["prediction"],
        "reference": row["reference"],
        "confidence": None if row["confidence"] != row["confidence"] else row["confidence"],
        "kind": row["kind"],
        "thumbnail": thumbnail,
    }


def _thumbnail(image: "Image.Image") -> str:
    """Base64 of a JPEG."""
    small = image.copy()
    small.thumbnail(THUMBNAIL_SIZE)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    run(main)
