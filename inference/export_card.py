"""The card of an exported model: `export_card.md`, filled in."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, constants

from inference.merged_model import Comparison
from product_vqa.cards import CARD_FILE
from product_vqa.documents import DocumentError, parse_front_matter, read_bytes
from product_vqa.hub import Location, download, find_file, page_url
from product_vqa.modeling.exported_model import Export
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import QuantityKind

MAX_LICENSE_LENGTH = 100
MAX_CARD_BYTES = 1024**2


def make_card(
    model_id: str,
    export: Export,
    comparison: Comparison,
    *,
    adapter: Location,
    base_model: Location,
    license_names: str | list[str] | None,
    schema: Schema,
    max_new_tokens: int,
) -> str:
    """Render the card. `adapter` and `base_model` are folders without their paths, or repos."""
    first = next(iter(schema.attributes.values()))
    repos = [location.name for location in (base_model, adapter) if location.revision is not None]
    data = ModelCardData(
        base_model=repos or [base_model.name],
        base_model_relation="merge",
        language="en",
        library_name="transformers",
        license=license_names,  # type: ignore[arg-type]  # a list too, as in any card
        pipeline_tag="image-text-to-text",
        tags=["paligemma", "visual-question-answering", "product-attributes"],
    )
    return str(
        ModelCard.from_template(
            data,
            template_path=str(Path(__file__).with_name("export_card.md")),
            name=model_id.rpartition("/")[2],
            model_id=model_id,
            export=export,
            comparison=comparison,
            base_model_link=_link(base_model),
            adapter_link=_link(adapter),
            entities=[name.replace("_", " ") for name in schema.names],
            attributes=list(schema.attributes.values()),
            example=first,
            example_answer=_example(first),
            max_new_tokens=max_new_tokens,
        )
    )


def read_license(adapter: Location) -> str | list[str] | None:
    """The license in the adapter's card, which has that of its base model; None if there is none that can be read."""
    folder = download(adapter, patterns=[CARD_FILE, ".gitattributes"])
    file = find_file(adapter, folder, CARD_FILE)
    try:
        found = parse_front_matter(read_bytes(file, max_bytes=MAX_CARD_BYTES)).get("license") if file else None
    except (DocumentError, OSError):
        return None
    names = found if isinstance(found, list) else [found]
    return found if all(isinstance(name, str) and len(name) <= MAX_LICENSE_LENGTH for name in names) else None


def _example(attribute: Attribute) -> str:
    kind = attribute.kind
    return f"{12 if kind.decimals == 0 else 12.5} {kind.units[0]}" if isinstance(kind, QuantityKind) else kind.name


def _link(location: Location) -> str:
    """Link a repo's page; only its name where it is a folder or on another Hub."""
    if location.revision is None:
        return f"`{location.name}`"
    if constants.ENDPOINT != "https://huggingface.co":
        return f"`{location.name}` at commit `{location.revision[:12]}`"
    return f"[{location.name}]({page_url(location.name)}) at commit `{location.revision[:12]}`"
