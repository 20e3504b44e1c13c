"""The regular expressions of a schema: bounded, and matched in linear time.

They have characters, classes such as `[A-Z0-9-]`, groups, `|`, `?`, `{3}` and `{1,4}`. There is no `*`, `+`, `.`, `^`,
`$`, backreference or lookaround: an answer has a greatest length, and which characters it may have is written out. A
text matches as a whole. What is allowed means the same to Python's `re` and to outlines-core.
"""

import random
import re
from dataclasses import dataclass, field
from functools import cached_property

MAX_PATTERN_CHARS = 500
MAX_ANSWER_CHARS = 64  # of a text that matches
MAX_STATES = 4000  # of the automaton; `[A-Z0-9-]{3,40}` has 42
_MAX_CLASS = 200  # characters
_MAX_REPEATS = MAX_ANSWER_CHARS
_SPECIAL = set("\\^$.|?*+()[]{}")
_UNSUPPORTED = {
    "*": "`*` has no greatest length; write how often at most, such as {0,10}",
    "+": "`+` has no greatest length; write how often at most, such as {1,10}",
    ".": "`.` matches any character; write those that occur, such as [A-Z0-9], or `\\.` for a point",
    "^": "`^` is not needed, because a pattern matches the whole answer; write `\\^` for the character",
    "$": "`$` is not needed, because a pattern matches the whole answer; write `\\$` for the character",
    "]": "`]` closes no class; write `\\]` for the character",
    "}": "`}` closes no repetition; write `\\}` for the character",
    "{": "`{` repeats nothing; write `\\{` for the character",
    "?": "`?` repeats nothing; write `\\?` for the character",
}


class PatternError(ValueError):
    """Raised for a pattern that is malformed or exceeds a limit; the message has the remedy."""


@dataclass
class _Automaton:
    """A nondeterministic automaton: `steps[state]` are (characters, next state), `jumps[state]` need no character."""

    steps: list[list[tuple[frozenset[str], int]]] = field(default_factory=list)
    jumps: list[list[int]] = field(default_factory=list)

    def add_state(self) -> int:
        self.steps.append([])
        self.jumps.append([])
        if len(self.steps) > 20 * MAX_STATES:
            raise PatternError(f"it needs more than {20 * MAX_STATES} states; make its repetitions shorter")
        return len(self.steps) - 1

    def reach(self, states: set[int]) -> frozenset[int]:
        """The states that can be reached from these without a character."""
        found, waiting = set(states), list(states)
        while waiting:
            for state in self.jumps[waiting.pop()]:
                if state not in found:
                    found.add(state)
                    waiting.append(state)
        return frozenset(found)


# What a part of a pattern is: characters, a sequence, alternatives, or a repetition of a part.
@dataclass(frozen=True)
class _Characters:
    allowed: frozenset[str]


@dataclass(frozen=True)
class _Sequence:
    parts: "tuple[_Part, ...]"


@dataclass(frozen=True)
class _Choice:
    parts: "tuple[_Part, ...]"


@dataclass(frozen=True)
class _Repeat:
    part: "_Part"
    least: int
    most: int


_Part = _Characters | _Sequence | _Choice | _Repeat


@dataclass(frozen=True)
class Pattern:
    """A checked pattern. Raises PatternError for one that is not allowed."""

    text: str

    def __post_init__(self) -> None:
        if not self.text:
            raise PatternError("it is empty; write what an answer looks like, such as [A-Z]{2}[0-9]{4}")
        if len(self.text) > MAX_PATTERN_CHARS:
            raise PatternError(f"it has {len(self.text)} characters, more than {MAX_PATTERN_CHARS}; shorten it")
        longest = self.max_chars  # before any automaton is built
        if longest > MAX_ANSWER_CHARS:
            raise PatternError(
                f"it matches answers of {longest} characters, more than {MAX_ANSWER_CHARS}; make its repetitions "
                "shorter"
            )
        if _least(self._part) == 0:
            raise PatternError("it matches an empty answer; `not_shown: true` allows that one")
        self._check_states()

    @cached_property
    def _part(self) -> _Part:
        return _Parser(self.text).parse()

    @cached_property
    def max_chars(self) -> int:
        """The length of the longest text that matches."""
        return _most(self._part)

    @cached_property
    def characters(self) -> frozenset[str]:
        """All characters that can occur."""
        return frozenset(char for steps in self._automaton.steps for allowed, _ in steps for char in allowed)

    @cached_property
    def _automaton(self) -> _Automaton:
        automaton = _Automaton()
        start, end = automaton.add_state(), automaton.add_state()  # 0 and 1
        _connect(automaton, self._part, start, end)
        return automaton

    def matches(self, text: str) -> bool:
        """Whether the whole text matches. Takes time linear in its length."""
        automaton = self._automaton
        states = automaton.reach({0})
        if len(text) > self.max_chars:
            return False
        for char in text:
            following = {after for state in states for allowed, after in automaton.steps[state] if char in allowed}
            if not following:
                return False
            states = automaton.reach(following)
        return 1 in states

    def draw(self, rng: random.Random) -> str:
        """A random text that matches; the same generator gives the same text."""
        return _draw(self._part, rng)

    def _check_states(self) -> None:
        """Count the states of the deterministic automaton, which constrains the answers."""
        automaton = self._automaton
        start = automaton.reach({0})
        seen, waiting = {start}, [start]
        while waiting:
            states = waiting.pop()
            by_char: dict[str, set[int]] = {}
            for state in states:
                for allowed, after in automaton.steps[state]:
                    for char in allowed:
                        by_char.setdefault(char, set()).add(after)
            for key in {frozenset(after) for after in by_char.values()}:
                following = automaton.reach(set(key))
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
                    if len(seen) > MAX_STATES:
                        raise PatternError(
                            f"it needs more than {MAX_STATES} states, because one character can belong to several "
                            "of its parts; make its repetitions shorter or its parts more different"
                        )


def _most(part: _Part) -> int:
    match part:
        case _Characters():
            return 1
        case _Sequence(parts):
            return sum(map(_most, parts))
        case _Choice(parts):
            return max(map(_most, parts))
        case _Repeat(repeated, _, most):
            return most * _most(repeated)


def _least(part: _Part) -> int:
    match part:
        case _Characters():
            return 1
        case _Sequence(parts):
            return sum(map(_least, parts))
        case _Choice(parts):
            return min(map(_least, parts))
        case _Repeat(repeated, least, _):
            return least * _least(repeated)


def _draw(part: _Part, rng: random.Random) -> str:
    match part:
        case _Characters(allowed):
            return rng.choice(sorted(allowed))
        case _Sequence(parts):
            return "".join(_draw(following, rng) for following in parts)
        case _Choice(parts):
            return _draw(rng.choice(parts), rng)
        case _Repeat(repeated, least, most):
            return "".join(_draw(repeated, rng) for _ in range(rng.randint(least, most)))


def _connect(automaton: _Automaton, part: _Part, start: int, end: int) -> None:
    """Add paths from `start` to `end` for what the part matches."""
    match part:
        case _Characters(allowed):
            automaton.steps[start].append((allowed, end))
        case _Sequence(parts):
            for following in parts:
                middle = automaton.add_state()
                _connect(automaton, following, start, middle)
                start = middle
            automaton.jumps[start].append(end)
        case _Choice(parts):
            for alternative in parts:
                _connect(automaton, alternative, start, end)
        case _Repeat(repeated, least, most):
            for number in range(most):
                if number >= least:
                    automaton.jumps[start].append(end)
                middle = automaton.add_state()
                _connect(automaton, repeated, start, middle)
                start = middle
            automaton.jumps[start].append(end)


class _Parser:
    """Reads a pattern from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0

    def parse(self) -> _Part:
        part = self._choice()
        if self.position < len(self.text):
            raise PatternError("`)` closes no group; write `\\)` for the character")
        return part

    def _peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def _choice(self) -> _Part:
        alternatives = [self._sequence()]
        while self._peek() == "|":
            self.position += 1
            alternatives.append(self._sequence())
        return alternatives[0] if len(alternatives) == 1 else _Choice(tuple(alternatives))

    def _sequence(self) -> _Part:
        parts: list[_Part] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repetition(self._atom()))
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _repetition(self, part: _Part) -> _Part:
        if self._peek() == "?":
            self.position += 1
            part = _Repeat(part, 0, 1)
        elif found := re.compile(r"\{([0-9]{1,3})(?:,([0-9]{1,3}))?\}").match(self.text, self.position):
            least, most = int(found[1]), int(found[2] or found[1])
            if not least <= most or not 1 <= most <= _MAX_REPEATS:
                raise PatternError(f"{found[0]} repeats from {least} to {most} times; expected 0 to {_MAX_REPEATS}")
            self.position = found.end()
            part = _Repeat(part, least, most)
        elif self._peek() == "{":
            raise PatternError("`{` needs both bounds, such as {3} or {1,4}; write `\\{` for the character")
        if self._peek() in ("?", "{", "*", "+") and self._peek():
            if isinstance(part, _Repeat):
                raise PatternError("a repetition of a repetition; put the inner one into a group, or use one of them")
            raise PatternError(_UNSUPPORTED[self._peek()])
        return part

    def _atom(self) -> _Part:
        char = self._peek()
        if char == "(":
            return self._group()
        if char == "[":
            return _Characters(self._class())
        if char == "\\":
            return _Characters(frozenset(self._escape()))
        if char in _UNSUPPORTED:
            raise PatternError(_UNSUPPORTED[char])
        self.position += 1
        return _Characters(frozenset(_check_char(char)))

    def _group(self) -> _Part:
        self.position += 1
        if self._peek() == "?":
            if not self.text.startswith("?:", self.position):
                raise PatternError("a group that begins with `(?` other than `(?:` is not supported; write (...)")
            self.position += 2
        self.depth += 1
        if self.depth > 20:
            raise PatternError("its groups are nested deeper than 20 levels; simplify it")
        part = self._choice()
        self.depth -= 1
        if self._peek() != ")":
            raise PatternError("`(` is not closed; add `)`, or write `\\(` for the character")
        self.position += 1
        return part

    def _escape(self) -> str:
        char = self.text[self.position + 1 : self.position + 2]
        if char not in _SPECIAL and char not in ("-", "/"):
            shown = f"`\\{char}`" if char else "a `\\` at the end"
            raise PatternError(
                f"{shown} is not supported; write the characters out, such as [0-9] for \\d, [A-Za-z0-9_] for \\w"
            )
        self.position += 2
        return char

    def _class(self) -> frozenset[str]:
        self.position += 1
        if self._peek() == "^":
            raise PatternError("a class `[^...]` of all other characters is not supported; write those that occur")
        allowed: set[str] = set()
        while self._peek() != "]":
            first = self._class_char()
            if self._peek() == "-" and self.text[self.position + 1 : self.position + 2] not in ("]", ""):
                self.position += 1
                last = self._class_char()
                if ord(last) < ord(first):
                    raise PatternError(f"the range {first}-{last} is empty; exchange its ends")
                if ord(last) - ord(first) >= _MAX_CLASS:
                    raise PatternError(f"the range {first}-{last} has more than {_MAX_CLASS} characters; shorten it")
                allowed |= {_check_char(chr(code)) for code in range(ord(first), ord(last) + 1)}
            else:
                allowed.add(first)
        self.position += 1
        if not allowed:
            raise PatternError("the class `[]` has no characters; write those that occur")
        if len(allowed) > _MAX_CLASS:
            raise PatternError(f"a class of {len(allowed)} characters, more than {_MAX_CLASS}; shorten it")
        return frozenset(allowed)

    def _class_char(self) -> str:
        char = self._peek()
        if not char:
            raise PatternError("`[` is not closed; add `]`, or write `\\[` for the character")
        if char == "\\":
            return self._escape()
        is_operator = char in "&~" and self.text[self.position + 1 : self.position + 2] == char  # in Rust
        if char == "[" or is_operator:
            raise PatternError(f"`{char}` in a class; write `\\[` for the bracket, and other characters once")
        self.position += 1
        return _check_char(char)


def _check_char(char: str) -> str:
    if not char.isprintable():
        raise PatternError(f"the character {char!a} is not printable; remove it")
    return char
