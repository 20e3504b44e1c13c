"""Images that show no product: named with their number, not left out."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

MAX_TINY_SIDE = 15  # px: 1 x 1, as shops count visits, and whatever else cannot hold a word
MIN_URLS = 10  # under which the same bytes are probably a shop's "no image"; in the challenge's data no two images are
NUM_NAMED = 10  # of those, the ones under the most URLs
# The perceptual hash of a black image, and of one in any other single colour: only the first of its bits is not 0.
_BLACK, _ONE_COLOUR = 0, -(2**63)
COLUMNS = ("width", "height", "sha256", "phash")  # of an image as it is stored; null where there is none


@dataclass(frozen=True)
class Placeholder:
    """A kind of image that shows no product, or one such image, and how much of the dataset it is."""

    kind: str  # "tiny", "black", "one_colour", or "repeated": one image
    urls: int
    rows: int
    example: str  # a URL

    def __str__(self) -> str:
        what = {
            "tiny": f"images of no size (at most {MAX_TINY_SIDE} px a side)",
            "black": "black images, like the 100 x 100 placeholder of the challenge's own downloader",
            "one_colour": "images of a single colour",
            "repeated": "one and the same image",
        }[self.kind]
        return f"{what}: {self.rows:,} rows, {self.urls:,} URLs, like {self.example}"


def find_placeholders(rows: pd.DataFrame) -> list[Placeholder]:
    """`rows` has the columns `image_link` and COLUMNS; where those are not known, nothing is found.

    An image is of the first kind that it fits: a black one under a hundred URLs is not named again as repeated.
    """
    if not set(COLUMNS) <= set(rows.columns):
        return []
    rows = rows[rows["sha256"].notna()]
    return list(_find(rows))


def _find(rows: pd.DataFrame) -> Iterator[Placeholder]:
    kinds = {
        "tiny": rows[["width", "height"]].max(axis=1) <= MAX_TINY_SIDE,
        "black": rows["phash"] == _BLACK,
        "one_colour": rows["phash"] == _ONE_COLOUR,
    }
    remaining = pd.Series(True, index=rows.index)
    for kind, is_kind in kinds.items():
        if (found := is_kind & remaining).any():
            yield _count(kind, rows[found])
        remaining &= ~is_kind
    rows = rows[remaining]
    num_urls = rows.groupby("sha256")["image_link"].nunique().sort_values(ascending=False, kind="stable")
    for sha256 in num_urls[num_urls >= MIN_URLS].index[:NUM_NAMED]:
        yield _count("repeated", rows[rows["sha256"] == sha256])


def _count(kind: str, rows: pd.DataFrame) -> Placeholder:
    return Placeholder(kind, int(rows["image_link"].nunique()), len(rows), str(rows["image_link"].iloc[0]))
