"""The options of `inference.predict` for images that are not in a dataset. Nothing heavy is imported here."""

from dataclasses import dataclass, field
from typing import Any

from product_vqa.engine import EngineOptions
from product_vqa.errors import InputError
from product_vqa.rank import num_processes
from product_vqa.row_selection import RowSelectionOptions
from product_vqa.sharding import MergeOptions

_COLUMNS = ("image_link", "key")


@dataclass
class CatalogueOptions:
    """Images of your own, in place of --dataset."""

    images: str | None = field(
        default=None,
        metadata={
            "help": "Folder of images, asked for --entities (default: all attributes). --output gets a row for each "
            "image and attribute: file, entity_name, value, unit, confidence, error."
        },
    )
    table: str | None = field(
        default=None,
        metadata={
            "help": "CSV with the path of an image in each row, in --images or else next to the CSV. --output gets "
            "its key column as it was, in place of file."
        },
    )
    columns: str | None = field(
        default=None,
        metadata={
            "help": "Columns of --table: image_link=photo,key=sku. Default: image_link, and as key the same column."
        },
    )

    def __post_init__(self) -> None:
        if self.columns is not None and self.table is None:
            raise InputError("`columns` is for `table`")
        self.column_names()

    @property
    def is_given(self) -> bool:
        return self.images is not None or self.table is not None

    def column_names(self) -> tuple[str, str | None]:
        """The names of the columns of images and keys. Raises InputError if `columns` is malformed."""
        names: dict[str, str] = {}
        for part in (self.columns or "").split(",") if self.columns is not None else ():
            ours, _, theirs = part.partition("=")
            if ours.strip() not in _COLUMNS or not theirs.strip() or ours.strip() in names:
                raise InputError(f"`columns` must be image_link=NAME,key=NAME, got {self.columns}")
            names[ours.strip()] = theirs.strip()
        return names.get("image_link", "image_link"), names.get("key")

    def check_others(
        self, options: Any, rows: RowSelectionOptions, shards: MergeOptions, engine: EngineOptions
    ) -> None:
        """Raise InputError for options of `predict` that are given and belong to a dataset."""
        given = {name: getattr(options, name) for name in ("dataset", "push_to_hub", "hub_predictions_id")}
        given |= {"shard": shards.shard, "merge": shards.merge, "max_rows": rows.max_rows, "rows": rows.rows}
        for name, value in (given | {"engine": engine.is_ray}).items():
            if value:
                raise InputError(f"`{name}` is for a dataset: drop it, or `images` and `table`")
        if options.reader != "model":
            raise InputError("`reader` ocr is for a dataset: drop it, or build a dataset of these images")
        if num_processes() > 1:
            raise InputError("`images` and `table` are read by one process: run `python -m inference.predict`")
