"""The tokens of the parts of an answer, and the errors for tokenizers that have none."""

import re

import pytest
from transformers import PaliGemmaProcessor

from product_vqa.errors import InputError
from product_vqa.modeling.answer_tokens import (
    TextPieces,
    character_tokens,
    number_tokens,
    spell_answer,
    value_tokens,
)
from product_vqa.task.schema_file import parse_schema
from tests.product_vqa.modeling.schemas import ALL_KINDS
from tests.tiny import make_letters_tokenizer

of_paligemma = pytest.mark.parametrize("base", ["paligemma"], indirect=True)


def pieces_of(processor: PaliGemmaProcessor, tokens: list[int]) -> list[str]:
    return processor.tokenizer.convert_ids_to_tokens(tokens)


def test_the_answer_of_a_pattern_has_a_token_for_each_character(processor: PaliGemmaProcessor) -> None:
    tokens = spell_answer(processor.tokenizer, "AB-100/A", ALL_KINDS["model"])
    assert pieces_of(processor, tokens) == list("AB-100/A")
    assert pieces_of(processor, list(character_tokens(processor.tokenizer, "b a", name="x").values())) == [
        "▁", "a", "b"
    ]  # fmt: skip


def test_several_values_have_the_tokens_of_each(processor: PaliGemmaProcessor) -> None:
    tokenizer, answer = processor.tokenizer, "cotton, wool, cotton blend"
    tokens = spell_answer(tokenizer, answer, ALL_KINDS["material"])
    assert tokens == tokenizer.encode(answer, add_special_tokens=False)
    assert spell_answer(tokenizer, "wool", ALL_KINDS["material"]) == value_tokens(tokenizer, "wool", name="material")
    assert spell_answer(tokenizer, "red", ALL_KINDS["colour"]) is None


@of_paligemma
def test_a_tokenizer_without_a_character_is_refused_with_the_attribute(processor: PaliGemmaProcessor) -> None:
    with pytest.raises(InputError, match=r"^attribute model: the base model's tokenizer has no token for .* 'Ä'"):
        character_tokens(processor.tokenizer, "AÄ", name="model")
    with pytest.raises(InputError, match=r"^attribute size: .* no tokens for all characters of 'größe 1'. Write"):
        value_tokens(processor.tokenizer, "größe 1", name="size")


@pytest.mark.parametrize("base", ["paligemma2"], indirect=True)
def test_a_value_may_be_spelled_in_bytes(processor: PaliGemmaProcessor) -> None:
    tokens = value_tokens(processor.tokenizer, "5 µg", name="size")
    assert pieces_of(processor, tokens)[-3:] == ["<0xC2>", "<0xB5>", "g"]
    assert processor.tokenizer.decode(tokens) == "5 µg"


class MergingTokenizer:
    """Splits a text into characters, but has a token for `%,`, so that a comma is not the same after every value."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[str]:
        return re.findall("%,|.", text)

    def convert_ids_to_tokens(self, tokens: list[str]) -> list[str]:
        return tokens


def test_a_comma_is_a_token_of_its_own_after_every_value() -> None:
    text = "version: 1\nattributes: {material: {kind: multi_choice, values: [5%, wool]}}"
    tokens = spell_answer(MergingTokenizer(), "5%, wool", parse_schema(text, name="s")["material"])
    assert tokens == list("5%, wool")


def test_a_number_of_which_two_digits_are_one_token_is_refused() -> None:
    class Pairs(MergingTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool) -> list[str]:
            return re.findall("..?", text)

    with pytest.raises(InputError, match=r"splits '12' into \['12'\], not into one token per digit"):
        number_tokens(Pairs(), "12")


def test_special_tokens_bytes_and_line_ends_are_not_part_of_a_text(processor: PaliGemmaProcessor) -> None:
    tokenizer = processor.tokenizer
    pieces = TextPieces.from_tokenizer(tokenizer)
    allowed = {tokenizer.convert_ids_to_tokens(int(token)) for token in (pieces.lengths < 1000).nonzero()[:, 0]}
    assert {"a", "Z", "7", ".", "▁", "▁the"} <= allowed
    refused = {"<pad>", "<eos>", "<bos>", "<unk>", "<image>", "<loc0000>", "\n", "<0x0A>", "<0xC3>"}
    assert not refused & allowed
    the = tokenizer.convert_tokens_to_ids("▁the")
    assert (int(pieces.lengths[the]), bool(pieces.begins_with_space[the]), bool(pieces.ends_with_space[the])) == (
        4, True, False
    )  # fmt: skip


def test_letters_are_texts_of_one_character() -> None:
    tokenizer = make_letters_tokenizer()
    pieces = TextPieces.from_tokenizer(tokenizer)
    space = tokenizer.convert_tokens_to_ids("▁")
    assert (bool(pieces.begins_with_space[space]), bool(pieces.ends_with_space[space])) == (True, True)
    assert set(pieces.lengths[pieces.lengths < 1000].tolist()) == {1}
