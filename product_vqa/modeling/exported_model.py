"""What an exported model records: the adapter that was merged into it, and how."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from product_vqa.errors import InputError
from product_vqa.hub import Location, download, list_files
from product_vqa.modeling.calibration import Calibration, load_calibration
from product_vqa.modeling.model_files import read_json_file
from product_vqa.provenance import CALIBRATION_FILE
from product_vqa.task.prompt import DTYPES

EXPORT_FILE = "product_vqa_export.json"


@dataclass(frozen=True)
class Export:
    """How a merged model was made. Folders are named without their path."""

    adapter: str
    adapter_sha256: str
    base_model: str
    base_precision: str  # of the weights that the adapter was merged into: `not quantized` or `nf4, dequantized`
    dtype: str  # of the weights
    divergence: float  # mean KL divergence in nats between the adapter's and this model's first token of an answer
    compared_rows: int

    def save(self, folder: Path) -> None:
        (folder / EXPORT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


def read_export(location: Location) -> Export | None:
    """Read what an exported model records; None for any other model. Raises InputError if the file is malformed."""
    if location.folder is None and EXPORT_FILE not in list_files(location):
        return None  # without a download, which would warn that it found nothing
    folder = download(location, patterns=[EXPORT_FILE, CALIBRATION_FILE])
    content = read_json_file(location, folder, EXPORT_FILE)
    if content is None:
        return None
    kinds: dict[str, Any] = Export.__annotations__
    for name, kind in kinds.items():
        if type(content.get(name)) is not kind:
            raise InputError(
                f"{location}: `{name}` in its {EXPORT_FILE} is {str(content.get(name))[:80]!r}; export it again"
            )
    if content["dtype"] not in DTYPES:
        raise InputError(f"{location}: `dtype` in its {EXPORT_FILE} is {content['dtype'][:80]!r}; export it again")
    return Export(**{name: content[name] for name in kinds})


def load_export_calibration(location: Location) -> Calibration | None:
    """Load the calibration of the adapter that an exported model was made from; None without one."""
    export = read_export(location)
    if export is None:
        return None
    file = download(location, patterns=[EXPORT_FILE, CALIBRATION_FILE]) / CALIBRATION_FILE
    return load_calibration(file, adapter_sha256=export.adapter_sha256) if file.is_file() else None
