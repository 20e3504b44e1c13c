"""The metadata of a repo: the YAML at the top of its README.md."""

import json
import re
from functools import lru_cache
from typing import Any

from product_vqa.documents import parse_front_matter

METADATA_LENGTH_MAX = 256 * 2**10  # characters, parsed within three seconds
OPENING = re.compile(r"\ufeff?\s*---")
CLOSING = re.compile(r"^---[ \t]*\r?$", re.MULTILINE)
TAG_KEYS = ("library_name", "pipeline_tag", "tags", "language", "task_categories", "size_categories")
TAG_PREFIXES = {"license": "license:", "datasets": "dataset:", "base_model": "base_model:"}


def parse_card(text: str) -> dict[str, Any]:
    """Parse the metadata of a README.md; {} if it has none.

    Raises ValueError if it is too large, not valid YAML, not a mapping, or holds what JSON cannot (such as .nan).
    """
    head, rest = text[:METADATA_LENGTH_MAX], text[METADATA_LENGTH_MAX:]
    try:
        metadata = parse_front_matter(head)
        if not metadata and OPENING.match(head) and CLOSING.search(rest):
            raise ValueError(f"more than {METADATA_LENGTH_MAX} characters")
        return json.loads(json.dumps(metadata, default=str))  # YAML has dates, JSON has none
    except (ValueError, TypeError) as error:
        raise ValueError(f"YAML of README.md: {error}") from error


@lru_cache(maxsize=100)
def read_metadata(text: str) -> dict[str, Any]:
    """`parse_card`, but {} for an invalid card. Do not change the result: a search reads the same cards again."""
    try:
        return parse_card(text)
    except ValueError:
        return {}


def list_tags(card: dict[str, Any]) -> list[str]:
    """The tags that the Hub derives from a card. A search filters by them."""
    tags = []
    for key in (*TAG_KEYS, *TAG_PREFIXES):
        value = card.get(key)
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        tags += [f"{TAG_PREFIXES.get(key, '')}{item}" for item in values]
    return list(dict.fromkeys(tags))
