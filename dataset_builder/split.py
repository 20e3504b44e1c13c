"""Which image links are held out for validation."""

import hashlib
from collections import Counter
from collections.abc import Iterable


def validation_links(links: Iterable[str], *, validation_size: float, seed: int) -> set[str]:
    """Links that carry `validation_size` (a share of 1) of the rows; `links` holds one entry for each row.

    Whole links, so that no picture stands on both sides. Which ones depends on the links and the seed, not on the
    order of the rows: links are ranked by their hash, and taken from the front while the share is not yet reached.
    """
    rows_by_link = Counter(links)
    wanted = round(validation_size * rows_by_link.total())
    taken: set[str] = set()
    num_rows = 0
    for link in sorted(rows_by_link, key=lambda link: hashlib.sha256(f"{seed} {link}".encode()).digest()):
        if num_rows >= wanted:
            break
        taken.add(link)
        num_rows += rows_by_link[link]
    return taken
