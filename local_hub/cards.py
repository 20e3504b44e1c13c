"""The metadata of a repo: the YAML at the top of its README.md."""

import json
import re
from typing import Any

import yaml

FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n?^---[ \t]*\r?$", re.S | re.M)
TAG_KEYS = ("library_name", "pipeline_tag", "tags", "language", "task_categories", "size_categories")
TAG_PREFIXES = {"license": "license:", "datasets": "dataset:", "base_model": "base_model:"}


def parse_card(text: str) -> dict[str, Any]:
    """Parse the metadata of a README.md; {} if it has none.

    Raises ValueError if the YAML is invalid, is not a mapping, or holds what JSON cannot (such as .nan).
    """
    match = FRONT_MATTER.match(text)
    if match is None:
        return {}
    try:
        metadata = yaml.safe_load(match[1])
        metadata = json.loads(json.dumps(metadata, default=str, allow_nan=False))  # YAML has dates, JSON has none
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"YAML of README.md: {error}") from error
    if metadata is None:
        return {}
    if not isinstance(metadata, dict):
        raise ValueError(f"YAML of README.md: expected a mapping, got {type(metadata).__name__}")
    return metadata


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
