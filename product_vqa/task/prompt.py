"""The prompt template, and the file that records it with an adapter, along with how its base model was loaded."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from product_vqa.documents import read_json
from product_vqa.errors import InputError, first_line
from product_vqa.task.attributes import Schema

PROMPT_TEMPLATE = "What is the {entity}?"  # of attributes without a question of their own in the schema
TASK_FILE = "product_vqa.json"
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class BaseSettings:
    """How the base model was loaded when the adapter was trained and evaluated."""

    dtype: str  # of its weights; if they are in 4 bits, of those that are not quantized
    load_in_4bit: bool  # NF4
    disable_logit_softcapping: bool = False  # PaliGemma 2's cap of its logits was removed

    def __post_init__(self) -> None:
        """Raises ValueError for a value of a wrong type."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {str(self.dtype)[:100]!r}")
        for name in ("load_in_4bit", "disable_logit_softcapping"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {str(getattr(self, name))[:100]!r}")


def format_prompt(entity_name: str, *, schema: Schema) -> str:
    """`item_weight` -> `What is the item weight?`. Raises InputError for an unknown entity."""
    return schema[entity_name].question


def save_task(folder: Path, settings: BaseSettings) -> None:
    """Write the prompt template, and how the base model was loaded in training, next to an adapter."""
    recorded = asdict(settings)
    if not settings.disable_logit_softcapping:  # earlier versions refuse a file with a field that they do not know
        del recorded["disable_logit_softcapping"]
    task = {"prompt_template": PROMPT_TEMPLATE, "base_model": recorded}
    (folder / TASK_FILE).write_text(json.dumps(task, indent=2) + "\n")


def load_task(file: Path, *, adapter: str) -> BaseSettings | None:
    """Read the base model's settings that `save_task` wrote; None if an earlier version wrote the file without them.

    Raises InputError if the adapter was trained with another prompt template, or the file is malformed.
    """
    try:
        task = read_json(file)
        template = task.get("prompt_template")
        recorded = task.get("base_model")
        settings = None if recorded is None else BaseSettings(**recorded)
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
    return settings
