"""The dataset card: what the Hub shows, and what `load_dataset` reads to find the splits."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from dataset_builder.builder import ROWS_FOLDER
from dataset_builder.labels import UNIT_UNSUITABLE
from dataset_builder.leakage import ROWS_CONFIG, Leak
from dataset_builder.placeholders import Placeholder
from dataset_builder.writer import Record
from product_vqa.atomic_io import written_whole
from product_vqa.cards import CARD_FILE, mark_card, merge_cards
from product_vqa.task.prompt import format_prompt
from product_vqa.task.quantity import LabelForm
from product_vqa.task.schema import ENTITIES

NEEDED_METADATA = ("configs", "dataset_info")  # by which `load_dataset` finds and reads the splits
PRETTY_NAME = "Product attributes from photographs"
_MEANINGS = {
    LabelForm.RANGE_BRACKETS.value: "like `[100.0, 240.0] volt`",
    LabelForm.RANGE_TO.value: "like `10 kilogram to 15 kilogram`",
    LabelForm.EXPONENT.value: "like `2.2e+20 gram`",
    LabelForm.UNIT_UNKNOWN.value: "a unit that is not allowed, like `5 horsepower`",
    LabelForm.BROKEN.value: "not a number and a unit",
    UNIT_UNSUITABLE: "a unit of another attribute, like a weight in litres",
}


@dataclass(frozen=True)
class License:
    """Of the images, as the metadata name it."""

    id: str
    name: str | None = None  # of one that has no id, which is `other`
    details: str | None = None


_CHALLENGE_LICENSE = License(
    "other",
    "photographs-without-a-licence",
    "The photographs carry no licence; they belong to whoever made them.",
)
_NOT_STATED = License("other", "not-stated", "Whoever built this dataset has not stated the licence of the images.")


def save_card(
    record: Record, folder: Path, *, location: str, license: License | None = None, earlier: Path | None = None
) -> None:
    """Write the card into `folder`, in one step; it loads the dataset from `location`: a repo or a folder.

    What was edited by hand in the card of the folder `earlier` (default: `folder` itself) is kept.
    """
    rows = record.rows
    stated = license
    license = license or (_CHALLENGE_LICENSE if record.is_challenge else _NOT_STATED)
    data = DatasetCardData(
        pretty_name=PRETTY_NAME,
        language="en",
        license=license.id,
        license_name=license.name,
        license_details=license.details,
        task_categories=["visual-question-answering"],
        size_categories=_size_category(sum(sum(counts.values()) for counts in rows.values())),
        tags=["product-vqa", "product-attributes", "paligemma"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in rows],
            },
            {
                "config_name": ROWS_CONFIG,
                "data_files": [{"split": split, "path": f"{ROWS_FOLDER}/{split}.parquet"} for split in rows],
            },
        ],
        dataset_info=record.dataset_info,
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("dataset_card.md")),
        **{
            "example_question": format_prompt("item_weight"),
            "location": location,
            "first_split": next(iter(rows)),
            "rows": rows,
            "entities": [entity for entity in ENTITIES if any(entity in counts for counts in rows.values())],
            "rows_left_out": record.rows_left_out,
            "images_missing": record.images_missing,
            "meanings": _MEANINGS,
            "record": record,
            "leaks": [Leak(**leak) for leak in record.leaks],
            "placeholders": [Placeholder(**placeholder) for placeholder in record.placeholders],
            "sources": record.sources,
            "versions": record.versions,
            "license": license,
            "is_stated": stated is not None,
            "command": _command(record, stated),
        },
    )
    text, old = mark_card(str(card)), (earlier or folder) / CARD_FILE
    if old.is_file():
        text = merge_cards(text, old.read_bytes().decode("utf-8", "replace"), needed=NEEDED_METADATA)
    with written_whole(folder / CARD_FILE) as temporary:
        temporary.write_bytes(text.encode())


def _command(record: Record, license: License | None) -> str:
    """The command that builds this, with the names of the CSVs but no folder of the machine."""
    arguments = [f"--{flag} {shlex.quote(source['file'])}" for flag, source in record.sources.items()]
    arguments += [
        f"--{record.picture_source} {'images' if record.picture_source == 'image_dir' else 'store'}",
        f"--image_size {record.image_size} --ranges {record.ranges}",
        f"--validation_size {record.validation_size} --seed {record.seed}",
        *([f"--license {license.id}"] if license else []),
        *([f"--license_name {shlex.quote(license.name)}"] if license and license.name else []),
        "--output_dir dataset",
    ]
    return " \\\n  ".join(["python -m dataset_builder.build", *arguments])


def _size_category(num_rows: int) -> str:
    bounds = [10**3, 10**4, 10**5, 10**6, 10**7]
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M"]
    return names[sum(num_rows >= bound for bound in bounds)]
