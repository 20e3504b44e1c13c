"""Adapter -> predictions -> submission, check, score."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from product_vqa.modeling.attribute_reader import AttributeReader as AttributeReader


def __getattr__(name: str) -> Any:
    # The reader brings torch and transformers; `inference.check` needs neither.
    if name == "AttributeReader":
        from product_vqa.modeling.attribute_reader import AttributeReader

        return AttributeReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
