"""What a value of JSON or Parquet is as the text of a cell."""

import math
from decimal import Decimal
from typing import Any

from product_vqa.errors import InputError


def cell_text(value: Any, *, where: str) -> str:
    """A value as the text of a cell: null and NaN are empty, true is yes, and a list has commas."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}"
    if isinstance(value, list):
        return ", ".join(cell_text(item, where=where) for item in value)
    if isinstance(value, dict | bytes):
        what = "an object" if isinstance(value, dict) else "binary"
        raise InputError(f"{where} is {what}; write a text, a number, yes or no, or a list of texts")
    return str(value)
