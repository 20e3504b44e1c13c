"""CSVs of image links and their pictures become a dataset on the Hub. `from dataset_builder import ProductVqa`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset_builder.builder import ProductVqa

__all__ = ["ProductVqa"]


def __getattr__(name: str) -> Any:
    # On first use, because `datasets` takes a second to import and --help needs none of it.
    if name == "ProductVqa":
        from dataset_builder.builder import ProductVqa

        return ProductVqa
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
