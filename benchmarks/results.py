"""How benchmarks print: the result alone on stdout, as JSON or as text."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what libraries print inside the block, such as a trainer's losses, to stderr."""
    with redirect_stdout(sys.stderr):
        yield


def print_result(result: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())
        print(f"{name:<28}{value}")
