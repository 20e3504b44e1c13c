"""Holds out rows for validation, by complete components, so that no product is on both sides of the split."""

import hashlib
import logging
import re
from dataclasses import dataclass
from itertools import chain, compress

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dataset_builder.row_filter import DatasetRow, FilteredRows, as_frame
from product_vqa.quoting import one_line

logger = logging.getLogger(__name__)

JOINING_COLUMNS = ("image_link", "sha256", "phash")  # rows with an equal value belong together
_NEIGHBOURHOOD = ["group_id", "entity_name", "entity_value"]
MAX_COMPONENT_SHARE = 0.005  # of the rows: a larger one would be a tenth of the usual validation split
_HOST = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)
MIN_OVERSIZE_ROWS = 10  # in a small dataset, one image with a few questions is not too large


@dataclass(frozen=True)
class Oversize:
    """A component that is too large to be held out."""

    rows: int
    example: str  # one of its URLs


@dataclass(frozen=True)
class Splits:
    rows: dict[str, tuple[DatasetRow, ...]]  # by split: train, validation, test, without those that have no rows
    oversize: tuple[Oversize, ...]  # components that stay in train because of their size

    def as_frame(self) -> pd.DataFrame:
        """All rows as a table, with the column `split`."""
        frame = as_frame([*chain.from_iterable(self.rows.values())])
        numbers = np.repeat(np.arange(len(self.rows)), [len(rows) for rows in self.rows.values()])
        return frame.assign(split=pd.Categorical.from_codes(numbers, categories=[*self.rows]))

    def images(self) -> dict[str, dict[str, str]]:
        """The images of each split: URL -> sha256."""
        return {
            split: {one.row.image_link: one.image.sha256 for one in rows if one.image is not None}
            for split, rows in self.rows.items()
        }


def split_rows(filtered: FilteredRows, *, validation_size: float, seed: int) -> Splits:
    """Divide the labelled rows into train and validation. The rows of test.csv are test."""
    is_held_out, oversize = hold_out(as_frame(filtered.labelled), validation_size=validation_size, seed=seed)
    if oversize:
        logger.warning(
            "%s groups of related rows are too large to be held out, and stay in train with %s rows; the largest has "
            "%s rows, for example %s",
            len(oversize),
            sum(component.rows for component in oversize),
            oversize[0].rows,
            one_line(oversize[0].example),
        )
    rows = {
        "train": tuple(compress(filtered.labelled, ~is_held_out)),
        "validation": tuple(compress(filtered.labelled, is_held_out)),
        "test": filtered.test,
    }
    return Splits({split: rows for split, rows in rows.items() if rows}, tuple(oversize))


def components(rows: pd.DataFrame) -> np.ndarray:
    """The number of each row's component: one product, as far as can be determined.

    Two rows are joined if they have an equal value in one of JOINING_COLUMNS, or if they follow each other by `index`
    with the same group, entity and label. Missing columns, null values, empty groups and empty labels (of test, or not
    shown) join nothing.
    """
    edges = [_equal_values(rows[column]) for column in JOINING_COLUMNS if column in rows]
    edges.append(_neighbours(rows))
    first, second = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones_like(first), (first, second)), shape=(len(rows), len(rows)))
    numbers: np.ndarray = connected_components(graph)[1]  # whatever the directions of the edges
    return numbers


def _equal_values(values: pd.Series) -> np.ndarray:
    """Pairs of positions, shape (2, n): each row with the next row of the same value."""
    codes = pd.factorize(values)[0]
    order = np.argsort(codes)
    order = order[codes[order] >= 0]  # null equals nothing
    return _pairs(order, codes[order][1:] == codes[order][:-1])


def _neighbours(rows: pd.DataFrame) -> np.ndarray:
    labelled = np.flatnonzero(((rows["entity_value"] != "") & (rows["group_id"] != "")).to_numpy())
    order = labelled[np.argsort(rows["index"].to_numpy()[labelled], kind="stable")]
    codes = np.column_stack([pd.factorize(rows[column])[0] for column in _NEIGHBOURHOOD])[order]
    return _pairs(order, (codes[1:] == codes[:-1]).all(axis=1))


def _pairs(order: np.ndarray, is_joined: np.ndarray) -> np.ndarray:
    return np.stack([order[:-1][is_joined], order[1:][is_joined]])


def hold_out(rows: pd.DataFrame, *, validation_size: float, seed: int) -> tuple[np.ndarray, list[Oversize]]:
    """Hold out the share `validation_size` of the rows, about the same share of each entity.

    Returns a boolean for each row, and the components that are too large to be held out. Components are ranked by a
    hash of the seed and the name of their first image, and taken while they fit. So the result depends on the rows,
    the names and the seed, but not on the order of the rows, nor on the host, port or folder that serves the images.
    """
    is_held_out = np.zeros(len(rows), dtype=bool)
    if not len(rows) or validation_size == 0:
        return is_held_out, []
    component = components(rows)
    size = np.bincount(component)
    is_oversize = size > max(MAX_COMPONENT_SHARE * len(rows), MIN_OVERSIZE_ROWS)
    oversize = [
        Oversize(int(size[number]), min(rows["image_link"][component == number]))
        for number in np.flatnonzero(is_oversize)
    ]

    entities, names = pd.factorize(rows["entity_name"])
    remaining = np.ceil(validation_size * np.bincount(entities))
    wanted = round(validation_size * len(rows))
    by_component, end = np.argsort(component), np.cumsum(size)
    for number in _order(rows["image_link"], component, seed=seed):
        if wanted == 0:
            break
        if is_oversize[number]:
            continue
        positions = by_component[end[number] - size[number] : end[number]]
        entity_counts = np.bincount(entities[positions], minlength=len(names))
        if size[number] <= wanted and (entity_counts <= remaining).all():
            is_held_out[positions] = True
            remaining -= entity_counts
            wanted -= size[number]
    return is_held_out, sorted(oversize, key=lambda component: -component.rows)


def _order(urls: pd.Series, component: np.ndarray, *, seed: int) -> np.ndarray:
    """The numbers of the components, in the order of the hashes of their URL's parts, from the last to the first.

    The other parts tell images of the same name apart (`.../1/main.jpg`, `.../2/main.jpg`). They are hashed only where
    the last one occurs twice: for a million components, the hashes of all parts would take 400 MB.
    """
    texts = urls.array
    first = np.full(component.max() + 1, -1)  # the position of each component's first URL
    for position, (number, url) in enumerate(zip(component, texts, strict=True)):
        if first[number] < 0 or _path_key(url) < _path_key(texts[first[number]]):
            first[number] = position

    def full_key(number: int) -> tuple[tuple[bytes, ...], str]:
        url = texts[first[number]]
        return tuple(_hash(f"{seed} {part}") for part in _path_parts(url)), url

    names = (_path_parts(url)[0] for url in texts[first])
    hashes = (int.from_bytes(_hash(f"{seed} {name}")[:8], "big") for name in names)
    starts = np.fromiter(hashes, dtype=np.uint64, count=len(first))
    order = np.argsort(starts, kind="stable")
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(starts[order])) + 1, [len(order)]])
    for equal in np.flatnonzero(np.diff(bounds) > 1):
        low, high = bounds[equal], bounds[equal + 1]
        order[low:high] = sorted(order[low:high], key=full_key)
    return order


def _path_key(url: str) -> tuple[tuple[str, ...], str]:
    return _path_parts(url), url


def _path_parts(url: str) -> tuple[str, ...]:
    """`https://host:80/a/b.jpg?size=1#top` -> (`b.jpg?size=1`, `a`)."""
    path, mark, query = _HOST.sub("", url, count=1).partition("#")[0].partition("?")
    *folders, name = path.split("/")
    return (name + mark + query, *filter(None, reversed(folders)))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
