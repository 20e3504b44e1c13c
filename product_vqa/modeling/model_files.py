"""Read the files of a base model or an adapter that a stranger made, within limits, and only if they are sound.

Only JSON, safetensors and tokenizer files are read. Pickle files and Python files never are.
"""

import glob
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from product_vqa.documents import DocumentError, parse_json, read_bytes, read_json
from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location, download, find_file, list_files

BASE_CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
PROCESSOR_JSON = (
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
PROCESSOR_FILES = [*PROCESSOR_JSON, TOKENIZER, "tokenizer.model"]  # what `download` fetches of a processor
MAX_TOKENIZER_BYTES = 128 * 1024**2  # Gemma's tokenizer.json has 34 MB
MAX_HEADER_BYTES = 8 * 1024**2  # of safetensors; PaliGemma 3B's has 90 kB
_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_SIMPLE_REGEX = re.compile(r"[^()*+?{}|]{0,50}[*+?]?")  # without groups and repeats, it takes linear time


@dataclass(frozen=True)
class Tensor:
    """What the header of a safetensors file states about a tensor, checked against the file's size."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def wrong_field(name: str, file: str, field: str, value: object, expected: str) -> InputError:
    """Return the error for a field in a file of the model `name`."""
    return InputError(f"{name}: `{field}` in its {file} is {str(value)[:80]!r}; expected {expected}")


def is_integer(value: object, low: int, high: int) -> bool:
    """Return whether a value of a JSON file is an integer from `low` to `high`; true and false are none."""
    return type(value) is int and low <= value <= high


def is_number(value: object, low: float, high: float) -> bool:
    """Return whether a value of a JSON file is a number from `low` to `high`; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def read_json_file(location: Location, folder: Path, name: str, *, damaged: str = "damaged") -> dict[str, Any] | None:
    """Read a JSON object; None if there is no such file.

    Raises InputError, which names the file, and `damaged` as what is wrong with it.
    """
    file = find_file(location, folder, name)
    if file is None:
        return None
    try:
        content = read_json(file)
    except (DocumentError, OSError) as error:
        raise InputError(f"{location}: its {name} is {damaged} ({first_line(error)}); download it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{location}: its {name} is {damaged} ({type(content).__name__} instead of an object)")
    return content


def check_files(location: Location, folder: Path) -> None:
    """Raise InputError if the folder holds a pipe or a device, which transformers would wait for, or read forever."""
    for parent in (folder, folder / "additional_chat_templates"):
        try:
            entries = sorted(os.scandir(parent), key=lambda entry: entry.name) if parent.is_dir() else []
            for entry in entries:
                if not (entry.is_dir() or entry.is_symlink() or stat.S_ISREG(entry.stat().st_mode)):
                    raise InputError(f"{location}: its file {entry.name!r} is not a regular file")
                if entry.name.endswith((".json", ".jinja", ".model", ".safetensors", ".txt")):
                    file = find_file(location, parent if parent == folder else folder, _relative(entry, folder))
                    if file is not None and not entry.name.endswith(".safetensors"):
                        _check_size(location, file, entry.name)
        except OSError as error:
            raise InputError(f"{location} cannot be read: {first_line(error)}") from error


def _relative(entry: "os.DirEntry[str]", folder: Path) -> str:
    return Path(entry.path).relative_to(folder).as_posix()


def _check_size(location: Location, file: Path, name: str) -> None:
    if (size := file.stat().st_size) > MAX_TOKENIZER_BYTES:
        raise InputError(f"{location}: its {name} has {size} bytes, more than {MAX_TOKENIZER_BYTES}")


def check_tokenizer_file(location: Location, folder: Path) -> None:
    """Raise InputError if a regular expression in tokenizer.json may take more than linear time, or it is damaged."""
    file = find_file(location, folder, TOKENIZER)
    if file is None:
        return
    try:
        data = read_bytes(file, max_bytes=MAX_TOKENIZER_BYTES)
        if b'"Regex"' not in data and b"\\u00" not in data:  # a key may be escaped; parsing takes half a second
            return
        content = json.loads(data)
        patterns = _find_patterns(
            {key: value for key, value in content.items() if key not in ("model", "added_tokens")}
        )
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{location}: its {TOKENIZER} is damaged ({first_line(error)}); download it again") from error
    for pattern in patterns:
        if not isinstance(pattern, str) or not _SIMPLE_REGEX.fullmatch(pattern):
            raise InputError(
                f"{location}: its {TOKENIZER} splits text by the regular expression {str(pattern)[:100]!r}, which is "
                "not supported: it could take forever"
            )


def _find_patterns(content: Any) -> list[Any]:
    found = []
    queue = [content]
    while queue:
        item = queue.pop()
        if isinstance(item, dict):
            found += [value for key, value in item.items() if key == "Regex"]
            queue += item.values()
        elif isinstance(item, list):
            queue += item
    return found


def read_header(
    location: Location, file: Path, name: str, *, dtypes: Mapping[str, int] = _FLOATS
) -> dict[str, Tensor]:
    """Read the header of a safetensors file, but not its tensors. Raises InputError for one that is damaged.

    The tensors must be of `dtypes` (name -> bytes of a number), by default floating-point, have at least one number
    each, and fill the rest of the file without a gap.
    """

    def damaged(reason: str) -> InputError:
        return InputError(
            f"{location}: its {name} is damaged ({reason}): download it again (with git lfs pull, if it is the "
            "pointer of a Git LFS file)"
        )

    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > size - 8:
                raise damaged(f"{size} bytes, but its header states more")
            if length > MAX_HEADER_BYTES:
                raise damaged(f"its header has {length} bytes, more than {MAX_HEADER_BYTES}")
            header = parse_json(stream.read(length))
    except (DocumentError, OSError) as error:
        raise damaged(f"its header is {first_line(error)}") from error
    if not isinstance(header, dict):
        raise damaged("its header is not an object")
    tensors: dict[str, Tensor] = {}
    ends = []
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        if not key.isprintable() or len(key) > 500:
            raise damaged(f"the name of a tensor is {key[:100]!r}")
        if not isinstance(entry, dict) or not _is_valid(entry):
            raise damaged(f"tensor {key}: {str(entry)[:200]}")
        if entry["dtype"] not in dtypes:
            raise InputError(
                f"{location}: its {name} has a tensor {key} of type {entry['dtype'][:20]!r}; expected one of "
                f"{', '.join(dtypes)}"
            )
        tensors[key] = Tensor(entry["dtype"], tuple(entry["shape"]))
        start, end = entry["data_offsets"]
        if end - start != tensors[key].size * dtypes[entry["dtype"]]:
            raise damaged(f"tensor {key} of shape {entry['shape']} has {end - start} bytes")
        ends.append((start, end))
    position = 0
    for start, end in sorted(ends):
        if start != position:
            raise damaged("its tensors overlap or have gaps")
        position = end
    if position != size - 8 - length:
        raise damaged(f"its tensors take {position} bytes, but {size - 8 - length} follow the header")
    return tensors


def _is_valid(entry: dict[str, Any]) -> bool:
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    return (
        isinstance(entry.get("dtype"), str)
        and isinstance(shape, list)
        and len(shape) <= 8
        and all(type(one) is int and 0 < one < 2**40 for one in shape)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(one) is int and 0 <= one < 2**60 for one in offsets)
    )


def find_weights(location: Location, folder: Path) -> list[str]:
    """Return the names of a base model's safetensors files: one, or the shards that its index lists."""
    if find_file(location, folder, WEIGHTS) is not None:
        return [WEIGHTS]
    index = read_json_file(location, folder, WEIGHTS_INDEX)
    if index is None:
        raise InputError(f"{location} has neither {WEIGHTS} nor {WEIGHTS_INDEX}. (Pickle files are not loaded.)")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{location}: its {WEIGHTS_INDEX} is damaged (weight_map); download it again")
    for name in weight_map.values():
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,200}\.safetensors", name):
            raise InputError(
                f"{location}: its {WEIGHTS_INDEX} names the file {str(name)[:100]!r}, which is not allowed"
            )
    return sorted(set(weight_map.values()))


def weight_patterns(location: Location) -> list[str]:
    """Return the patterns of a base model's config and weights in its repo. Only the index of the weights is read."""
    if location.folder is not None:
        return []  # nothing is downloaded
    weights = [WEIGHTS]
    if WEIGHTS not in list_files(location):
        # The second file is in every repo: a pattern without a match would cause a warning.
        weights = find_weights(location, download(location, patterns=[WEIGHTS_INDEX, ".gitattributes"]))
    return [BASE_CONFIG, WEIGHTS_INDEX, *map(glob.escape, weights)]
