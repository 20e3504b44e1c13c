"""What a prediction is made from: the dataset, the adapter and the base model, pinned to commits."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, locate
from product_vqa.modeling.adapter import Adapter, download_adapter, locate_base_model
from product_vqa.provenance import BASE_MODEL_FILES, DATASET_FILES, content_sha256
from product_vqa.schemas import load_schema
from product_vqa.task.attributes import Schema

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Sources:
    dataset: Location
    adapter: Adapter | None
    base_model: Location

    @cached_property
    def dataset_schema(self) -> Schema:
        """The dataset's schema.yaml, which is read once."""
        with argument("dataset"):
            return load_schema(self.dataset)

    @property
    def schema(self) -> Schema:
        """The questions and answers: the adapter's, or the dataset's for a base model alone."""
        return self.adapter.schema if self.adapter else self.dataset_schema

    def check_schema(self, rows: "Dataset") -> None:
        """Raise InputError if the dataset asks for the attributes of these rows otherwise than the adapter answers."""
        if self.adapter is not None:
            check_schema(self.schema, self.dataset_schema, rows, dataset=self.dataset, adapter=self.adapter.location)

    def describe(self) -> dict[str, str | None]:
        """What shards record: the same on all machines, by content for folders, which are elsewhere on each."""
        return {
            "dataset": _name(self.dataset),
            "dataset_sha256": content_sha256(self.dataset, DATASET_FILES),
            "adapter": _name(self.adapter.location) if self.adapter else "None",
            "adapter_sha256": self.adapter.sha256 if self.adapter else None,
            "base_model": _name(self.base_model),
            "base_sha256": content_sha256(self.base_model, BASE_MODEL_FILES),
        }


def check_schema(schema: Schema, own: Schema, rows: "Dataset", *, dataset: Location, adapter: Location) -> None:
    """Raise InputError if a dataset's `own` schema asks for the attributes of these rows otherwise than the adapter's.

    Whether an answer may be that the image does not show the attribute is the adapter's matter: the question is the
    same, and so are all other answers.
    """
    own, schema = (one.with_not_shown(()) for one in (own, schema))
    if own == schema:
        return
    names = sorted(set(rows.select_columns("entity_name")["entity_name"][:]))
    if differences := own.differences(schema, names=names):
        shown = "; ".join(differences[:3])
        raise InputError(
            f"`dataset` {dataset}: its schema differs from that of {adapter} ({shown}): use an adapter that was "
            "trained on this schema, or build the dataset with the adapter's"
        )


def _name(location: Location) -> str:
    return str(location) if location.folder is None else location.folder.resolve().name


def find_sources(dataset: str, *, adapter: str | None, base_model: str | None) -> Sources:
    """Find the dataset, the adapter, which is small and downloaded at once, and the base model."""
    with argument("dataset"):
        location = locate(dataset, repo_type="dataset")
    downloaded = None
    if adapter is not None:
        with argument("adapter"):
            downloaded = download_adapter(locate(adapter))
    return Sources(location, downloaded, locate_base_model(downloaded, base_model=base_model))
