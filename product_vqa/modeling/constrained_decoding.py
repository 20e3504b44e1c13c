"""The valid answers of a schema's attributes, as an automaton over the base model's tokens."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from outlines_core import Index, Vocabulary

from product_vqa.errors import InputError
from product_vqa.modeling.answer_tokens import (
    TextPieces,
    character_tokens,
    number_tokens,
    tail_tokens,
    unit_tokens,
    value_tokens,
)
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import (
    SEPARATOR,
    ChoiceKind,
    IntegerKind,
    Kind,
    MultiChoiceKind,
    PatternKind,
    QuantityKind,
    TextKind,
)

MAX_ENTRIES = 2**26  # of a table, half a gigabyte
_NO_TOKEN = -1
_NOT_A_TEXT = -1
_END = 0  # the state after the end token
_AFTER_ANSWER = "\n"  # in a regular expression; no answer has it


@dataclass(frozen=True)
class TextStates:
    """The states within free texts, in which nearly all tokens are allowed: too many for tables of them.

    `room` (states,) int64 has how many characters may follow, -1 for other states; `is_after_space` (states,) bool
    whether neither a space nor the end may follow.
    """

    room: torch.Tensor
    is_after_space: torch.Tensor
    can_end: torch.Tensor  # (states,) bool
    pieces: TextPieces
    eos: int

    def to(self, device: torch.device) -> "TextStates":
        return replace(
            self,
            room=self.room.to(device),
            is_after_space=self.is_after_space.to(device),
            can_end=self.can_end.to(device),
            pieces=self.pieces.to(device),
        )

    @cached_property
    def is_text(self) -> torch.Tensor:
        """(states,) bool."""
        return self.room >= 0

    def is_allowed(self, states: torch.Tensor) -> torch.Tensor:
        """Return which tokens are allowed in some states of texts: (N, V) bool."""
        pieces = self.pieces
        needed = pieces.lengths + pieces.ends_with_space.long()  # after a space, something must follow
        allowed = (needed <= self.room[states][:, None]) & ~(
            self.is_after_space[states][:, None] & pieces.begins_with_space
        )
        allowed[:, self.eos] = self.can_end[states]
        return allowed

    def follow(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the states to which allowed tokens (N, K) lead."""
        pieces = self.pieces
        # There are two states after each number of characters, the second one after a space.
        before = (states - self.is_after_space[states].long())[:, None]
        following = before + 2 * pieces.lengths[tokens] + pieces.ends_with_space[tokens].long()
        return following.masked_fill(tokens == self.eos, _END)


@dataclass(frozen=True)
class AnswerAutomaton:
    """The valid answers of all attributes, as transition tables.

    `token_ids` and `next_states` (states, K) int64 list the allowed tokens of each state and where they lead, padded
    with -1 and the state itself. `begins_unit` (states, K) bool marks tokens that begin the unit of a quantity. After
    the end token, only padding is allowed. `max_tokens` is the length of the longest answer, including the end token.
    `text` has what the states of free texts allow; None if no attribute is one.
    """

    token_ids: torch.Tensor
    next_states: torch.Tensor
    begins_unit: torch.Tensor
    start_by_entity: dict[str, int]
    end_state: int
    max_tokens: int
    text: TextStates | None = None

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, *, schema: Schema, allow_empty: bool = False) -> "AnswerAutomaton":
        """Build the automaton for a tokenizer of the PaliGemma family. With `allow_empty`, any answer may be empty.

        Each answer but a text has one path, its tokens in training: those into which the tokenizer splits it, or those
        of `spell_answer`. Raises InputError for a tokenizer that does not split a number into its
        digits and the point, or cannot spell an answer.
        """
        return _Builder(tokenizer, schema, allow_empty=allow_empty).build()

    def to(self, device: torch.device) -> "AnswerAutomaton":
        """Return the automaton with its tables on a device."""
        return replace(
            self,
            token_ids=self.token_ids.to(device),
            next_states=self.next_states.to(device),
            begins_unit=self.begins_unit.to(device),
            text=self.text and self.text.to(device),
        )

    def start_states(self, entity_names: Sequence[str]) -> torch.Tensor:
        """Return the start state of each entity: (B,) int64."""
        return torch.tensor([self.start_by_entity[name] for name in entity_names], device=self.token_ids.device)


def number_pattern(*, decimals: int, integer_digits: int, signed: bool) -> str:
    """Canonical numbers: no leading zero except in `0.x`, no trailing zero except in `x.0`, no `-0`.

    Without decimals there is no point.
    """
    integer = rf"[1-9][0-9]{{0,{integer_digits - 1}}}"
    if decimals == 0:
        return f"0|-?{integer}" if signed else f"0|{integer}"
    not_zero = rf"[0-9]{{0,{decimals - 1}}}[1-9]"
    number = rf"(0|{integer})\.(0|{not_zero})"
    return rf"{number}|-({integer}\.(0|{not_zero})|0\.{not_zero})" if signed else number


def max_answer_tokens(tokenizer: Any, *, schema: Schema) -> int:
    """Return the length of the longest valid answer, including the end token, for any tokenizer."""

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    def longest(kind: Kind) -> int:
        match kind:
            case QuantityKind():
                number = (
                    "-" * kind.signed + "9" * kind.integer_digits + ("." + "9" * kind.decimals) * bool(kind.decimals)
                )
                return max(count(f"{number} {unit}") for unit in kind.units)
            case IntegerKind():
                return count("-" * kind.signed + "9" * kind.digits)
            case ChoiceKind():
                return max(map(count, kind.values))
            case MultiChoiceKind():
                return count(SEPARATOR.join(kind.values))
            case PatternKind():
                return kind.pattern.max_chars
            case TextKind():
                return kind.max_length

    return 1 + max(longest(attribute.kind) for attribute in schema.attributes.values())


class _Builder:
    """Adds the states of each kind to `rows`: the allowed tokens of each state, and where they lead."""

    def __init__(self, tokenizer: Any, schema: Schema, *, allow_empty: bool) -> None:
        self.tokenizer, self.schema, self.allow_empty = tokenizer, schema, allow_empty
        self.eos: int = tokenizer.eos_token_id
        self.ends: dict[int, int] = {self.eos: _END}
        self.rows: list[dict[int, int]] = [{tokenizer.pad_token_id: _END}]
        self.unit_beginnings: dict[int, set[int]] = {}  # of the states after a number
        self.rooms: dict[int, tuple[int, bool]] = {}  # state of a text -> characters left, is after a space
        self.unit_tokens = self._find_unit_tokens()

    def build(self) -> AnswerAutomaton:
        made: list[tuple[Kind, bool, int]] = []  # attributes of the same kind have the same states
        start_by_entity = {}
        for attribute in self.schema.attributes.values():
            may_be_empty = self.allow_empty or attribute.not_shown
            start = next(
                (state for kind, empty, state in made if (kind, empty) == (attribute.kind, may_be_empty)), None
            )
            if start is None:
                start = self._add(attribute)
                if may_be_empty:
                    self.rows[start][self.eos] = _END
                made.append((attribute.kind, may_be_empty, start))
            start_by_entity[attribute.name] = start
        token_ids, next_states, begins_unit = self._make_tables()
        return AnswerAutomaton(
            token_ids,
            next_states,
            begins_unit,
            start_by_entity,
            _END,
            self._longest_path(set(start_by_entity.values())),
            self._make_text_states() if self.rooms else None,
        )

    def _find_unit_tokens(self) -> dict[str, list[int]]:
        numbers_by_unit: dict[str, dict[str, None]] = {}
        for attribute in self.schema.attributes.values():
            if isinstance(attribute.kind, QuantityKind):
                for unit in attribute.kind.units:
                    numbers_by_unit.setdefault(unit, {}).update(dict.fromkeys(_examples(attribute.kind)))
        return {
            unit: unit_tokens(self.tokenizer, unit, numbers=list(numbers))
            for unit, numbers in sorted(numbers_by_unit.items())
        }

    def _add(self, attribute: Attribute) -> int:
        """Add the states of an attribute; returns the first one."""
        kind, name = attribute.kind, attribute.name
        match kind:
            case QuantityKind():
                units = self._add_words([self.unit_tokens[unit] for unit in kind.units], [self.ends] * len(kind.units))
                pattern = number_pattern(
                    decimals=kind.decimals, integer_digits=kind.integer_digits, signed=kind.signed
                )
                return self._add_pattern(pattern, self._number_characters(kind), then=units, is_number=True)
            case IntegerKind():
                for number in _examples(kind):
                    number_tokens(self.tokenizer, number)
                pattern = number_pattern(decimals=0, integer_digits=kind.digits, signed=kind.signed)
                return self._add_pattern(pattern, self._number_characters(kind), then=self.ends)
            case ChoiceKind():
                words = [value_tokens(self.tokenizer, value, name=name) for value in kind.values]
                return self._add_row(self._add_words(words, [self.ends] * len(words)))
            case MultiChoiceKind():
                return self._add_values(list(kind.values), name=name)
            case PatternKind(pattern=pattern_):
                tokens = character_tokens(self.tokenizer, pattern_.characters, name=name)
                return self._add_pattern(pattern_.text, tokens, then=self.ends)
            case TextKind():
                return self._add_text(kind.max_length)

    def _add_row(self, row: Mapping[int, int]) -> int:
        self.rows.append(dict(row))
        return len(self.rows) - 1

    def _number_characters(self, kind: QuantityKind | IntegerKind) -> dict[str, int]:
        used = "0123456789" + "-" * kind.signed + "." * (isinstance(kind, QuantityKind) and kind.decimals > 0)
        return {char: self.tokenizer.convert_tokens_to_ids(char) for char in used}

    def _add_words(
        self,
        words: Sequence[Sequence[int]],
        then: Sequence[Mapping[int, int]],
        *,
        possible: Iterable[int] | None = None,
        states: dict[tuple[int, ...], int] | None = None,
    ) -> dict[int, int]:
        """Add the `possible` words (default: all), each followed by its transitions; returns those of the first state.

        `states` has those of earlier calls with the same words: (tokens so far, the words that are possible) -> state.
        """
        known = {} if states is None else states

        def follow(position: int, possible: Iterable[int]) -> dict[int, int]:
            row: dict[int, int] = {}
            by_token: dict[int, list[int]] = {}
            for word in possible:
                if len(words[word]) == position:
                    row.update(then[word])
                else:
                    by_token.setdefault(words[word][position], []).append(word)
            for token, following in by_token.items():
                key = (position + 1, *following)
                if key not in known:
                    known[key] = self._add_row(follow(position + 1, following))
                row[token] = known[key]
            return row

        return follow(0, range(len(words)) if possible is None else possible)

    def _add_values(self, values: list[str], *, name: str) -> int:
        """Add the answers with some of the values, in their order; a state for each value that may be the last one."""
        words = [value_tokens(self.tokenizer, value, name=name) for value in values]
        tails = [tail_tokens(self.tokenizer, value, name=name) for value in values]
        after: list[Mapping[int, int]] = [self.ends] * len(values)
        states: dict[tuple[int, ...], int] = {}
        for number in range(len(values) - 1, -1, -1):  # what follows a value is made before it
            others = range(number + 1, len(values))
            after[number] = self.ends | self._add_words(tails, after, possible=others, states=states)
        return self._add_row(self._add_words(words, after))

    def _add_pattern(
        self, pattern: str, tokens: Mapping[str, int], *, then: Mapping[int, int], is_number: bool = False
    ) -> int:
        """Add the texts that match, spelled, with the transitions `then` where one may end; returns the start."""
        # The automaton of outlines stops at the first match (`5.0` of `5.01`), and with one more character behind it,
        # nothing matches before the end.
        after = len(self.tokenizer)
        vocabulary: dict[str | bytes, list[int]] = {char.encode(): [token] for char, token in tokens.items()}
        index = Index(
            f"({pattern}){_AFTER_ANSWER}", Vocabulary(self.eos, vocabulary | {_AFTER_ANSWER.encode(): [after]})
        )
        finals = index.get_final_states()
        transitions = {state: row for state, row in index.get_transitions().items() if state not in finals}
        states = {state: len(self.rows) + offset for offset, state in enumerate(transitions)}
        for state, following in transitions.items():
            row = {token: states[next_state] for token, next_state in following.items() if token != after}
            if after in following:
                row |= then
                if is_number:
                    self.unit_beginnings[states[state]] = set(then)
            self.rows.append(row)
        return states[index.get_initial_state()]

    def _add_text(self, max_length: int) -> int:
        """Add two states after each number of characters, the second one after a space; returns the start."""
        start = len(self.rows) + 1  # where no space may follow either
        for room in range(max_length, -1, -1):
            self.rooms[self._add_row(self.ends)] = (room, False)
            self.rooms[self._add_row({})] = (room, True)
        return start

    def _make_tables(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        width = max(map(len, self.rows))
        if len(self.rows) * width > MAX_ENTRIES:
            raise InputError(
                f"the schema needs {len(self.rows)} states of {width} tokens, too many to constrain answers: make "
                "attributes with many values free texts, or turn `constrain` off"
            )
        token_ids = torch.full((len(self.rows), width), _NO_TOKEN)
        next_states = torch.arange(len(self.rows))[:, None].repeat(1, width)
        begins_unit = torch.zeros(len(self.rows), width, dtype=torch.bool)
        for state, following in enumerate(self.rows):
            if not following:
                continue
            tokens = sorted(following)
            beginnings = self.unit_beginnings.get(state, set())
            token_ids[state, : len(tokens)] = torch.tensor(tokens)
            next_states[state, : len(tokens)] = torch.tensor([following[token] for token in tokens])
            begins_unit[state, : len(tokens)] = torch.tensor([token in beginnings for token in tokens])
        return token_ids, next_states, begins_unit

    def _make_text_states(self) -> TextStates:
        rooms = [self.rooms.get(state, (_NOT_A_TEXT, False)) for state in range(len(self.rows))]
        return TextStates(
            torch.tensor([room for room, _ in rooms]),
            torch.tensor([is_after_space for _, is_after_space in rooms]),
            torch.tensor([self.eos in row for row in self.rows]),
            TextPieces.from_tokenizer(self.tokenizer),
            self.eos,
        )

    def _longest_path(self, starts: set[int]) -> int:
        """Return the number of tokens on the longest path to the end. All answers are bounded: there are no cycles."""
        longest = {_END: 0} | {state: room + 1 for state, (room, _) in self.rooms.items()}
        waiting = list(starts)
        while waiting:
            state = waiting[-1]
            unknown = [following for following in self.rows[state].values() if following not in longest]
            if unknown and state not in longest:
                waiting += unknown
                continue
            waiting.pop()
            if state not in longest:
                longest[state] = 1 + max(longest[following] for following in self.rows[state].values())
        return max(longest[start] for start in starts)


def _examples(kind: QuantityKind | IntegerKind) -> list[str]:
    """Numbers that show how the tokenizer splits those of a kind."""
    has_decimals = isinstance(kind, QuantityKind) and kind.decimals > 0
    numbers = ["0.0", "12.34", "987.65"] if has_decimals else ["0", "12", "987"]
    return [*numbers, f"-{numbers[1]}"] if kind.signed else numbers
