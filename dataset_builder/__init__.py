"""Builds a dataset on the Hub from CSVs of image URLs. `from dataset_builder import ProductVqa`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset_builder.builder import ProductVqa

__all__ = ["ProductVqa"]


def __getattr__(name: str) -> Any:
    # Imported on first use: `datasets` takes a second to import, and --help does not need it.
    if name == "ProductVqa":
        from dataset_builder.builder import ProductVqa

        return ProductVqa
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
