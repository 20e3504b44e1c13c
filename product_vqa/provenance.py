"""What an adapter, a base model or a dataset is, by its content: a folder that is written anew keeps its name."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from product_vqa.errors import InputError
from product_vqa.hub import Location

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer*", "*token*.json")
BASE_FILES = ("*.safetensors", "*.json", "*.model")  # weights, configuration, processor
DATASET_FILES = ("*.parquet",)  # its card may be edited


def adapter_sha256(folder: Path) -> str:
    """Of an adapter's weights and configuration. 40 MB take some 30 ms."""
    return _sha256([ADAPTER_CONFIG, ADAPTER_WEIGHTS], folder)


def processor_sha256(folder: Path) -> str:
    """Of the processor and tokenizer that an adapter brings: with others, the same weights answer otherwise."""
    files = {file.name for pattern in PROCESSOR_FILES for file in folder.glob(pattern) if file.is_file()}
    return _sha256(sorted(files), folder)


def content_sha256(location: Location, patterns: Sequence[str]) -> str | None:
    """Of a folder's files of these patterns, at any depth; when they were written does not matter.

    None for a repo: its commit says the same. Hidden files and folders do not count. About a second for each GB.
    """
    folder = location.folder
    if folder is None:
        return None
    files = {
        name
        for pattern in patterns
        for file in folder.rglob(pattern)
        if file.is_file() and not (name := file.relative_to(folder).as_posix()).startswith(".") and "/." not in name
    }
    return _sha256(sorted(files), folder)


def check_content(location: Location, patterns: Sequence[str], *, expected: str | None) -> str | None:
    """`content_sha256`. Raises InputError if it is a folder's and not what is expected."""
    found = content_sha256(location, patterns)
    if expected is not None and found not in (None, expected):
        raise InputError(
            f"{expected}: {location} has other content ({found}); use the folder that the run began with, or drop "
            "this argument to begin a new run"
        )
    return found


def _sha256(names: Iterable[str], folder: Path) -> str:
    total = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as stream:
            total.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
