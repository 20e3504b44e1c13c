"""The wording of the question, defined here and nowhere else. It travels with every adapter, and so does the precision
of the base model that it was trained on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from product_vqa.errors import InputError
from product_vqa.task.schema import UNITS_BY_ENTITY

PROMPT_TEMPLATE = "What is the {entity}?"
TASK_FILE = "product_vqa.json"
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class BasePrecision:
    """How the base model was loaded when the adapter was trained and scored."""

    dtype: str  # of its weights; of those that are not quantized where it is 4-bit
    load_in_4bit: bool  # NF4


def format_prompt(entity_name: str) -> str:
    """`item_weight` -> `What is the item weight?`. Raises InputError for an entity that is none of the eight."""
    if entity_name not in UNITS_BY_ENTITY:
        raise InputError(f"unknown entity_name {entity_name!r}; expected one of {', '.join(UNITS_BY_ENTITY)}")
    return PROMPT_TEMPLATE.format(entity=entity_name.replace("_", " "))


def save_task(folder: Path, *, dtype: str, load_in_4bit: bool) -> None:
    """Write next to an adapter the prompt and the precision of the base model that it was trained and scored with."""
    assert dtype in DTYPES, dtype
    task = {"prompt_template": PROMPT_TEMPLATE, "base_model": asdict(BasePrecision(dtype, load_in_4bit))}
    (folder / TASK_FILE).write_text(json.dumps(task, indent=2) + "\n")


def load_task(file: Path, *, adapter: str) -> BasePrecision | None:
    """The precision that `save_task` wrote; None in the file of an earlier version, which does not record it.

    Raises InputError if the adapter was trained with another prompt, or the file is not a task file.
    """
    try:
        task = json.loads(file.read_text())
        template, precision = task.get("prompt_template"), task.get("base_model")
        if precision is not None:
            precision = BasePrecision(**precision)
            if precision.dtype not in DTYPES or not isinstance(precision.load_in_4bit, bool):
                raise ValueError(f"base_model is {task['base_model']}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"adapter {adapter}: its {TASK_FILE} is not one that training wrote ({type(error).__name__}: {error})"
        ) from error
    if template != PROMPT_TEMPLATE:
        raise InputError(
            f"adapter {adapter} was trained with the question {template!r}, this version asks {PROMPT_TEMPLATE!r}: "
            "its answers would be worse without a warning. Use the version of product-vqa named in the adapter's card."
        )
    return precision
