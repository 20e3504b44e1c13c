"""What all stages share, in three parts.

- `task`: the attributes, their units and questions, quantities, and the dataset's columns
- `modeling`: loading PaliGemma, making batches, constrained decoding, calibration, and `AttributeReader`
- the modules next to them: the command line, the Hub, files, images, cards and processes

`entity_f1` is the metric, which `evaluate.load("product_vqa/entity_f1")` loads without the rest.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from product_vqa.modeling.answer import Answer as Answer
    from product_vqa.modeling.attribute_reader import AttributeReader as AttributeReader
    from product_vqa.modeling.attribution import AnswerRegion as AnswerRegion

__version__ = "0.1.0"
__all__ = ["Answer", "AnswerRegion", "AttributeReader"]

_MODULES = {
    "Answer": "product_vqa.modeling.answer",
    "AnswerRegion": "product_vqa.modeling.attribution",
    "AttributeReader": "product_vqa.modeling.attribute_reader",
}


def _normalize_endpoint() -> None:
    """Give HF_ENDPOINT a scheme and no trailing slash, as the Hub's clients expect it when they are imported."""
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint is None:
        return
    endpoint = endpoint.strip().rstrip("/")
    if endpoint and "://" not in endpoint:
        is_local = endpoint.startswith(("127.", "localhost", "[::1]"))
        endpoint = f"{'http' if is_local else 'https'}://{endpoint}"
    if endpoint:
        os.environ["HF_ENDPOINT"] = endpoint
    else:
        del os.environ["HF_ENDPOINT"]  # the clients would use the empty string as a URL


_normalize_endpoint()  # before any module imports a client


def __getattr__(name: str) -> Any:
    # Loaded on first use: the reader needs torch, which building a dataset does not.
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
