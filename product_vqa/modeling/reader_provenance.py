"""What predictions record about the model that made them: adapter and base model by hash, precision, schema."""

from product_vqa.hub import Location
from product_vqa.modeling.adapter import Adapter
from product_vqa.modeling.calibration import Calibration
from product_vqa.provenance import processor_sha256
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import CHALLENGE


def make_provenance(
    adapter: Adapter | None,
    base_model: Location,
    calibration: Calibration | None,
    *,
    dtype: str,
    in_4bit: bool | None,
    dequantized: bool,
    schema: Schema,
) -> dict[str, str | None]:
    """Return what predictions record about the model that made them.

    `dtype` is that of the weights; `dequantized` says that they were in 4 bits in training, and `in_4bit` that they
    are now.
    """
    provenance: dict[str, str | None] = {
        "adapter": "None",
        "adapter_sha256": None,
        "processor_sha256": None,
        "base_model": str(base_model),
        "base_precision": "not quantized",
        "adapter_merged": None,
        "dtype": dtype,
        "calibration": str(calibration or Calibration()),
    }
    if dequantized:
        provenance["base_precision"] = "nf4, dequantized"
    elif in_4bit:
        provenance["base_precision"] = "nf4"
    if adapter is not None:
        provenance["adapter"] = str(adapter.location)
        provenance["adapter_sha256"] = adapter.sha256
        provenance["processor_sha256"] = processor_sha256(adapter.folder) if adapter.processor else None
        provenance["adapter_merged"] = "no" if in_4bit else "yes"
    if schema != CHALLENGE:
        provenance["schema_sha256"] = schema.sha256
    return provenance
