"""Export an adapter as one merged model that plain transformers opens, with its processor, schema and card.

    python -m inference.export --adapter user/adapter --output_dir runs/merged
    python -m inference.export --adapter user/adapter --output_dir runs/merged --push_to_hub \\
        --hub_model_id user/merged

The weights are those with which `inference.predict` answers in the same dtype: an adapter that was trained on an NF4
base model is merged into the dequantized weights. Before the folder gets its name, plain transformers reads the model
from it, and its answers are compared with those of the adapter that is not merged.
"""

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument

if TYPE_CHECKING:
    from product_vqa.hub import Location
    from product_vqa.modeling.adapter import Adapter

logger = logging.getLogger(__name__)


@dataclass
class ExportOptions:
    """The adapter, and where the merged model goes."""

    adapter: str = field(metadata={"help": "Adapter: a repo (user/name[@revision]) or a folder."})
    output_dir: str = field(metadata={"help": "The folder to write; an earlier export in it is replaced."})
    base_model: str | None = field(
        default=None, metadata={"help": "Base model, if not the one that the adapter names: a repo or a folder."}
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto", metadata={"help": "The dtype of the weights; auto: that of the adapter's training."}
    )
    push_to_hub: bool = field(default=False, metadata={"help": "Push the model to --hub_model_id."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Model repo (user/name) for the merged model."})
    hub_private_repo: bool = field(default=True, metadata={"help": "Create that repo as private."})

    def __post_init__(self) -> None:
        if self.push_to_hub and not self.hub_model_id:
            raise InputError("--push_to_hub needs --hub_model_id user/name")


def main() -> None:
    (options,) = parse_options(ExportOptions, description=__doc__)

    from inference.export_repo import open_repo, push_export
    from product_vqa.atomic_io import one_writer
    from product_vqa.hub import locate
    from product_vqa.modeling.adapter import download_adapter, locate_base_model

    with argument("output_dir"):
        folder = check_folder(options.output_dir)
    with argument("adapter"):
        adapter = download_adapter(locate(options.adapter))
    base_model = locate_base_model(adapter, base_model=options.base_model)
    if options.push_to_hub:
        options.hub_model_id = open_repo(options.hub_model_id, private=options.hub_private_repo)
    with one_writer(folder, argument="output_dir"):
        export(adapter, base_model, folder, dtype=options.dtype, model_id=options.hub_model_id or folder.name)
        if options.push_to_hub:
            print(f"pushed: {push_export(folder, options.hub_model_id)}")


def check_folder(output_dir: str) -> Path:
    """`output_dir` as a Path. Raises InputError for a folder that holds anything but an earlier export."""
    from product_vqa.atomic_io import restore_folder
    from product_vqa.modeling.exported_model import EXPORT_FILE
    from product_vqa.paths import writable_folder

    folder = Path(output_dir)
    writable_folder(folder.parent)
    restore_folder(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose the name of a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / EXPORT_FILE).is_file():
        raise InputError(f"{folder} is not empty and holds no earlier export; choose another folder")
    return folder


def export(adapter: "Adapter", base_model: "Location", folder: Path, *, dtype: str, model_id: str) -> None:
    """Write the merged model to `folder`, unless it is there and was made from the same commits."""
    import torch

    from inference.export_card import make_card, read_license
    from inference.merged_model import adapter_log_p, check_model, choose_dtype, make_rows, save_model
    from product_vqa.atomic_io import replace_folder
    from product_vqa.cards import CARD_FILE, mark_card, merge_cards
    from product_vqa.hub import Location
    from product_vqa.modeling.attribute_reader import AttributeReader
    from product_vqa.modeling.constrained_decoding import max_answer_tokens
    from product_vqa.modeling.exported_model import Export, read_export
    from product_vqa.provenance import CALIBRATION_FILE
    from product_vqa.schemas import save_schema

    dtype = choose_dtype(adapter, dtype)
    names = [
        location if location.folder is None else Location(location.folder.resolve().name)
        for location in (adapter.location, base_model)
    ]
    earlier = read_export(Location(str(folder))) if folder.is_dir() else None
    made_of = (earlier.adapter_sha256, earlier.base_model, earlier.dtype) if earlier else None
    if made_of == (adapter.sha256, str(base_model), dtype) and base_model.folder is None:  # a folder may have changed
        print(f"unchanged: {folder}")
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = make_rows(adapter.schema)
    logger.info("Asking the adapter %d questions, for the comparison", len(rows))
    expected = adapter_log_p(adapter, base_model, rows, dtype=dtype, device=device)
    logger.info("Merging it into the base model, in %s", dtype)
    reader = AttributeReader.from_pretrained(adapter, base_model=base_model, dtype=dtype, device=device)
    precision = reader.provenance["base_precision"] or ""
    max_new_tokens = max_answer_tokens(reader.processor.tokenizer, schema=adapter.schema)
    temporary = folder.with_name(f".{folder.name}.export")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        hashes = save_model(reader, temporary)
        del reader
        comparison = check_model(
            temporary, rows, schema=adapter.schema, expected=expected, hashes=hashes, dtype=dtype, device=device
        )
        made = Export(
            adapter=str(names[0]), adapter_sha256=adapter.sha256, base_model=str(names[1]), base_precision=precision,
            dtype=dtype, divergence=comparison.divergence, compared_rows=comparison.rows,
        )  # fmt: skip
        save_schema(adapter.schema, temporary)
        if (adapter.folder / CALIBRATION_FILE).is_file():
            shutil.copyfile(adapter.folder / CALIBRATION_FILE, temporary / CALIBRATION_FILE)
        card = mark_card(make_card(
            model_id, made, comparison, adapter=names[0], base_model=names[1],
            license_names=read_license(adapter.location), schema=adapter.schema, max_new_tokens=max_new_tokens,
        ))  # fmt: skip
        if (folder / CARD_FILE).is_file():
            card = merge_cards(card, (folder / CARD_FILE).read_text(encoding="utf-8", errors="replace"))
        (temporary / CARD_FILE).write_text(card, encoding="utf-8")
        made.save(temporary)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(
        f"{folder}: {dtype}, base model {precision}. Compared with the adapter: mean KL divergence "
        f"{comparison.divergence:.2g} nats, the same most likely token in {comparison.agreeing} of {comparison.rows} "
        "answers"
    )


if __name__ == "__main__":
    run(main)
