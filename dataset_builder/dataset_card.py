"""Writes the dataset card: what the Hub shows, and where `load_dataset` finds the splits."""

import json
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from dataset_builder.corrections import CORRECT, DROP, DROPPED, KEEP
from dataset_builder.labels import UNIT_UNSUITABLE, LabelForm
from dataset_builder.manifest import Manifest
from dataset_builder.ocr_files import describe_texts, ocr_config
from dataset_builder.options import LABELS, STATED, BuildOptions
from dataset_builder.output_folder import ROWS_FOLDER
from dataset_builder.push import NEEDED_METADATA
from dataset_builder.unanswered import SURPLUS, schema_with
from dataset_builder.unit_spellings import NUMBER_AMBIGUOUS, UNIT_AMBIGUOUS
from product_vqa.atomic_io import atomic_write
from product_vqa.cards import CARD_FILE, mark_card, merge_cards
from product_vqa.dataset import ROWS_CONFIG
from product_vqa.quoting import code_span, file_name, one_line
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import ChoiceKind, IntegerKind, MultiChoiceKind, PatternKind, QuantityKind, TextKind
from product_vqa.task.prompt import format_prompt
from product_vqa.task.schema import is_challenge

PRETTY_NAME = "Product attributes from images"
_MEANINGS = {
    LabelForm.RANGE_BRACKETS.value: "like `[100.0, 240.0] volt`",
    LabelForm.RANGE_TO.value: "like `10 kilogram to 15 kilogram`",
    LabelForm.EXPONENT.value: "like `2.2e+20 gram`",
    LabelForm.UNIT_UNKNOWN.value: "unit not allowed, like `5 horsepower`",
    LabelForm.BROKEN.value: "not a number with a unit",
    UNIT_UNSUITABLE: "unit of another attribute, like a weight in litres",
    UNIT_AMBIGUOUS: "unit with two meanings, like `5 mv`",
    NUMBER_AMBIGUOUS: "number with two meanings, like `1,500 g`",
    SURPLUS: "empty, and beyond the share of questions without an answer",
    DROPPED: "somebody looked at the image and dropped the row",
}
_OWN_MEANINGS = {  # of a schema of its own
    LabelForm.RANGE_BRACKETS.value: "a range, like `[1, 2] unit`",
    LabelForm.RANGE_TO.value: "a range, like `1 unit to 2 unit`",
    LabelForm.EXPONENT.value: "a number with an exponent",
    LabelForm.UNIT_UNKNOWN.value: "a unit that the schema lacks",
    LabelForm.BROKEN.value: "not in the form of its kind",
    UNIT_UNSUITABLE: "a unit of another attribute",
    "not_a_number": "not a number",
    "not_an_integer": "a number with decimals",
    "not_a_choice": "none of the values",
    "not_the_pattern": "does not match the pattern",
    "too_long": "too many characters",
    SURPLUS: _MEANINGS[SURPLUS],
    DROPPED: _MEANINGS[DROPPED],
}
_UNANSWERED_FROM = {
    STATED: "the CSV asks for an attribute there, and its label is empty",
    LABELS: "an image that has labels has none for the attribute, and no related image is asked for it. That is right "
    "where images have a label for all that they show, and wrong where some labels are missing",
}
_MAX_SHOWN = 30  # values or units of an attribute


@dataclass(frozen=True)
class License:
    """The license of the images, as in the card's metadata."""

    id: str
    name: str | None = None  # of a license without an identifier, whose id is `other`
    details: str | None = None


def license_of(options: BuildOptions) -> License | None:
    """The license that `build` was given; None if it is not stated."""
    return License(options.license, options.license_name) if options.license else None


_CHALLENGE_LICENSE = License(
    "other", "images-without-a-license", "The images carry no license; they belong to their authors."
)
_NOT_STATED = License("other", "not-stated", "Whoever built this dataset has not stated the license of the images.")


def save_card(
    manifest: Manifest,
    folder: Path,
    *,
    location: str,
    license: License | None = None,
    earlier: Path | None = None,
    schema: Schema,
) -> None:
    """Write the card of a build to `folder`. `location`, a repo or a folder, is where its example loads the dataset.

    Manual edits in the card of the folder `earlier` (default: `folder` itself) are kept. Without `license`, the card
    says that none is stated. A schema (of the tables) other than the challenge's is described in it.
    """
    schema = schema_with(schema, manifest.unanswered)
    text = mark_card(_render_card(manifest, location=location, license=license, schema=schema))
    earlier_card = (earlier or folder) / CARD_FILE
    if earlier_card.is_file():
        text = merge_cards(text, earlier_card.read_bytes().decode("utf-8", "replace"), needed=NEEDED_METADATA)
    with atomic_write(folder / CARD_FILE) as temporary:
        temporary.write_bytes(text.encode())


def _render_card(manifest: Manifest, *, location: str, license: License | None, schema: Schema) -> str:
    rows = manifest.rows
    entities = [entity for entity in schema.names if any(entity in counts for counts in rows.values())]
    is_own = not is_challenge(schema)
    shown_license = license or (_CHALLENGE_LICENSE if manifest.is_challenge else _NOT_STATED)
    data = DatasetCardData(
        pretty_name=PRETTY_NAME,
        language="en",
        license=shown_license.id,
        license_name=shown_license.name,
        license_details=shown_license.details,
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
            *([ocr_config(manifest.ocr["images"])] if manifest.ocr else []),
        ],
        dataset_info=manifest.dataset_info,
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("dataset_card.md")),
        manifest=manifest,
        rows=rows,
        entities=entities,
        first_split=next(iter(rows)),
        location=json.dumps(one_line(location), ensure_ascii=False),
        example_question=format_prompt(entities[0] if is_own else "item_weight", schema=schema),
        num_attributes=len(schema.names),
        may_be_empty=bool(schema.not_shown),
        attributes=[_describe(attribute) for attribute in schema.attributes.values()] if is_own else [],
        meanings=_OWN_MEANINGS if is_own else _MEANINGS,
        license=shown_license,
        is_stated=license is not None,
        unanswered_from=_UNANSWERED_FROM.get(manifest.unanswered.get("from", "")),
        texts_section=describe_texts(manifest.ocr) if manifest.ocr else "",
        command=_command(manifest, license),
        code_span=code_span,
        file_name=file_name,
        corrected=_count_corrections(manifest),
    )
    return str(card)


def _describe(attribute: Attribute) -> dict[str, str]:
    """An attribute's row in the card's table."""
    kind = attribute.kind
    match kind:
        case QuantityKind():
            digits = f"at most {_count(kind.decimals, 'decimal')}" if kind.decimals else "no decimals"
            unit = "the unit" if len(kind.units) == 1 else "one of the units"
            answers = f"a number ({digits}) and {unit} {_spans(kind.units)}"
        case IntegerKind():
            answers = f"a whole number of at most {_count(kind.digits, 'digit')}"
        case ChoiceKind():
            answers = _spans(kind.values)
        case MultiChoiceKind():
            answers = f"some of {_spans(kind.values)}"
        case PatternKind():
            answers = f"a text that matches {code_span(kind.pattern.text, in_table=True)}"
        case TextKind():
            answers = f"a text of at most {_count(kind.max_length, 'character')}"
    if attribute.not_shown:
        answers += "; empty if the image does not show it"
    question = code_span(attribute.question, in_table=True)
    return {"name": attribute.name, "question": question, "kind": kind.name, "answers": answers}


def _count_corrections(manifest: Manifest) -> str:
    """`3 labels were corrected, 1 row was dropped and 2 labels were kept`; "" without corrections."""
    if not manifest.corrections:
        return ""
    corrected, dropped, kept = (manifest.corrections[decision] for decision in (CORRECT, DROP, KEEP))
    return f"{_were(corrected, 'label')} corrected, {_were(dropped, 'row')} dropped and {_were(kept, 'label')} kept"


def _were(number: int, noun: str) -> str:
    return f"{_count(number, noun)} {'was' if number == 1 else 'were'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _spans(texts: Collection[str]) -> str:
    shown = ", ".join(code_span(text, in_table=True) for text in list(texts)[:_MAX_SHOWN])
    return shown if len(texts) <= _MAX_SHOWN else f"{shown} and {len(texts) - _MAX_SHOWN} more, in `schema.yaml`"


def _command(manifest: Manifest, license: License | None) -> str:
    """The command that builds the dataset again, with the names of the CSVs but without folders of this machine."""
    images = "images" if manifest.picture_source == "image_dir" else "store"
    arguments = [f"--{option} {shlex.quote(one_line(source['file']))}" for option, source in manifest.sources.items()]
    arguments += ["--wide"] if "wide" in manifest.layout else []
    if "columns" in manifest.layout:
        arguments.append(f"--columns {shlex.quote(one_line(manifest.layout['columns'], max_length=10_000))}")
    arguments += ["--unit_spellings"] if manifest.unit_spellings else []
    chosen = manifest.row_selection
    arguments += [f"--{name} {shlex.quote(str(chosen[name]))}" for name in ("max_rows", "entities") if name in chosen]
    arguments += ["--rows rows.txt"] if "rows_sha256" in chosen else []
    if own := manifest.unanswered:
        arguments.append(f"--unanswered {own['share']} --unanswered_from {shlex.quote(one_line(own['from']))}")
        arguments += [f"--unanswered_below {own['below']}"] if "below" in own else []
    if own := manifest.corrections:
        arguments.append(" ".join(["--corrections", *(shlex.quote(one_line(one["file"])) for one in own["files"])]))
    arguments += [
        f"--{manifest.picture_source} {images}",
        f"--image_size {manifest.image_size} --ranges {manifest.ranges}",
        f"--validation_size {manifest.validation_size} --seed {manifest.seed}",
    ]
    if license:
        arguments.append(f"--license {license.id}")
        if license.name:
            arguments.append(f"--license_name {shlex.quote(one_line(license.name))}")
    arguments += ["--ocr"] if manifest.ocr else []
    arguments.append("--output_dir dataset")
    return " \\\n  ".join(["python -m dataset_builder.build", *arguments])


def _size_category(num_rows: int) -> str:
    bounds = [10**3, 10**4, 10**5, 10**6, 10**7]
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M"]
    return names[sum(num_rows >= bound for bound in bounds)]
