"""The patterns of .gitignore and .gitattributes, matched within a limited number of steps.

A path is matched name by name, so that many `**` in a pattern cost no more than one. Inside a name, each piece of a
pattern is tried at its first match only (an atomic group); a later match could not help.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from local_hub.errors import HubError

PATTERNS_SIZE_MAX = 100_000  # characters of a .gitignore or .gitattributes
PART_LENGTH_MAX = 1000  # characters; a name has at most 255
# A step compares two characters, in 10 to 50 ns. 150 patterns for 256 files take 5 million steps.
STEPS_MAX = 40_000_000
STEPS_PER_PART = 10_000  # to compile it
STEPS_PER_COMPARISON = 30  # of a part and a name, and for each pair of their characters another one
STEPS_PER_START = 200  # to look for a group of names at a place in a path

_WILDCARD = re.compile(r"(\*+|\?|\[!?[\w-]+\])")


class PatternList:
    """The patterns of one file. The last one that matches decides; `!` at its start excludes the path again."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises HubError if the patterns are too long or too many."""
        if sum(map(len, patterns)) > PATTERNS_SIZE_MAX:
            raise HubError(400, f"more than {PATTERNS_SIZE_MAX} characters in a .gitignore or .gitattributes")
        self._patterns = [_Pattern(pattern) for pattern in reversed(patterns)]
        self._parts = set[str]().union(*(pattern.parts for pattern in self._patterns))
        self._matched_parts: dict[str, set[str]] = {}  # by name
        self._num_steps = 0
        self._count(STEPS_PER_PART * len(self._parts))

    def is_matched(self, path: str) -> bool:
        """Whether `path` or a folder above it matches. Raises HubError after too many steps for one list."""
        names = path.split("/")
        matched_parts = [self._match_parts(name) for name in names]
        found = set[str]().union(*matched_parts)
        for pattern in self._patterns:
            if pattern.parts <= found and self._is_match(pattern, matched_parts):
                return not pattern.is_negated
        return False

    def _match_parts(self, name: str) -> set[str]:
        """The parts of all patterns that match `name`."""
        if name not in self._matched_parts:
            self._count(sum(STEPS_PER_COMPARISON + len(part) * len(name) for part in self._parts))
            self._matched_parts[name] = {part for part in self._parts if _is_name_matched(part, name)}
        return self._matched_parts[name]

    def _is_match(self, pattern: "_Pattern", path: list[set[str]]) -> bool:
        """Whether `pattern` matches a path, which is given by the parts that match each of its names.

        Each group is taken at the first place where it matches: a later one would leave fewer names for the others.
        """
        if pattern.is_for_folders:
            path = path[:-1]
        end = 0
        for index, group in enumerate(pattern.groups):
            last_start = 0 if index == 0 and pattern.is_anchored else len(path) - len(group)
            for start in range(end, last_start + 1):
                self._count(STEPS_PER_START * (1 + len(group)))
                names = path[start : start + len(group)]
                if len(names) == len(group) and all(part in name for part, name in zip(group, names, strict=True)):
                    end = start + len(group)
                    break
            else:
                return False
        return end + pattern.min_names_below <= len(path)

    def _count(self, steps: int) -> None:
        self._num_steps += steps
        if self._num_steps > STEPS_MAX:
            raise HubError(400, "the patterns of the .gitignore or .gitattributes are too complex for these paths")


class _Pattern:
    """A pattern as the groups of names between its `**`. Each group matches as many names of the path, in a row."""

    def __init__(self, pattern: str) -> None:
        self.is_negated = pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        self.is_for_folders = pattern.endswith("/")
        # A pattern without a slash matches at every depth.
        parts = pattern.strip("/").split("/")
        self.is_anchored = "/" in pattern.rstrip("/") and parts[0] != "**"
        # `a/**` matches what is below a, not a
        self.min_names_below = int(parts[-1] == "**" and (len(parts) > 1 or self.is_for_folders))
        self.groups: list[list[str]] = [[]]
        for part in parts:
            if part == "**":
                self.groups.append([])
            else:
                self.groups[-1].append(part)
        first = [self.groups[0]] if self.is_anchored else []
        others = self.groups[len(first) :]
        self.groups = first + [group for group in others if group]
        self.parts = frozenset(part for group in self.groups for part in group)


def _is_name_matched(part: str, name: str) -> bool:
    return len(part) <= PART_LENGTH_MAX and _compile(part).fullmatch(name) is not None


@lru_cache(maxsize=10_000)
def _compile(part: str) -> re.Pattern[str]:
    """The expression for one name. Its atomic groups keep the number of steps below its length times the name's."""
    pieces = [""]  # between the stars
    for piece in _WILDCARD.split(part):
        if piece.startswith("*"):
            pieces.append("")
        elif piece == "?":
            pieces[-1] += "."
        elif _WILDCARD.fullmatch(piece):
            pieces[-1] += _format_set(piece)
        else:
            pieces[-1] += re.escape(piece)
    first, *others = pieces
    if not others:
        return re.compile(first, re.S)
    middle = "".join(f"(?>.*?{piece})" for piece in others[:-1] if piece)
    return re.compile(f"{first}{middle}(?>.*{others[-1]}\\Z)" if others[-1] else f"{first}{middle}.*", re.S)


def _format_set(piece: str) -> str:
    """A set of characters, or with `!` its complement."""
    expression = piece.replace("[!", "[^")
    try:
        re.compile(expression)
    except re.error:  # such as [z-a]: it matches itself
        return re.escape(piece)
    return expression
