"""Adapter -> predictions -> submission, check, metrics, calibration, report and web page."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from product_vqa.modeling.attribute_reader import AttributeReader as AttributeReader


def __getattr__(name: str) -> Any:
    # Loaded on first use: the reader needs torch and transformers, which `inference.check` does not.
    if name == "AttributeReader":
        return importlib.import_module("product_vqa.modeling.attribute_reader").AttributeReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
