"""Read JSON and YAML that strangers wrote: within limits, and without anything that only looks like data.

A document is small, not deeply nested, holds no recursive alias, no more nodes than its limits allow once its aliases
are expanded (302 bytes of YAML can stand for a billion), no number that takes minutes to convert, no NaN, and no text
that cannot be encoded as UTF-8. What is left converts to JSON and prints.
"""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from product_vqa.paths import open_file

MAX_BYTES = 8 * 1024**2  # the largest config.json, index and card of the models on the Hub take less than 1 MB
MAX_DEPTH = 100
MAX_NODES = 200_000  # of YAML, with aliases expanded; takes about 2 s to parse
MAX_KEY_DIGITS = 18  # of a number that is a key
MAX_DIGITS = 1000  # Python converts decimal numbers in quadratic time, and refuses those of more than 4,300 digits
_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n?^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


class DocumentError(ValueError):
    """Raised for a document that is malformed or exceeds a limit. The message is one line, without the file's name."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A SafeLoader that refuses long numbers as keys.

    All multiples of 2**61 - 1 have the same hash in Python: a mapping with many of them takes quadratic time.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            self.flatten_mapping(node)  # now, to see the keys of merged mappings too
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:int" and len(key.value) > MAX_KEY_DIGITS:
                    raise DocumentError(f"a number of {len(key.value)} digits as a key, more than {MAX_KEY_DIGITS}")
        return super().construct_mapping(node, deep=deep)


def read_bytes(file: str | Path, *, max_bytes: int) -> bytes:
    """Read a regular file.

    Raises OSError if it cannot be read, is larger than `max_bytes`, or is not a regular file: a pipe would block, and
    a device never ends.
    """
    with open_file(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes:
            raise OSError(0, f"{size} bytes, more than {max_bytes}", str(file))
        return stream.read(max_bytes)


def read_json(file: str | Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON file. Raises DocumentError, or OSError as `read_bytes` does."""
    return parse_json(read_bytes(file, max_bytes=max_bytes), max_bytes=max_bytes)


def read_yaml(file: str | Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a YAML file. Raises DocumentError, or OSError as `read_bytes` does."""
    return parse_yaml(read_bytes(file, max_bytes=max_bytes), max_bytes=max_bytes)


def parse_json(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """Parse JSON (RFC 8259, so without NaN and Infinity). Raises DocumentError."""
    text = _decode(text, max_bytes=max_bytes)
    try:
        content = json.loads(text, parse_constant=_refuse_constant, parse_int=_parse_int)
    except RecursionError as error:
        raise DocumentError(f"nested deeper than {MAX_DEPTH} levels") from error
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(f"not JSON: {error}") from error
    _check(content)
    return content


def parse_yaml(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """Parse one YAML document with the types of JSON and dates. Raises DocumentError."""
    text = _decode(text, max_bytes=max_bytes)
    try:
        _check_events(text)
        content = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except DocumentError:
        raise
    except yaml.YAMLError as error:
        raise DocumentError(f"not YAML: {_one_line(error)}") from error
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        # The 13th month, a key that is not hashable, and the like.
        raise DocumentError(f"not YAML: {_one_line(error)}") from error
    _check(content)
    return content


def repeated_keys(text: str | bytes) -> list[str]:
    """The keys of a YAML mapping that occur more than once. Call `parse_yaml`, which checks the text, first."""
    root = yaml.compose(_decode(text, max_bytes=MAX_BYTES), Loader=_Loader)
    keys = [str(key.value) for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    return [key for key, count in Counter(keys).items() if count > 1]


def parse_front_matter(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Parse the metadata of a card: the YAML between two lines `---` at its top; {} without one.

    Raises DocumentError, also if the metadata is not a mapping.
    """
    match = _FRONT_MATTER.match(_decode(text, max_bytes=max_bytes))
    content = parse_yaml(match[1], max_bytes=max_bytes) if match else None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise DocumentError(f"not a mapping, but {type(content).__name__}")
    return content


def _decode(text: str | bytes, *, max_bytes: int) -> str:
    if len(text) > max_bytes:
        raise DocumentError(f"{len(text)} bytes, more than {max_bytes}")
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8: {error}") from error


def _refuse_constant(name: str) -> None:
    raise DocumentError(f"{name} is not a JSON value")


def _parse_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise DocumentError(f"a number of {len(digits)} digits, more than {MAX_DIGITS}")
    return int(digits)


def _check_events(text: str) -> None:
    """Check the size of a YAML document before anything is built from it, and its scalars before their conversion."""
    sizes: dict[str, int] = {}  # anchor -> number of nodes, with aliases expanded
    opened: list[tuple[str | None, int]] = []  # the anchor of each open collection, and the number of nodes before it
    num_nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:  # unknown, or the collection that is still open
                raise DocumentError(f"alias *{str(event.anchor)[:50]} is recursive or names no anchor")
            num_nodes += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            num_nodes += 1
            if event.anchor:
                sizes[event.anchor] = 1
            if len(event.value) > MAX_DIGITS and (event.implicit[0] or event.tag) and _may_be_number(event.value):
                raise DocumentError(f"a number of {len(event.value)} characters, more than {MAX_DIGITS}")
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, num_nodes))
            num_nodes += 1
            if len(opened) > MAX_DEPTH:
                raise DocumentError(f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                sizes[anchor] = num_nodes - before
        if num_nodes > MAX_NODES:
            raise DocumentError(f"more than {MAX_NODES} values, with aliases expanded")


def _may_be_number(text: str) -> bool:
    return text[0] in "+-.0123456789" and not any(char.isspace() for char in text)


def _check(content: Any) -> None:
    """Refuse nesting that `json.dumps` could not write, NaN, and text that is not Unicode."""
    level = [content]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                for key in item:
                    if not isinstance(key, str | int | float | None):
                        raise DocumentError(f"a key that JSON does not have: {type(key).__name__}")
                below += item.keys()
                below += item.values()
            elif isinstance(item, list | tuple | set):
                below += item
            elif isinstance(item, str):
                _check_text(item)
            elif isinstance(item, float) and (item != item or item in (float("inf"), float("-inf"))):
                raise DocumentError(f"{item} is not a JSON value")
        if not below:
            return
        level = below
    raise DocumentError(f"nested deeper than {MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DocumentError("holds a lone surrogate, which is not Unicode text") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
