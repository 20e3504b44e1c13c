"""What an answer may be, as an automaton over the base's own tokens: `number unit`, in a unit of the asked entity."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from outlines_core import Index, Vocabulary

from product_vqa.entities import UNITS, UNITS_BY_ENTITY

# 99.8 % of the challenge's labels have no more.
MAX_INTEGER_DIGITS = 6
MAX_DECIMALS = 4

_NO_TOKEN = -1


def answer_pattern(entity_name: str) -> str:
    """Regular expression of the valid answers, in canonical form: no leading zero but `0.x`, no trailing but `.0`."""
    number = rf"(0|[1-9][0-9]{{0,{MAX_INTEGER_DIGITS - 1}}})\.(0|[0-9]{{0,{MAX_DECIMALS - 1}}}[1-9])"
    return f"{number} ({'|'.join(UNITS_BY_ENTITY[entity_name])})"


@dataclass(frozen=True)
class AnswerAutomaton:
    """The valid answers of all entities, as tables over states.

    `token_ids` and `next_states` (states, K) int64 list what may come next, padded with -1 and with the state itself;
    `begins_unit` (states, K) bool says which of them begin the unit. After the end token only pads come.
    """

    token_ids: torch.Tensor
    next_states: torch.Tensor
    begins_unit: torch.Tensor
    start_by_entity: dict[str, int]
    end_state: int

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, *, allow_empty: bool = False) -> "AnswerAutomaton":
        """For a tokenizer of the PaliGemma family. With `allow_empty` an answer may also be nothing at all.

        Only the tokens of which the tokenizer itself would make an answer are used, so that each answer is reached in
        one way: the one that was trained. Raises ValueError for a tokenizer that splits `34.0 gram` in a way that
        depends on the number.
        """
        text_by_token = _answer_tokens(tokenizer)
        ids_by_text: dict[str | bytes, list[int]] = {text.encode(): [token] for token, text in text_by_token.items()}
        eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        vocabulary = Vocabulary(eos, ids_by_text)
        end = 0
        rows: list[dict[int, int]] = [{pad: end}]
        start_by_entity: dict[str, int] = {}
        start_by_units: dict[tuple[str, ...], int] = {}
        for entity, units in UNITS_BY_ENTITY.items():
            if units not in start_by_units:
                index = Index(answer_pattern(entity), vocabulary)
                transitions = index.get_transitions()
                number = {state: len(rows) + place for place, state in enumerate(transitions)}
                for tokens in transitions.values():
                    rows.append({token: end if token == eos else number[state] for token, state in tokens.items()})
                start_by_units[units] = number[index.get_initial_state()]
                if allow_empty:
                    rows[start_by_units[units]][eos] = end
            start_by_entity[entity] = start_by_units[units]
        width = max(map(len, rows))
        token_ids = torch.full((len(rows), width), _NO_TOKEN)
        next_states = torch.arange(len(rows))[:, None].repeat(1, width)
        begins_unit = torch.zeros(len(rows), width, dtype=torch.bool)
        for state, tokens in enumerate(rows):
            for place, (token, following) in enumerate(sorted(tokens.items())):
                token_ids[state, place], next_states[state, place] = token, following
                begins_unit[state, place] = text_by_token.get(token, "").startswith(" ")
        return cls(token_ids, next_states, begins_unit, start_by_entity, end)

    def to(self, device: torch.device) -> "AnswerAutomaton":
        """The same, its tables on a device."""
        return replace(
            self,
            token_ids=self.token_ids.to(device),
            next_states=self.next_states.to(device),
            begins_unit=self.begins_unit.to(device),
        )

    def start_states(self, entity_names: Sequence[str]) -> torch.Tensor:
        """(B,) int64."""
        return torch.tensor([self.start_by_entity[name] for name in entity_names], device=self.token_ids.device)


def _answer_tokens(tokenizer: Any) -> dict[int, str]:
    """The tokens that answers are made of, and their text."""
    texts: dict[int, str] = {}
    for unit in sorted(UNITS):
        for number in ("0.0", "12.34", "987.65"):
            answer = f"{number} {unit}"
            tokens = tokenizer.encode(answer, add_special_tokens=False)
            pieces = [token.replace("▁", " ") for token in tokenizer.convert_ids_to_tokens(tokens)]
            if "".join(pieces) != answer or pieces[: len(number)] != list(number):
                raise ValueError(f"the tokenizer splits {answer!r} into {pieces}: one token a digit is expected")
            texts |= dict(zip(tokens, pieces, strict=True))
    return texts
