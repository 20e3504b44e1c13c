"""The valid answers, `number unit` in a unit of the entity, as an automaton over the base model's tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from outlines_core import Index, Vocabulary

from product_vqa.errors import InputError
from product_vqa.task.schema import UNITS, UNITS_BY_ENTITY

# Enough for 99.8 % of the challenge's labels.
MAX_INTEGER_DIGITS = 6
MAX_DECIMALS = 4

# Canonical numbers: no leading zero except in `0.x`, no trailing zero except in `x.0`.
NUMBER_PATTERN = rf"(0|[1-9][0-9]{{0,{MAX_INTEGER_DIGITS - 1}}})\.(0|[0-9]{{0,{MAX_DECIMALS - 1}}}[1-9])"

_NO_TOKEN = -1


@dataclass(frozen=True)
class AnswerAutomaton:
    """The valid answers of all entities, as transition tables.

    `token_ids` and `next_states` (states, K) int64 list the allowed tokens of each state and where they lead, padded
    with -1 and the state itself. `begins_unit` (states, K) bool marks tokens that begin the unit. After the end token,
    only padding is allowed. `max_tokens` is the length of the longest answer, including the end token.
    """

    token_ids: torch.Tensor
    next_states: torch.Tensor
    begins_unit: torch.Tensor
    start_by_entity: dict[str, int]
    end_state: int
    max_tokens: int

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, *, allow_empty: bool = False) -> "AnswerAutomaton":
        """Build the automaton for a tokenizer of the PaliGemma family. With `allow_empty`, answers may be empty.

        Each answer has one path: the tokens into which the tokenizer splits it, as in training. Raises InputError for
        a tokenizer that does not split a number into its digits and the point.
        """
        eos = tokenizer.eos_token_id
        end = 0
        rows: list[dict[int, int]] = [{tokenizer.pad_token_id: end}]
        units = {unit: _unit_tokens(tokenizer, unit) for unit in sorted(UNITS)}
        start_by_units: dict[tuple[str, ...], int] = {}
        for names in UNITS_BY_ENTITY.values():
            if names not in start_by_units:
                first = _add_units(rows, [units[name] for name in names], eos=eos, end=end)
                start_by_units[names] = _add_number(rows, tokenizer, then=first)
                if allow_empty:
                    rows[start_by_units[names]][eos] = end
        width = max(map(len, rows))
        token_ids = torch.full((len(rows), width), _NO_TOKEN)
        next_states = torch.arange(len(rows))[:, None].repeat(1, width)
        begins_unit = torch.zeros(len(rows), width, dtype=torch.bool)
        beginnings = {tokens[0] for tokens in units.values()}
        for state, following in enumerate(rows):
            for column, (token, next_state) in enumerate(sorted(following.items())):
                token_ids[state, column] = token
                next_states[state, column] = next_state
                begins_unit[state, column] = token in beginnings
        start_by_entity = {entity: start_by_units[names] for entity, names in UNITS_BY_ENTITY.items()}
        max_tokens = max(_longest_path(rows, start, end=end) for start in start_by_entity.values())
        return cls(token_ids, next_states, begins_unit, start_by_entity, end, max_tokens)

    def to(self, device: torch.device) -> "AnswerAutomaton":
        """Return the automaton with its tables on a device."""
        return replace(
            self,
            token_ids=self.token_ids.to(device),
            next_states=self.next_states.to(device),
            begins_unit=self.begins_unit.to(device),
        )

    def start_states(self, entity_names: Sequence[str]) -> torch.Tensor:
        """Return the start state of each entity: (B,) int64."""
        return torch.tensor([self.start_by_entity[name] for name in entity_names], device=self.token_ids.device)


def max_answer_tokens(tokenizer: Any) -> int:
    """Return the length of the longest valid answer, including the end token, for any tokenizer."""
    number = "9" * MAX_INTEGER_DIGITS + "." + "9" * MAX_DECIMALS
    return 1 + max(len(tokenizer.encode(f"{number} {unit}", add_special_tokens=False)) for unit in UNITS)


def _longest_path(rows: list[dict[int, int]], start: int, *, end: int) -> int:
    """Return the number of tokens on the longest path to the end. The digits are limited, so there are no cycles."""
    longest = {end: 0}

    def measure(state: int) -> int:
        if state not in longest:
            longest[state] = 1 + max(measure(following) for following in rows[state].values())
        return longest[state]

    return measure(start)


def _unit_tokens(tokenizer: Any, unit: str) -> list[int]:
    """Return the tokens of ` unit` after a number, if they are the same for every number."""
    tails = []
    for number in ("0.0", "12.34", "987.65"):
        tokens = tokenizer.encode(f"{number} {unit}", add_special_tokens=False)
        pieces = [token.replace("▁", " ") for token in tokenizer.convert_ids_to_tokens(tokens)]
        if "".join(pieces) != f"{number} {unit}" or pieces[: len(number)] != list(number):
            raise InputError(
                f"the base model's tokenizer splits '{number} {unit}' into {pieces}, not into one token per digit. "
                "Answers cannot be constrained with it: turn `constrain` off"
            )
        tails.append(tokens[len(number) :])
    if tails.count(tails[0]) != len(tails):
        raise InputError(
            f"the base model's tokenizer splits ' {unit}' depending on the number before it ({tails}). "
            "Answers cannot be constrained with it: turn `constrain` off"
        )
    return tails[0]


def _add_units(rows: list[dict[int, int]], units: list[list[int]], *, eos: int, end: int) -> dict[int, int]:
    """Add a trie of the units' tokens, each followed by `eos`; returns the transitions of its root."""
    root: dict[int, int] = {}
    for tokens in units:
        node = root
        for token in tokens:
            if token not in node:
                node[token] = len(rows)
                rows.append({})
            node = rows[node[token]]
        node[eos] = end
    return root


def _add_number(rows: list[dict[int, int]], tokenizer: Any, *, then: dict[int, int]) -> int:
    """Add the automaton of `NUMBER_PATTERN`, with the transitions `then` where a number may end; returns its start."""
    pieces: dict[str | bytes, list[int]] = {
        piece.encode(): [tokenizer.convert_tokens_to_ids(piece)] for piece in "0123456789."
    }
    # A space stands for the unit. The automaton of outlines stops at the first match (`5.0` of `5.01`), and with the
    # space, nothing matches before the end of the number.
    space = len(tokenizer)
    index = Index(f"{NUMBER_PATTERN} ", Vocabulary(tokenizer.eos_token_id, pieces | {b" ": [space]}))
    transitions = {state: following for state, following in index.get_transitions().items() if following}
    states = {state: len(rows) + offset for offset, state in enumerate(transitions)}
    for following in transitions.values():
        row = {token: states[state] for token, state in following.items() if token < space}
        rows.append(row | (then if space in following else {}))
    return states[index.get_initial_state()]
