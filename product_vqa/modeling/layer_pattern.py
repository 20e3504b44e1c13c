"""Check a regular expression that chooses layers: peft matches it against every layer's name, without a time limit."""

import re
from re import _constants, _parser  # type: ignore[attr-defined]  # they have no public name
from typing import Any

from product_vqa.errors import InputError

MAX_LENGTH = 1000
MAX_WAYS = 10**7  # to match one name, of which nearly all are ruled out at their first characters
_NAME_LENGTH = 100  # of a layer
_REPEATS = {_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT}
_SINGLE = {_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY}


def check_layer_pattern(pattern: str) -> None:
    """Raise InputError unless `pattern` is a regular expression that is matched in a short time.

    Only a single character or a character class may be repeated: `(([a-z])+)+!` takes longer than the universe exists.
    """
    try:
        if len(pattern) > MAX_LENGTH:
            raise InputError(f"a pattern of {len(pattern)} characters, more than {MAX_LENGTH}")
        parsed = _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"{pattern[:100]!r} is not a regular expression: {error}") from error
    if not pattern:
        raise InputError("an empty pattern matches no layer")
    if (ways := _count_ways(parsed)) > MAX_WAYS:
        raise InputError(f"{pattern[:100]!r} has {ways:.0e} ways to match a name: use fewer repeats and alternatives")


def _count_ways(tokens: Any) -> float:
    """In how many ways a match could go, of which the matcher may try all. Raises InputError for a repeated group."""
    ways = 1.0
    for kind, value in tokens:
        if kind in _REPEATS:
            least, most, body = value
            if most > 1 and (len(body) != 1 or body[0][0] not in _SINGLE):
                raise InputError("only a character or a character class may be repeated, not a group")
            ways *= min(int(most) - least + 1, _NAME_LENGTH) if most > 1 else 1 + _count_ways(body)
        elif kind is _constants.BRANCH:
            ways *= sum(_count_ways(alternative) for alternative in value[1])
        elif kind in (_constants.GROUPREF, _constants.GROUPREF_EXISTS):
            raise InputError("references to groups are not supported")
        else:
            for part in _parts(value):
                ways *= _count_ways(part)
    return ways


def _parts(value: Any) -> list[Any]:
    """The patterns within a group, a lookahead and the like."""
    values = value if isinstance(value, tuple) else (value,)
    return [one for one in values if isinstance(one, _parser.SubPattern)]
