"""What a prediction is made from: the dataset, the adapter and the base model, pinned to commits."""

from dataclasses import dataclass

from product_vqa.distributed import is_first_process
from product_vqa.downloads import download_base_model, download_dataset, plan_base_model, plan_dataset
from product_vqa.errors import argument
from product_vqa.hub import Location, locate
from product_vqa.modeling.adapter import Adapter, download_adapter
from product_vqa.modeling.attribute_reader import locate_base_model
from product_vqa.provenance import BASE_MODEL_FILES, DATASET_FILES, content_sha256


@dataclass(frozen=True)
class Sources:
    dataset: Location
    adapter: Adapter | None
    base_model: Location

    def download(self, split: str, *, with_base_model: bool = True) -> None:
        """Download the base model and the split; print how much that is, and check that it fits.

        Every process does so before it connects with the others, and the cache's locks let one of them download.
        Otherwise the others would wait for it in a collective operation, of which NCCL ends any after ten minutes.
        """
        if is_first_process():
            with argument("dataset"):
                plan = plan_dataset(self.dataset, [split])
            if with_base_model:
                with argument("base_model"):
                    plan = plan_base_model(self.base_model) + plan
            plan.announce()
        if with_base_model:
            with argument("base_model"):
                download_base_model(self.base_model)
        with argument("dataset"):
            download_dataset(self.dataset, [split])

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
