"""The wording of the question. It is written here and nowhere else, and it travels with every adapter."""

import json
from pathlib import Path

from product_vqa.entities import UNITS_BY_ENTITY

PROMPT_TEMPLATE = "What is the {entity}?"
TASK_FILE = "product_vqa.json"


def format_prompt(entity_name: str) -> str:
    """`item_weight` -> `What is the item weight?`. Raises ValueError for an entity that is none of the eight."""
    if entity_name not in UNITS_BY_ENTITY:
        raise ValueError(f"unknown entity_name {entity_name!r}; expected one of {', '.join(UNITS_BY_ENTITY)}")
    return PROMPT_TEMPLATE.format(entity=entity_name.replace("_", " "))


def save_prompt(folder: Path) -> None:
    """Write the wording beside an adapter, so that it is never asked in other words than it was trained with."""
    (folder / TASK_FILE).write_text(json.dumps({"prompt_template": PROMPT_TEMPLATE}, indent=2) + "\n")


def check_prompt(file: Path, *, adapter: str) -> None:
    """Raises ValueError if the adapter whose task file this is was trained with another wording."""
    template = json.loads(file.read_text()).get("prompt_template")
    if template != PROMPT_TEMPLATE:
        raise ValueError(
            f"adapter {adapter} was trained with the question {template!r}, this version asks {PROMPT_TEMPLATE!r}: "
            "its answers would be worse without a warning. Use the version of product-vqa named in the adapter's card."
        )
