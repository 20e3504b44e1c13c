"""Download a LoRA adapter, check it and find its base model. Neither torch nor peft is imported for that."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from product_vqa.errors import InputError, argument
from product_vqa.hub import Location, download, find_file, locate
from product_vqa.modeling.adapter_config import check_config, check_weights
from product_vqa.modeling.model_files import (
    PROCESSOR_FILES,
    PROCESSOR_JSON,
    Tensor,
    check_files,
    read_header,
    read_json_file,
)
from product_vqa.provenance import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CALIBRATION_FILE, adapter_sha256
from product_vqa.schemas import schema_of
from product_vqa.task.attributes import Schema
from product_vqa.task.prompt import TASK_FILE, BaseSettings, format_prompt, load_task
from product_vqa.task.schema_file import SCHEMA_FILE

logger = logging.getLogger(__name__)

_ADAPTER_FILES = [ADAPTER_CONFIG, ADAPTER_WEIGHTS, TASK_FILE, SCHEMA_FILE, CALIBRATION_FILE, *PROCESSOR_FILES]
_REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Adapter:
    """A downloaded adapter, and what its files say about its base model and training."""

    location: Location
    folder: Path
    sha256: str
    base_model_name: str | None
    base_model_revision: str | None
    base_settings: BaseSettings | None  # None if training did not record them
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    schema: Schema  # of the questions that it was trained on; the challenge's if it has no schema.yaml

    @property
    def processor(self) -> Location | None:
        """Where the adapter's own processor is; None if it has none."""
        has_processor = (self.folder / PROCESSOR_JSON[0]).is_file()
        return Location(str(self.folder)) if has_processor else None

    def locate_base_model(self) -> Location:
        """Locate the base model that the adapter's config names. Raises InputError if there is none."""
        if not self.base_model_name:
            raise InputError(f"{self.location}: its {ADAPTER_CONFIG} names no base model; pass `base_model`")
        is_published = self.location.folder is None
        if is_published and (".." in self.base_model_name or not _REPO_ID.fullmatch(self.base_model_name)):
            raise InputError(
                f"{self.location}: `base_model_name_or_path` in its {ADAPTER_CONFIG} is {self.base_model_name!r}; "
                "expected the name of a repo. Pass `base_model` to use another base model"
            )
        with argument("base_model"):
            try:
                return locate(self.base_model_name, revision=self.base_model_revision)
            except InputError as error:
                raise InputError(
                    f"{error} (the base model that {self.location} names; pass `base_model` to load it from elsewhere)"
                ) from error


def download_adapter(location: Location) -> Adapter:
    """Download an adapter and read its config.

    Raises InputError if it is not a LoRA adapter, a file is damaged, its config asks for what is not supported, its
    schema.yaml is malformed, or it was trained with another prompt template.
    """
    folder = download(location, patterns=_ADAPTER_FILES)
    check_files(location, folder)
    name = str(location)
    weights = find_file(location, folder, ADAPTER_WEIGHTS)
    config = read_json_file(location, folder, ADAPTER_CONFIG, damaged="damaged or not from peft")
    if weights is None or config is None:
        missing = ADAPTER_CONFIG if config is None else ADAPTER_WEIGHTS
        raise InputError(f"{location} has no {missing}: is it a LoRA adapter? (Pickle files are not loaded.)")
    if "peft_type" not in config:
        raise InputError(f"{location}: its {ADAPTER_CONFIG} is damaged or not from peft; download it again")
    check_config(config, name=name)
    tensors = read_header(location, weights, ADAPTER_WEIGHTS)
    check_weights(config, tensors, name=name)
    schema = schema_of(location, folder)
    task_file = find_file(location, folder, TASK_FILE)
    if task_file is None:
        logger.warning(
            "%s has no %s, so it was not trained with this project. If it was trained with other prompts than %r, its "
            "answers will be worse",
            location,
            TASK_FILE,
            format_prompt(schema.names[0], schema=schema),
        )
    return Adapter(
        location,
        folder,
        adapter_sha256(folder),
        base_model_name=_text(config, "base_model_name_or_path", name=name),
        base_model_revision=_text(config, "revision", name=name),
        base_settings=load_task(task_file, adapter=name) if task_file else None,
        config=config,
        tensors=tensors,
        schema=schema,
    )


def locate_base_model(adapter: Adapter | None, *, base_model: str | Location | None) -> Location:
    """Find the base model of that name, or else the one that the adapter's config names."""
    if isinstance(base_model, Location):
        return base_model
    if base_model is not None:
        with argument("base_model"):
            return locate(base_model)
    if adapter is None:
        raise InputError("pass `adapter` or `base_model`: user/name, or a folder")
    with argument("adapter"):
        return adapter.locate_base_model()


def _text(config: dict[str, Any], field: str, *, name: str) -> str | None:
    value = config.get(field)
    if value is not None and not (isinstance(value, str) and len(value) <= 1000 and value.isprintable()):
        raise InputError(
            f"{name}: `{field}` in its {ADAPTER_CONFIG} is {str(value)[:80]!r}; expected the name of a repo"
        )
    return value
