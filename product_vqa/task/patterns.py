"""The regular expressions of a schema: bounded, and matched in linear time.

They have characters, classes such as `[A-Z0-9-]`, groups, `|`, `?`, `{3}` and `{1,4}`. There is no `*`, `+`, `.`, `^`,
`$`, backreference or lookaround: an answer has a greatest length, and which characters it may have is written out. A
text matches as a whole. What is allowed means the same to Python's `re` and to outlines-core.
"""

import random
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

MAX_PATTERN_CHARS = 500
MAX_ANSWER_CHARS = 64  # of a text that matches
MAX_STATES = 4000  # of the automaton; `[A-Z0-9-]{3,40}` has 41
MAX_COST = 300_000  # steps to make the automaton, a fraction of a second; `[A-Z0-9-]{3,40}` takes 275
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
        return len(self.steps) - 1

    def reach(self, states: Iterable[int]) -> frozenset[int]:
        """The states that can be reached from these without a character."""
        found = set(states)
        waiting = list(found)
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
class _Table:
    """A deterministic automaton: `rows[state][class_by_char[char]]` is the next state, -1 for none. It starts in 0."""

    class_by_char: dict[str, int]
    rows: list[list[int]]
    is_end: list[bool]
    cost: int


@dataclass(frozen=True)
class Pattern:
    """A checked pattern. Raises PatternError for one that is not allowed."""

    text: str

    def __post_init__(self) -> None:
        if not self.text:
            raise PatternError("it is empty; write what an answer looks like, such as [A-Z]{2}[0-9]{4}")
        if len(self.text) > MAX_PATTERN_CHARS:
            raise PatternError(f"it has {len(self.text)} characters, more than {MAX_PATTERN_CHARS}; shorten it")
        if self.text != unicodedata.normalize("NFC", self.text):
            raise PatternError("it has characters that are not composed; write it in Unicode's form NFC")
        longest = self.max_chars  # before any automaton is made
        if longest > MAX_ANSWER_CHARS:
            raise PatternError(
                f"it matches answers of {longest} characters, more than {MAX_ANSWER_CHARS}; make its repetitions "
                "shorter"
            )
        if _length(self._part, min) == 0:
            raise PatternError("it matches an empty answer; `not_shown: true` allows that one")
        self._check_spaces()

    @cached_property
    def _part(self) -> _Part:
        return _Parser(self.text).parse()

    @cached_property
    def _table(self) -> _Table:
        automaton = _Automaton()
        start, end = automaton.add_state(), automaton.add_state()
        _connect(automaton, self._part, start, end)
        return _determinize(automaton, start=start, end=end)

    @cached_property
    def max_chars(self) -> int:
        """The length of the longest text that matches."""
        return _length(self._part, max)

    @cached_property
    def characters(self) -> frozenset[str]:
        """All characters that can occur."""
        return frozenset(self._table.class_by_char)

    @property
    def cost(self) -> int:
        """The number of steps that making the automaton took, at most MAX_COST."""
        return self._table.cost

    def matches(self, text: str) -> bool:
        """Whether the whole text matches. Takes time linear in its length."""
        table, state = self._table, 0
        for char in text:
            following = table.class_by_char.get(char)
            if following is None or (state := table.rows[state][following]) < 0:
                return False
        return table.is_end[state]

    def draw(self, rng: random.Random) -> str:
        """A random text that matches; the same generator gives the same text."""
        return _draw(self._part, rng)

    def _check_spaces(self) -> None:
        """Labels are stripped, so an answer that begins or ends with a space would never be right."""
        space = self._table.class_by_char.get(" ")
        if space is None:
            return
        rows, is_end = self._table.rows, self._table.is_end
        if rows[0][space] >= 0 or any(row[space] >= 0 and is_end[row[space]] for row in rows):
            raise PatternError("it matches answers that begin or end with a space; move the space between characters")


def _determinize(automaton: _Automaton, *, start: int, end: int) -> _Table:
    """The table of an automaton. Raises PatternError if it has too many states, or takes too many steps to make.

    Characters that occur in the same sets are one class.
    """
    sets = dict.fromkeys(allowed for steps in automaton.steps for allowed, _ in steps)
    sets_by_char: dict[str, list[frozenset[str]]] = {}
    for allowed in sets:
        for char in allowed:
            sets_by_char.setdefault(char, []).append(allowed)
    classes: dict[tuple[frozenset[str], ...], int] = {}
    class_by_char = {char: classes.setdefault(tuple(found), len(classes)) for char, found in sets_by_char.items()}
    classes_by_set = {allowed: {class_by_char[char] for char in allowed} for allowed in sets}

    first = automaton.reach({start})
    number_by_states = {first: 0}
    waiting = [first]
    rows: list[list[int]] = []
    cost = sum(map(len, sets))
    for states in waiting:  # grows
        following: list[set[int]] = [set() for _ in classes]
        for state in states:
            if cost > MAX_COST:
                break
            for allowed, after in automaton.steps[state]:
                cost += len(classes_by_set[allowed])
                for number in classes_by_set[allowed]:
                    following[number].add(after)
        cost += len(states) + len(classes)
        reached: dict[frozenset[int], int] = {}  # states -> number of all that they lead to
        for targets in map(frozenset, following):
            if targets and targets not in reached and cost <= MAX_COST:
                next_states = automaton.reach(targets)
                cost += len(next_states)
                reached[targets] = number_by_states.setdefault(next_states, len(waiting))
                if reached[targets] == len(waiting):
                    waiting.append(next_states)
        if len(waiting) > MAX_STATES or cost > MAX_COST:
            raise PatternError(
                f"it needs {f'more than {MAX_STATES} states' if len(waiting) > MAX_STATES else 'too many steps'}, "
                "because one character can belong to several of its parts; make its repetitions shorter or its parts "
                "more different"
            )
        rows.append([reached[frozenset(targets)] if targets else -1 for targets in following])
    return _Table(class_by_char, rows, [end in states for states in waiting], cost)


def _length(part: _Part, choose: Callable[[Iterable[int]], int]) -> int:
    """The length of the longest or the shortest text that the part matches."""
    match part:
        case _Characters():
            return 1
        case _Sequence(parts):
            return sum(_length(one, choose) for one in parts)
        case _Choice(parts):
            return choose(_length(one, choose) for one in parts)
        case _Repeat(repeated, least, most):
            return choose((least, most)) * _length(repeated, choose)


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
        if _length(part, max) == 0:
            raise PatternError("a group without characters; remove it")
        return part

    def _escape(self) -> str:
        char = self.text[self.position + 1 : self.position + 2]
        if char not in _SPECIAL and char not in ("-", "/"):
            shown = f"`\\{_check_char(char)}`" if char else "a `\\` at the end"
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
            if self.text.startswith("--", self.position):
                raise PatternError("`--` in a class; write `\\-` for the character")
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
        if char == "[":
            raise PatternError("`[` in a class; write `\\[` for the character")
        if char in "&~|-" and self.text.startswith(2 * char, self.position):  # operators in Rust, or of a later Python
            raise PatternError(f"`{2 * char}` in a class; write the character once, `\\-` for a `-`")
        self.position += 1
        return _check_char(char)


def _check_char(char: str) -> str:
    if not char.isprintable():
        raise PatternError(f"the character {char!a} is not printable; remove it")
    return char
