"""Finds images that show no product. They are reported with their counts, and stay in the dataset."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from product_vqa.quoting import one_line

MAX_TINY_SIDE = 15  # px: tracking pixels, and other images that are too small to show a word
MIN_URLS = 10  # the same bytes under this many URLs are probably a shop's "no image"; the challenge has none
NUM_REPORTED = 10  # of those, the images with the most URLs
# The perceptual hash of a black image is 0. For any other single colour, only the first bit is set.
_BLACK, _ONE_COLOUR = 0, -(2**63)
COLUMNS = ("width", "height", "sha256", "phash")  # of the stored image; null if there is none


@dataclass(frozen=True)
class Placeholder:
    """A kind of image that shows no product, or one such image, and how often it occurs."""

    kind: str  # "tiny", "black", "one_colour", or "repeated": one image
    urls: int
    rows: int
    example: str  # a URL

    def __str__(self) -> str:
        return self.describe(one_line(self.example))

    def describe(self, example: str) -> str:
        """The sentence for a report, with the URL as it is to be shown there."""
        what = {
            "tiny": f"tiny images (at most {MAX_TINY_SIDE} px per side)",
            "black": "black images, like the 100 x 100 placeholder that the challenge's own downloader writes",
            "one_colour": "images of a single colour",
            "repeated": "the same image",
        }[self.kind]
        return f"{what}: {self.rows:,} rows, {self.urls:,} URLs, for example {example}"


def find_placeholders(rows: pd.DataFrame) -> list[Placeholder]:
    """Find the placeholders among rows with the columns `image_link` and COLUMNS. Without COLUMNS, there are none.

    Each image counts for the first kind that it matches: a black image with a hundred URLs is not reported again as
    repeated.
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
    codes = pd.factorize(rows["sha256"])[0]
    rows = rows[np.bincount(codes)[codes] >= MIN_URLS]  # in a large dataset few: to count URLs takes memory
    num_urls = rows.groupby("sha256")["image_link"].nunique().sort_values(ascending=False, kind="stable")
    for sha256 in num_urls[num_urls >= MIN_URLS].index[:NUM_REPORTED]:
        yield _count("repeated", rows[rows["sha256"] == sha256])


def _count(kind: str, rows: pd.DataFrame) -> Placeholder:
    return Placeholder(kind, int(rows["image_link"].nunique()), len(rows), str(rows["image_link"].iloc[0]))
