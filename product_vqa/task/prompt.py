"""The prompt template, and the file that records it with an adapter, along with the precision of its base model."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from product_vqa.documents import read_json
from product_vqa.errors import InputError, first_line
from product_vqa.task.schema import UNITS_BY_ENTITY

PROMPT_TEMPLATE = "What is the {entity}?"
TASK_FILE = "product_vqa.json"
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class BasePrecision:
    """How the base model was loaded when the adapter was trained and evaluated."""

    dtype: str  # of its weights; if they are in 4 bits, of those that are not quantized
    load_in_4bit: bool  # NF4


def format_prompt(entity_name: str) -> str:
    """`item_weight` -> `What is the item weight?`. Raises InputError for an unknown entity."""
    if entity_name not in UNITS_BY_ENTITY:
        raise InputError(f"unknown entity_name {entity_name!r}; expected one of {', '.join(UNITS_BY_ENTITY)}")
    return PROMPT_TEMPLATE.format(entity=entity_name.replace("_", " "))


def save_task(folder: Path, *, dtype: str, load_in_4bit: bool) -> None:
    """Write the prompt template and the base model's precision in training next to an adapter."""
    assert dtype in DTYPES, dtype
    task = {"prompt_template": PROMPT_TEMPLATE, "base_model": asdict(BasePrecision(dtype, load_in_4bit))}
    (folder / TASK_FILE).write_text(json.dumps(task, indent=2) + "\n")


def load_task(file: Path, *, adapter: str) -> BasePrecision | None:
    """Read the base model's precision that `save_task` wrote; None if an earlier version wrote the file without it.

    Raises InputError if the adapter was trained with another prompt template, or the file is malformed.
    """
    try:
        task = read_json(file)
        template = task.get("prompt_template")
        recorded = task.get("base_model")
        precision = None if recorded is None else BasePrecision(**recorded)
        if precision is not None and (precision.dtype not in DTYPES or not isinstance(precision.load_in_4bit, bool)):
            raise ValueError(f"base_model is {str(recorded)[:100]}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{adapter}: its {TASK_FILE} is malformed ({type(error).__name__}: {first_line(error)[:200]}); "
            "download the adapter again"
        ) from error
    if template != PROMPT_TEMPLATE:
        raise InputError(
            f"{adapter} was trained with the prompt template {str(template)[:200]!r}, but this version uses "
            f"{PROMPT_TEMPLATE!r}, with which its answers would be worse. Use the version of product-vqa that the "
            "adapter's card names"
        )
    return precision
