"""The automaton accepts canonical answers in the entity's units, and nothing else."""

import copy
import random
import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import PaliGemmaProcessor, PreTrainedTokenizerBase

from product_vqa.errors import InputError
from product_vqa.modeling.answer_tokens import spell_answer
from product_vqa.modeling.constrained_decoding import AnswerAutomaton, number_pattern
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import PatternKind, TextKind
from product_vqa.task.schema import CHALLENGE, ENTITIES, UNITS_BY_ENTITY
from product_vqa.task.schema_file import parse_schema
from tests.product_vqa.modeling.challenge import max_answer_tokens
from tests.product_vqa.modeling.schemas import ALL_KINDS, accepts_tokens, draw_answer


def accepts(automaton: AnswerAutomaton, tokenizer: PreTrainedTokenizerBase, entity_name: str, text: str) -> bool:
    """Return whether the automaton accepts the text as the tokenizer splits it."""
    state = automaton.start_by_entity[entity_name]
    for token in [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]:
        columns = (automaton.token_ids[state] == token).nonzero()
        if len(columns) != 1:
            return False
        state = int(automaton.next_states[state, columns[0, 0]])
    return state == automaton.end_state


@pytest.mark.parametrize("entity_name", ENTITIES)
def test_the_automaton_accepts_canonical_answers_in_the_entitys_units_and_nothing_else(
    automaton: AnswerAutomaton, processor, entity_name: str
) -> None:
    good = ("0.0", "34.0", "12.5", "0.25", "100.0", "999999.9999", "0.0001", "10.01")
    bad = ("", "34", "034.0", "34.50", "34.", ".5", "1234567.0", "1.23456", "3.4.0", "-1.0")
    for unit in UNITS_BY_ENTITY[entity_name]:
        for number in good:
            assert accepts(automaton, processor.tokenizer, entity_name, f"{number} {unit}")
            assert re.fullmatch(number_pattern(decimals=4, integer_digits=6, signed=False), number)
        for number in bad:
            assert not accepts(automaton, processor.tokenizer, entity_name, f"{number} {unit}")
    other = "volt" if entity_name != "voltage" else "gram"
    assert not accepts(automaton, processor.tokenizer, entity_name, f"34.0 {other}")
    assert not accepts(automaton, processor.tokenizer, entity_name, "")


def test_the_automaton_knows_the_length_of_its_longest_answer(
    processor: PaliGemmaProcessor, automaton: AnswerAutomaton
) -> None:
    number = "999999.9999"
    lengths = [
        len(processor.tokenizer.encode(f"{number} {unit}", add_special_tokens=False)) + 1
        for units in UNITS_BY_ENTITY.values()
        for unit in units
    ]
    assert automaton.max_tokens == max(lengths) == max_answer_tokens(processor.tokenizer)


def test_the_tables_list_tokens_next_states_and_where_a_unit_begins(
    automaton: AnswerAutomaton, processor: PaliGemmaProcessor
) -> None:
    tokenizer = processor.tokenizer
    states, width = automaton.token_ids.shape
    assert automaton.token_ids.dtype == automaton.next_states.dtype == torch.int64
    assert automaton.begins_unit.dtype == torch.bool and automaton.begins_unit.shape == (states, width)
    is_padding = automaton.token_ids == -1
    assert (automaton.token_ids >= 0).logical_or(is_padding).all()
    assert torch.equal(automaton.next_states[is_padding], torch.arange(states)[:, None].expand(-1, width)[is_padding])
    assert not automaton.begins_unit[is_padding].any()
    assert is_padding.sum(dim=1).min() == 0, "the widest state has no padding"

    assert automaton.end_state == 0
    assert automaton.token_ids[0].tolist() == [tokenizer.pad_token_id] + [-1] * (width - 1)
    assert automaton.next_states[0].tolist() == [0] * width
    for entity_name, units in UNITS_BY_ENTITY.items():
        for unit in units:
            state, marks = automaton.start_by_entity[entity_name], []
            tokens = [*tokenizer.encode(f"34.5 {unit}", add_special_tokens=False), tokenizer.eos_token_id]
            for token in tokens:
                (column,) = (automaton.token_ids[state] == token).nonzero()[0].tolist()
                marks.append(bool(automaton.begins_unit[state, column]))
                state = int(automaton.next_states[state, column])
            assert marks.index(True) == 4  # behind the number; what is marked after that does not matter


def test_the_start_states_are_on_the_device_of_the_tables(automaton: AnswerAutomaton) -> None:
    starts = automaton.start_states(["width", "voltage", "width"])
    assert starts.tolist() == [automaton.start_by_entity[name] for name in ("width", "voltage", "width")]
    assert automaton.start_by_entity["width"] == automaton.start_by_entity["depth"]  # the same units
    moved = automaton.to(torch.device("meta"))
    tables = (moved.token_ids, moved.next_states, moved.begins_unit, moved.start_states(["width"]))
    assert {tensor.device.type for tensor in tables} == {"meta"}
    assert (moved.start_by_entity, moved.end_state, moved.max_tokens) == (
        automaton.start_by_entity, automaton.end_state, automaton.max_tokens,
    )  # fmt: skip


def test_an_answer_may_be_empty_if_it_is_allowed(processor: PaliGemmaProcessor) -> None:
    allowed = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=CHALLENGE, allow_empty=True)
    assert accepts(allowed, processor.tokenizer, "width", "")
    assert accepts(allowed, processor.tokenizer, "width", "3.0 inch")


@pytest.mark.parametrize("base", ["paligemma"], indirect=True)
def test_a_token_that_the_tokenizer_puts_before_every_text_is_not_part_of_an_answer(
    automaton: AnswerAutomaton, processor: PaliGemmaProcessor
) -> None:
    """Gemma's tokenizer begins every text with <bos>, unless a PaliGemma processor has loaded it."""
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    assert tokenizer.encode("3")[0] == tokenizer.bos_token_id
    made = AnswerAutomaton.from_tokenizer(tokenizer, schema=CHALLENGE)
    assert accepts(made, tokenizer, "width", "3.0 inch")
    assert made.max_tokens == max_answer_tokens(tokenizer) == automaton.max_tokens


def split_unit(text: str) -> list[str]:
    """The unit is one piece, its space included."""
    number, _, unit = text.partition(" ")
    return [*number, f" {unit}"]


@pytest.mark.parametrize(
    ("split", "what"),
    [
        (
            lambda text: [text[:2], *split_unit(text[2:])],
            "splits '0.0 centilitre' into ['0.', '0', ' centilitre'], not into one token per digit",
        ),
        (
            lambda text: ["12", *split_unit(text[2:])] if text[:2] == "12" else split_unit(text),
            "splits '12.34 centilitre' into ['12', '.', '3', '4', ' centilitre'], not into one token per digit",
        ),
        (
            lambda text: ["987", *split_unit(text[3:])] if text[:2] == "98" else split_unit(text),
            "splits '987.65 centilitre' into ['987', '.', '6', '5', ' centilitre'], not into one token per digit",
        ),
        (
            lambda text: [*split_unit(text)[:-1], "<unk>"],
            "splits '0.0 centilitre' into ['0', '.', '0', '<unk>'], not into one token per digit",
        ),
        (
            lambda text: [*split_unit(text)[:-1], "▁centi", "litre"] if text[0] == "1" else split_unit(text),
            "splits ' centilitre' depending on the number before it ([[' centilitre'], ['▁centi', 'litre'], "
            "[' centilitre']])",
        ),
    ],
)
def test_a_tokenizer_without_one_path_per_answer_is_refused_with_a_remedy(
    split: Callable[[str], list[str]], what: str
) -> None:
    tokenizer = SimpleNamespace(
        eos_token_id=1, pad_token_id=0, convert_ids_to_tokens=list,
        encode=lambda text, *, add_special_tokens: split(text),
    )  # fmt: skip
    message = f"the base model's tokenizer {what}. Answers cannot be constrained with it: turn `constrain` off"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        AnswerAutomaton.from_tokenizer(tokenizer, schema=CHALLENGE)


# ---- Every kind -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_all_kinds(processor: PaliGemmaProcessor) -> AnswerAutomaton:
    return AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=ALL_KINDS)


def accepts_answer(automaton: AnswerAutomaton, processor: PaliGemmaProcessor, name: str, answer: str) -> bool:
    tokenizer, attribute = processor.tokenizer, ALL_KINDS[name]
    tokens = None
    if isinstance(attribute.kind, PatternKind):
        tokens = spell_answer(tokenizer, answer, attribute)
    tokens = tokenizer.encode(answer, add_special_tokens=False) if tokens is None else tokens
    return accepts_tokens(automaton, name, [*tokens, tokenizer.eos_token_id])


GOOD = {
    "storage": ["0 gigabyte", "16 gigabyte", "9999 terabyte"],
    "temperature": ["0.0 degree celsius", "-5.0 degree celsius", "-0.25 degree celsius", "-999.99 degree celsius"],
    "weight": ["", "1.5 kilogram", "999999.9999 gram"],
    "pieces": ["0", "7", "24", "999"],
    "offset": ["", "0", "-1", "-999999"],
    "colour": ["red", "navy", "navy blue", "light blue"],
    "organic": ["", "yes", "no"],
    "material": ["cotton", "elastane", "cotton, wool", "cotton, cotton blend", "cotton, wool, cotton blend, elastane"],
    "model": ["", "AB-12", "XY-1234/A", "AB-99.3"],
    "brand": ["a", "Ab 9", "x. y-z", "twelve chars"],
    "slogan": ["", "the best", "a" * 40],
}
BAD = {
    "storage": ["", "16.0 gigabyte", "016 gigabyte", "12345 gigabyte", "-1 gigabyte", "16 gram", "16"],
    "temperature": ["-0.0 degree celsius", "-0 degree celsius", "5 degree celsius", "0.125 degree celsius", "--1.0"],
    "weight": ["1 gram", "-1.0 gram", " "],
    "pieces": ["", "1000", "-1", "01", "1.0"],
    "offset": ["-0", "1000000", "--1"],
    "colour": ["", "blue", "navy ", "light", "navy blue blue", "red, navy"],
    "organic": ["y", "yes, no"],
    "material": ["", "wool, cotton", "cotton, cotton", "cotton,", "cotton,wool", ", wool", "blend"],
    "model": ["A-12", "AB-1", "AB-12345", "AB-12/", "AB-12/D", "ab-12", "AB12"],
    "brand": ["", " a", "a ", "a  b", "thirteen char", "a\nb"],
    "slogan": [" ", "a" * 41, " x"],
}


@pytest.mark.parametrize("name", ALL_KINDS.names)
def test_the_automaton_accepts_the_canonical_answers_of_every_kind_and_no_others(
    of_all_kinds: AnswerAutomaton, processor: PaliGemmaProcessor, name: str
) -> None:
    for answer in GOOD[name]:
        assert ALL_KINDS[name].is_valid(answer)
        assert accepts_answer(of_all_kinds, processor, name, answer), answer
    for answer in BAD[name]:
        if not isinstance(ALL_KINDS[name].kind, PatternKind) or answer.isascii():
            assert not accepts_answer(of_all_kinds, processor, name, answer), answer


def test_random_answers_of_every_kind_are_accepted(
    of_all_kinds: AnswerAutomaton, processor: PaliGemmaProcessor
) -> None:
    rng = random.Random(0)
    for number in range(2_000):
        name = ALL_KINDS.names[number % len(ALL_KINDS.names)]
        answer = draw_answer(ALL_KINDS[name], rng)
        assert accepts_answer(of_all_kinds, processor, name, answer), (name, answer)


def test_a_text_does_not_widen_the_tables_and_other_kinds_have_no_units(
    of_all_kinds: AnswerAutomaton, processor: PaliGemmaProcessor
) -> None:
    assert of_all_kinds.token_ids.shape[1] < 40
    assert of_all_kinds.text is not None
    assert (of_all_kinds.text.room >= 0).sum() == 2 * (12 + 1) + 2 * (40 + 1)
    assert not of_all_kinds.begins_unit[of_all_kinds.text.room >= 0].any()
    beginnings = set(of_all_kinds.token_ids[of_all_kinds.begins_unit].tolist())
    units = [f"0.0 {unit}" for unit in ALL_KINDS.units]
    assert beginnings == {processor.tokenizer.encode(text, add_special_tokens=False)[3] for text in units}
    moved = of_all_kinds.to(torch.device("meta")).text
    assert moved is not None and {moved.room.device.type, moved.pieces.lengths.device.type} == {"meta"}


def test_the_longest_answer_of_a_schema(of_all_kinds: AnswerAutomaton, processor: PaliGemmaProcessor) -> None:
    assert of_all_kinds.max_tokens == max_answer_tokens(processor.tokenizer, schema=ALL_KINDS) == 41
    rest = {
        name: attribute for name, attribute in ALL_KINDS.attributes.items() if not isinstance(attribute.kind, TextKind)
    }
    for name, attribute in rest.items():
        schema = Schema({name: attribute}, ALL_KINDS.dimensions)
        made = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema)
        assert made.max_tokens == max_answer_tokens(processor.tokenizer, schema=schema), name
        assert made.text is None


def test_many_values_share_their_states_and_too_many_are_refused(
    processor: PaliGemmaProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = "".join(f"[material {number}]" for number in range(64)).replace("][", ", ")
    schema = parse_schema(f"version: 1\nattributes: {{m: {{kind: multi_choice, values: {values}}}}}", name="s")
    made = AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema)
    assert len(made.token_ids) < 3_000
    answer = schema["m"].normalize(", ".join(f"material {number}" for number in (63, 5, 17, 9)))
    tokens = processor.tokenizer.encode(answer, add_special_tokens=False)
    assert accepts_tokens(made, "m", [*tokens, processor.tokenizer.eos_token_id])
    assert not accepts_tokens(made, "m", [*tokens, tokens[0]])
    monkeypatch.setattr("product_vqa.modeling.constrained_decoding.MAX_ENTRIES", 1_000)
    with pytest.raises(InputError, match=r"^the schema needs [0-9]+ states of [0-9]+ tokens, too many to constrain"):
        AnswerAutomaton.from_tokenizer(processor.tokenizer, schema=schema)
