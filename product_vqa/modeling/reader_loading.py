"""What an `AttributeReader` is loaded from: the model in the right precision, the schema and the calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from product_vqa.errors import argument
from product_vqa.hub import Location
from product_vqa.modeling.adapter import Adapter
from product_vqa.modeling.calibration import Calibration, load_calibration
from product_vqa.modeling.exported_model import load_export_calibration, read_export
from product_vqa.modeling.loading import dequantize, load_base_model, resolve_dtype
from product_vqa.modeling.reader_provenance import make_provenance
from product_vqa.provenance import CALIBRATION_FILE
from product_vqa.schemas import load_schema
from product_vqa.task.attributes import Schema

if TYPE_CHECKING:
    import torch
    from transformers import PaliGemmaForConditionalGeneration


def describe_reader(
    adapter: Adapter | None,
    base_model: Location,
    *,
    dtype: str,
    load_in_4bit: bool | None,
    schema: Schema | None,
) -> dict[str, str | None]:
    """The provenance of what `AttributeReader.from_pretrained` would load, without loading it.

    `dtype` is that of the weights.
    """
    return make_provenance(
        adapter,
        base_model,
        find_calibration(adapter, base_model),
        dtype=dtype,
        in_4bit=load_in_4bit,
        dequantized=dequantizes_base(adapter, load_in_4bit=load_in_4bit),
        schema=choose_schema(adapter, base_model, schema),
    )


def load_model_for(
    adapter: Adapter | None, base_model: Location, *, dtype: str, load_in_4bit: bool | None, device: str | torch.device
) -> PaliGemmaForConditionalGeneration:
    """Load the base model as an adapter needs it, without the adapter; see `AttributeReader.from_pretrained`."""
    trained = adapter.base_settings if adapter else None
    is_dequantized = dequantizes_base(adapter, load_in_4bit=load_in_4bit)
    with argument("base_model"):
        model = load_base_model(
            base_model,
            dtype=resolve_dtype(dtype, device=device, trained=trained_dtype(adapter, base_model)),
            load_in_4bit=bool(load_in_4bit) or is_dequantized,
            disable_logit_softcapping=trained is not None and trained.disable_logit_softcapping,
            device=device,
        )
    return dequantize(model) if is_dequantized else model


def trained_dtype(adapter: Adapter | None, base_model: Location) -> str | None:
    """The dtype of an adapter's training, or of an exported model; None if it is not known."""
    settings = adapter.base_settings if adapter else read_export(base_model)
    return settings.dtype if settings else None


def choose_schema(adapter: Adapter | None, base_model: Location, schema: Schema | None) -> Schema:
    """That of the adapter; of a base model alone `schema`, or else its own or the challenge's."""
    if adapter is not None:
        return adapter.schema
    return schema or load_schema(base_model, repo_type="model")  # an exported model has one


def dequantizes_base(adapter: Adapter | None, *, load_in_4bit: bool | None) -> bool:
    """Whether an adapter that was trained on an NF4 base model is merged into the dequantized weights."""
    trained = adapter.base_settings if adapter else None
    return load_in_4bit is None and trained is not None and trained.load_in_4bit


def find_calibration(adapter: Adapter | None, base_model: Location) -> Calibration | None:
    """The calibration of an adapter, or of an exported model, which was fitted on the adapter that it is from."""
    if adapter is None:
        return load_export_calibration(base_model)
    file = adapter.folder / CALIBRATION_FILE
    return load_calibration(file, adapter_sha256=adapter.sha256) if file.is_file() else None
