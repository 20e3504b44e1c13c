"""Estimates the disk space that a build takes, and compares it with the free space before the long work begins."""

import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np

from dataset_builder.csv_reader import Tables
from dataset_builder.image_dir import ImageDir
from dataset_builder.image_preparation import prepare_image
from dataset_builder.image_store import ImageStore
from dataset_builder.shard_images import StoredImages
from product_vqa.disk_space import Need, by_disk, format_bytes, free_bytes
from product_vqa.errors import InputError
from product_vqa.http.fetching import FetchError
from product_vqa.images import ImageError

logger = logging.getLogger(__name__)

_MIN_STORED = 50  # images that a store must contain for their mean to be used
_FOLDER_SAMPLE = 200
# Bytes of a stored image by image_size: the means over 779 images of the challenge, less a tenth, because such means
# differ that much (at 448 pixels, 40 kB over its test split and 73 kB over its train split).
_BYTES_BY_SIZE = {
    32: 1_000,
    112: 5_400,
    224: 15_200,
    336: 28_700,
    448: 45_000,
    672: 63_000,
    896: 94_000,
    1120: 109_000,
}
_ORIGINAL_BYTES = 75_000
_GUESS_FACTOR = 2  # a guess is only refused if images of half the usual size would not fit either
_MARGIN = 1.05  # for partly filled blocks, and for the table of the store


def usual_image_bytes(image_size: int) -> float:
    """The usual size of a stored image, for when no image is known yet."""
    if image_size == 0:
        return _ORIGINAL_BYTES
    return float(np.interp(image_size, list(_BYTES_BY_SIZE), list(_BYTES_BY_SIZE.values())))


def check_download(
    store: ImageStore, num_images: int, sampled: list[int], *, num_rows: int = 0, output_dir: Path | None = None
) -> bool:
    """Check that `num_images` more images, and a dataset of `num_rows` rows, fit on the disk.

    The size of an image is the mean of the images in the store, or else of `sampled`, the sizes of a sample. Returns
    False if there are too few of either to tell: then only a disk that is far too small is refused. Raises InputError
    if the disk is too small.
    """
    num_stored, size = store.mean_bytes()
    is_known = num_stored >= _MIN_STORED
    if not is_known:
        size = sum(sampled) / len(sampled) if sampled else usual_image_bytes(store.image_size)
    needs = [Need(f"{num_images} images", "image_store", store.folder, num_images * size)]
    if output_dir is not None:
        needs.append(Need(f"{num_rows} rows", "output_dir", output_dir, num_rows * size))
    is_known = is_known or bool(sampled)
    check_space(needs, image_size=store.image_size, is_known=is_known)
    return is_known


def check_build(
    tables: Tables, images: ImageDir | StoredImages, output_dir: Path, *, image_size: int, cache: Path
) -> None:
    """Check that the dataset fits on the disk. Raises InputError if it does not.

    If its copy as Arrow will not fit in `cache`, where `load_dataset` writes it, a warning is logged.
    """
    urls = [row.image_link for row in tables.rows()]
    if not isinstance(images, ImageDir):
        sizes = images.sizes()
        num_bytes = float(sum(sizes.get(url, 0) for url in urls))
        needs = [Need(f"{len(urls)} rows", "output_dir", output_dir, num_bytes)]
    else:
        num_bytes = len(urls) * _sampled_image_bytes(images, urls, image_size=image_size)
        num_images = len(set(urls))
        needs = [
            Need(f"{len(urls)} rows", "output_dir", output_dir, num_bytes),
            # The images of a folder go through a temporary store.
            Need(f"{num_images} images", "output_dir", output_dir, num_bytes * num_images / len(urls)),
        ]
    check_space(needs, image_size=image_size)
    _warn_of_cache(num_bytes, cache)


def _sampled_image_bytes(images: ImageDir, urls: Collection[str], *, image_size: int) -> float:
    """The mean size of a folder's image once it is prepared, over a sample."""
    sample = list(urls)[:: max(1, len(urls) // _FOLDER_SAMPLE)]
    num_bytes = 0
    for url in sample:
        try:
            num_bytes += len(prepare_image(images.read(url).data, image_size=image_size).data)
        except (FetchError, ImageError):
            continue  # it will take no space
    return num_bytes / len(sample)


def check_space(needs: list[Need], *, image_size: int, is_known: bool = True) -> None:
    """Log the needed and the free space of each disk. Raises InputError, with the remedies, if a disk is too small.

    If the need is only a guess (not `is_known`), a disk is refused only if images of half that size would not fit.
    """
    for disk in by_disk(needs):
        needed, free = disk.needed, disk.free
        if needed * (_MARGIN if is_known else 1 / _GUESS_FACTOR) > free:
            guess = "" if is_known else _explain_guess(image_size)
            arguments = " or ".join(dict.fromkeys(f"`{need.argument}`" for need in disk.needs))
            raise InputError(
                f"too little disk space: about {disk} needed{guess}, but only {format_bytes(free)} free; "
                f"choose a folder on another disk ({arguments}){_smaller(needed, free, image_size)}"
            )
        if is_known:
            logger.info("Disk space: about %s needed, %s free", disk, format_bytes(free))


def _explain_guess(image_size: int) -> str:
    usual = f"{usual_image_bytes(image_size) / 1000:.0f} kB"
    return f" (at the usual {usual} per image; if your images are smaller, download {_MIN_STORED} of them first)"


def _warn_of_cache(num_bytes: float, cache: Path) -> None:
    free = free_bytes(cache)
    if num_bytes > free:
        logger.warning(
            "Loading the dataset on this machine will need another %s in %s, where only %s are free; set HF_HOME to a "
            "folder on a larger disk",
            format_bytes(num_bytes),
            cache,
            format_bytes(free),
        )


def _smaller(needed: float, free: float, image_size: int) -> str:
    """As a remedy, the largest smaller image_size that would fit."""
    for size in sorted(_BYTES_BY_SIZE, reverse=True):
        would_need = needed * usual_image_bytes(size) / usual_image_bytes(image_size)
        if size >= 112 and (size < image_size or image_size == 0) and would_need * _MARGIN <= free:
            return f", or use `image_size` {size}, which needs about {format_bytes(would_need)}"
    return ""
