"""Which rows are held out for validation: whole components, so that no product stands on both sides."""

import hashlib
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

LINKS = "image_link"
LIKENESS = (LINKS, "sha256", "phash")  # columns in which equal values join two rows
_NEIGHBOURHOOD = ["group_id", "entity_name", "entity_value"]
MAX_COMPONENT_SHARE = 0.005  # of the rows: a larger one would be a tenth of the usual validation split
_HOST = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)
MIN_OVERSIZE_ROWS = 10  # in a small dataset a picture with some questions is no monster


@dataclass(frozen=True)
class Oversize:
    """A component that is too large to be held out."""

    rows: int
    example: str  # one of its links


def components(rows: pd.DataFrame) -> np.ndarray:
    """The component of each row, as a number: rows are joined by an equal value in a column of LIKENESS, and where
    they follow one another by `index` and ask one thing of one group with one answer.

    Columns that are not there, and values that are null, join nothing; an empty answer (test) has no neighbours.
    """
    edges = [_equal(rows[column]) for column in LIKENESS if column in rows]
    edges.append(_neighbours(rows))
    first, second = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(len(rows), len(rows)))
    return connected_components(graph, directed=False)[1]


def _equal(values: pd.Series) -> np.ndarray:
    """Pairs of positions, shape (2, n): each row with the next one of the same value."""
    codes = pd.factorize(values)[0]
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]  # null is equal to nothing
    return _pairs(order, codes[order][1:] == codes[order][:-1])


def _neighbours(rows: pd.DataFrame) -> np.ndarray:
    labelled = np.flatnonzero((rows["entity_value"] != "").to_numpy())
    order = labelled[np.argsort(rows["index"].to_numpy()[labelled], kind="stable")]
    codes = np.column_stack([pd.factorize(rows[column])[0] for column in _NEIGHBOURHOOD])[order]
    return _pairs(order, (codes[1:] == codes[:-1]).all(axis=1))


def _pairs(order: np.ndarray, is_joined: np.ndarray) -> np.ndarray:
    return np.stack([order[:-1][is_joined], order[1:][is_joined]])


def hold_out(rows: pd.DataFrame, *, validation_size: float, seed: int) -> tuple[np.ndarray, list[Oversize]]:
    """Which rows (a boolean each) make up the share `validation_size` of all, and the components left in train for
    their size.

    Every entity gives about that share. Components are ranked by a hash of their first image's name and the seed, and
    taken while they fit: which ones depends on the rows, the names and the seed, not on the order of the rows and not
    on the host, port or folder that serves the images.
    """
    is_held_out = np.zeros(len(rows), dtype=bool)
    if not len(rows) or validation_size == 0:
        return is_held_out, []
    component = components(rows)
    size = np.bincount(component)
    first_link = rows[LINKS].groupby(component).min()
    is_oversize = size > max(MAX_COMPONENT_SHARE * len(rows), MIN_OVERSIZE_ROWS)
    oversize = [Oversize(int(size[number]), first_link[number]) for number in np.flatnonzero(is_oversize)]

    entities, names = pd.factorize(rows["entity_name"])
    room = np.ceil(validation_size * np.bincount(entities, minlength=len(names))).astype(int)
    wanted = round(validation_size * len(rows))
    rows_of = np.split(np.argsort(component, kind="stable"), np.cumsum(size)[:-1])
    rank = _rank(rows[LINKS], component, seed=seed)
    for number in sorted(np.flatnonzero(~is_oversize), key=rank.__getitem__):
        if wanted == 0:
            break
        asked = np.bincount(entities[rows_of[number]], minlength=len(names))
        if size[number] <= wanted and (asked <= room).all():
            is_held_out[rows_of[number]] = True
            room -= asked
            wanted -= size[number]
    return is_held_out, sorted(oversize, key=lambda part: -part.rows)


def _rank(urls: pd.Series, component: np.ndarray, *, seed: int) -> dict[int, tuple[tuple[bytes, ...], str]]:
    """By what to sort the components: the parts of a URL's path, each hashed, from the last to the first. The part
    before it tells images of one name apart (`.../1/main.jpg`, `.../2/main.jpg`)."""
    first: dict[int, tuple[tuple[str, ...], str]] = {}
    for number, url in zip(component, urls, strict=True):
        key = (_parts(url), url)
        first[number] = min(first.get(number, key), key)
    return {
        number: (tuple(_hashed(f"{seed} {part}") for part in parts), url) for number, (parts, url) in first.items()
    }


def _parts(url: str) -> tuple[str, ...]:
    """`https://host:80/a/b.jpg?size=1#top` -> (`b.jpg?size=1`, `a`)."""
    path, mark, query = _HOST.sub("", url, count=1).partition("#")[0].partition("?")
    *folders, name = path.split("/")
    return (name + mark + query, *filter(None, reversed(folders)))


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
