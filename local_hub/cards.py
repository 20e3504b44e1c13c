"""The YAML at the top of a README.md: what the Hub knows about a repo beyond its files."""

import json
import re
from typing import Any

import yaml

FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n?^---[ \t]*\r?$", re.S | re.M)


def parse_card(text: str) -> dict[str, Any]:
    """The metadata of a card, {} if it has none. Raises ValueError that says what is wrong."""
    match = FRONT_MATTER.match(text)
    if match is None:
        return {}
    try:
        data = yaml.safe_load(match[1])
        # YAML knows dates, JSON does not; and a card that cannot be sent is of no use.
        data = json.loads(json.dumps(data, default=str, allow_nan=False))
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"YAML of README.md: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError(f"YAML of README.md: expected keys and values, got a {type(data).__name__}")
    return data


def list_tags(card: dict[str, Any]) -> list[str]:
    """What `filter=` of a search finds the repo by."""
    named = {"license": "license:", "datasets": "dataset:", "base_model": "base_model:"}
    tags = []
    for key in ("library_name", "pipeline_tag", "tags", "language", "task_categories", "size_categories", *named):
        value = card.get(key)
        values = value if isinstance(value, list) else [] if value is None else [value]
        tags += [named.get(key, "") + str(item) for item in values]
    return list(dict.fromkeys(tags))
