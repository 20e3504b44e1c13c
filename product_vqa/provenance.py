"""Identify an adapter, a base model or a dataset by its content: the content of a folder may change, its name not."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location, find_file

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
CALIBRATION_FILE = "calibration.json"  # next to the adapter
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer*", "*token*.json")
BASE_MODEL_FILES = ("*.safetensors", "*.json", "*.model")  # weights, configuration, processor
# Not the card, which may be edited, nor the texts of the images, which may be read later, or again.
DATASET_FILES = ("*.parquet", "schema.yaml", "!ocr/*")
TEXT_FILES = ("ocr/*.parquet",)


def adapter_sha256(folder: Path) -> str:
    """Hash an adapter's weights and configuration. Takes about 30 ms for 40 MB."""
    return _sha256([ADAPTER_CONFIG, ADAPTER_WEIGHTS], folder)


def processor_sha256(folder: Path) -> str:
    """Hash the processor and tokenizer stored with an adapter: with others, the same weights answer differently."""
    files = {file.name for pattern in PROCESSOR_FILES for file in folder.glob(pattern) if file.is_file()}
    return _sha256(sorted(files), folder)


def content_sha256(location: Location, patterns: Sequence[str]) -> str | None:
    """Hash the names and contents of a folder's files that match the patterns, at any depth.

    A pattern that begins with `!` excludes the files whose path in the folder it matches. Hidden files and folders do
    not count. Takes about a second per GB. None for a repo, which its commit identifies. Raises InputError for a link
    out of the folder, and for a file that cannot be read.
    """
    folder = location.folder
    if folder is None:
        return None
    excluded = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]
    files = {
        name
        for pattern in patterns
        if not pattern.startswith("!")
        for file in folder.rglob(pattern)
        if file.is_file() and not (name := file.relative_to(folder).as_posix()).startswith(".") and "/." not in name
    }
    files = {name for name in files if not any(fnmatchcase(name, pattern) for pattern in excluded)}
    for name in files:
        find_file(location, folder, name)
    return _sha256(sorted(files), folder)


def check_content(location: Location, patterns: Sequence[str], *, expected: str | None) -> str | None:
    """Return `content_sha256`. Raises InputError if it is the hash of a folder and not the expected one."""
    found = content_sha256(location, patterns)
    if expected is not None and found not in (None, expected):
        raise InputError(
            f"{expected}: the content of {location} is now {found}; use the folder that the run started with, or drop "
            "this argument to start a new run"
        )
    return found


def _sha256(names: Iterable[str], folder: Path) -> str:
    total = hashlib.sha256()
    for name in names:
        try:
            with (folder / name).open("rb") as stream:
                total.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        except (OSError, UnicodeEncodeError) as error:
            raise InputError(f"{folder}: its file {name!r} cannot be read: {first_line(error)}") from error
    return total.hexdigest()


def list_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what differs between two descriptions of what something was made from; "" if nothing does.

    `batch_size: 32 -> 64; split: test -> validation`
    """
    keys = sorted(before.keys() | now.keys())
    return "; ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key))
