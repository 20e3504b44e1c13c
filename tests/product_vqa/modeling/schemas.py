"""A schema with every kind of attribute, and answers to them, for the tests of this folder."""

import random

import torch

from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.task.attributes import Attribute
from product_vqa.task.kinds import (
    SEPARATOR,
    ChoiceKind,
    IntegerKind,
    MultiChoiceKind,
    PatternKind,
    QuantityKind,
)
from product_vqa.task.schema_file import parse_schema

ALL_KINDS = parse_schema(
    r"""
version: 1
units:
  storage: {gigabyte: {size: 1}, terabyte: {size: 1000}}
  temperature: {degree celsius: {size: 1}}
  weight: {gram: {size: 1}, kilogram: {size: 1000}}
attributes:
  storage: {kind: quantity, units: storage, decimals: 0, integer_digits: 4}
  temperature: {kind: quantity, units: temperature, decimals: 2, integer_digits: 3, signed: true}
  weight: {kind: quantity, units: weight, not_shown: true}
  pieces: {kind: integer, digits: 3}
  offset: {kind: integer, signed: true, not_shown: true}
  colour: {kind: choice, values: [red, navy, navy blue, light blue], question: "Which colour is it?"}
  organic: {kind: yes_no, not_shown: true}
  material: {kind: multi_choice, values: [cotton, wool, cotton blend, elastane]}
  model: {kind: pattern, pattern: '[A-Z]{2}-[0-9]{2,4}(/[A-C]|\.[1-3])?', not_shown: true}
  brand: {kind: text, max_length: 12}
  slogan: {kind: text, max_length: 40, not_shown: true}
""",
    name="all kinds",
)


def draw_answer(attribute: Attribute, rng: random.Random) -> str:
    """A canonical answer, at random."""
    if attribute.not_shown and rng.random() < 0.1:
        return ""
    match attribute.kind:
        case QuantityKind() as kind:
            digits = rng.randint(1, kind.integer_digits)
            number = str(rng.randrange(10**digits))
            if kind.decimals:
                number += f".{rng.randrange(10 ** rng.randint(1, kind.decimals))}"
            return attribute.normalize(f"{_sign(kind.signed, rng)}{number} {rng.choice(kind.units)}")
        case IntegerKind() as kind:
            return attribute.normalize(f"{_sign(kind.signed, rng)}{rng.randrange(10 ** rng.randint(1, kind.digits))}")
        case ChoiceKind(values):
            return rng.choice(list(values))
        case MultiChoiceKind(values):
            return attribute.normalize(SEPARATOR.join(rng.sample(list(values), rng.randint(1, len(values)))))
        case PatternKind():
            end = rng.choice(["", "/A", "/C", ".2"])
            letters = "".join(rng.choices("ABCXYZ", k=2))
            return f"{letters}-{rng.randrange(10, 10_000)}{end}"
    length = rng.randint(1, attribute.kind.max_length)
    return attribute.normalize(f"x{''.join(rng.choices('abC9 .-', k=length - 1))}")


def _sign(signed: bool, rng: random.Random) -> str:
    return "-" if signed and rng.random() < 0.5 else ""


def accepts_tokens(automaton: AnswerAutomaton, entity_name: str, tokens: list[int]) -> bool:
    """Return whether the automaton accepts these tokens, the end token included."""
    state = automaton.start_by_entity[entity_name]
    for token in tokens:
        text = automaton.text
        if text is not None and text.room[state] >= 0:
            states = torch.tensor([state])
            if not text.is_allowed(states)[0, token]:
                return False
            state = int(text.follow(states, torch.tensor([[token]])))
            continue
        columns = (automaton.token_ids[state] == token).nonzero()
        if len(columns) != 1:
            return False
        state = int(automaton.next_states[state, columns[0, 0]])
    return state == automaton.end_state
