"""How much disk a build takes, compared with what is free before anything is downloaded."""

import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np

from dataset_builder.builder import ProductVqaConfig
from dataset_builder.fetching import FetchError
from dataset_builder.image_preparation import ImageFolder, PictureError, prepare_picture
from dataset_builder.image_store import ImageStore
from product_vqa.errors import InputError

logger = logging.getLogger(__name__)

_MIN_STORED = 50  # images that a store must hold for their mean to count
_FOLDER_SAMPLE = 200
# Bytes of a stored photograph by --image_size, over 779 of the challenge's: the means, less a tenth, because they
# differ that much (at 448 pixels 40 kB over its test split and 73 kB over its train split).
_BYTES_BY_SIZE = {
    32: 1_000, 112: 5_400, 224: 15_200, 336: 28_700, 448: 45_000, 672: 63_000, 896: 94_000, 1120: 109_000,
}  # fmt: skip
_ORIGINAL_BYTES = 75_000
_BY_FAR = 2  # how much smaller than usual images may be: where so small ones would not fit, none is asked for
_MARGIN = 1.05  # blocks that are not full, and a table that grows with the store


@dataclass(frozen=True)
class Need:
    """What will be written into a folder, which need not exist yet."""

    what: str  # `346572 images`
    flag: str
    folder: Path
    num_bytes: float


def usual_image_bytes(image_size: int) -> float:
    """Of a stored image, where nothing is known of it but the size."""
    if image_size == 0:
        return _ORIGINAL_BYTES
    return float(np.interp(image_size, list(_BYTES_BY_SIZE), list(_BYTES_BY_SIZE.values())))


def check_download(
    store: ImageStore, num_images: int, sampled: list[int], *, num_rows: int = 0, output_dir: Path | None = None
) -> bool:
    """Whether so many more images, and a dataset of so many rows, fit. Raises InputError if they do not.

    False where this cannot be said yet, for want of images in the store and of a sample (the sizes of some): then only
    a disk that is too small by far is refused.
    """
    num_stored, size = store.mean_bytes()
    is_known = num_stored >= _MIN_STORED
    if not is_known:
        size = sum(sampled) / len(sampled) if sampled else usual_image_bytes(store.image_size)
    needs = [Need(f"{num_images} images", "--image_store", store.folder, num_images * size)]
    if output_dir is not None:
        needs.append(Need(f"{num_rows} rows", "--output_dir", output_dir, num_rows * size))
    is_known = is_known or bool(sampled)
    check_space(needs, image_size=store.image_size, is_known=is_known)
    return is_known


def check_build(config: ProductVqaConfig, output_dir: Path) -> None:
    """Whether the dataset fits. Raises InputError if it does not."""
    urls = [row.image_link for table in config.tables if table for row in table.rows]
    if config.store:
        sizes = config.store.sizes()
        num_bytes = float(sum(sizes.get(url, 0) for url in urls))
    else:
        num_bytes = len(urls) * _sampled_image_bytes(config.folder, urls, image_size=config.image_size)
    needs = [Need(f"{len(urls)} rows", "--output_dir", output_dir, num_bytes)]
    if config.folder:  # its images go through a store
        num_images = len(set(urls))
        needs.append(Need(f"{num_images} images", "--output_dir", output_dir, num_bytes * num_images / len(urls)))
    check_space(needs, image_size=config.image_size)
    _warn_of_cache(num_bytes)


def _sampled_image_bytes(folder: ImageFolder, urls: Collection[str], *, image_size: int) -> float:
    """Of an image of a folder once it is stored, over some of them."""
    sample = list(urls)[:: max(1, len(urls) // _FOLDER_SAMPLE)]
    num_bytes = 0
    for url in sample:
        try:
            num_bytes += len(prepare_picture(folder.read(url).data, image_size=image_size).data)
        except (FetchError, PictureError):
            continue  # it takes no space
    return num_bytes / len(sample)


def check_space(needs: list[Need], *, image_size: int, is_known: bool = True) -> None:
    """Log what is needed and what is free. Raises InputError, with the remedies, for a disk that it does not fit, or
    if the need is a guess (not `is_known`) would not fit though the images were _BY_FAR smaller."""
    by_disk: defaultdict[int, list[Need]] = defaultdict(list)
    for need in needs:
        by_disk[os.stat(_existing(need.folder)).st_dev].append(need)
    for together in by_disk.values():
        needed = sum(need.num_bytes for need in together)
        free = shutil.disk_usage(_existing(together[0].folder)).free
        parts = " and ".join(f"{format_bytes(need.num_bytes)} for {need.what} in {need.folder}" for need in together)
        if needed * (_MARGIN if is_known else 1 / _BY_FAR) > free:
            flags = " or ".join(dict.fromkeys(need.flag for need in together))
            usual = f"{usual_image_bytes(image_size) / 1000:.0f} kB"
            guess = (
                ""
                if is_known
                else f" (at the usual {usual} an image; download {_MIN_STORED} first where yours are smaller)"
            )
            raise InputError(
                f"too little disk space: about {parts} are needed{guess}, and {format_bytes(free)} are free there; "
                f"choose a folder on another disk ({flags}){_smaller(needed, free, image_size)}"
            )
        if is_known:
            logger.info("Disk space: about %s; %s are free there", parts, format_bytes(free))


def _warn_of_cache(num_bytes: float) -> None:
    """Whoever loads the dataset gets another copy of it, as Arrow."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    free = shutil.disk_usage(_existing(cache)).free
    if num_bytes > free:
        logger.warning(
            "Loading the dataset on this machine takes another %s in %s, where %s are free: HF_HOME=FOLDER says where "
            "else", format_bytes(num_bytes), cache, format_bytes(free),
        )  # fmt: skip


def _smaller(needed: float, free: float, image_size: int) -> str:
    """The largest smaller --image_size that would fit, as a remedy."""
    for size in sorted(_BYTES_BY_SIZE, reverse=True):
        then = needed * usual_image_bytes(size) / usual_image_bytes(image_size)
        if size >= 112 and (size < image_size or image_size == 0) and then * _MARGIN <= free:
            return f", or --image_size {size}, which takes about {format_bytes(then)}"
    return ""


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def format_bytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
