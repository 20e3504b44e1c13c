"""The tokens of the parts of an answer, as in training, where each part has the same tokens in every answer."""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from product_vqa.errors import InputError
from product_vqa.task.attributes import Attribute
from product_vqa.task.kinds import SEPARATOR, MultiChoiceKind, PatternKind

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a piece that stands for a byte of what is not in the vocabulary
_TAG = re.compile(r"<[^<>\s]{1,20}>")
_NOT_TEXT = 10**6  # characters; more than any text may have
_REMEDY = "Answers cannot be constrained with it: turn `constrain` off"


def unit_tokens(tokenizer: Any, unit: str, *, numbers: Sequence[str]) -> list[int]:
    """The tokens of ` unit` after a number. Raises InputError unless they are the same for all of these numbers."""
    tails = []
    for number in numbers:
        tokens = number_tokens(tokenizer, number, after=f" {unit}")
        tails.append(tokens[len(number) :])
    if tails.count(tails[0]) != len(tails):
        raise InputError(
            f"the base model's tokenizer splits ' {unit}' depending on the number before it ({tails}). {_REMEDY}"
        )
    return tails[0]


def number_tokens(tokenizer: Any, number: str, *, after: str = "") -> list[int]:
    """The tokens of a number and what is after it. Raises InputError unless each digit is a token."""
    tokens = tokenizer.encode(f"{number}{after}", add_special_tokens=False)
    pieces = [token.replace("▁", " ") for token in tokenizer.convert_ids_to_tokens(tokens)]
    if _spell(pieces) != f"{number}{after}" or pieces[: len(number)] != list(number):
        raise InputError(
            f"the base model's tokenizer splits '{number}{after}' into {pieces}, not into one token per digit. "
            f"{_REMEDY}"
        )
    return list(tokens)


def value_tokens(tokenizer: Any, value: str, *, name: str) -> list[int]:
    """The tokens of a value of the attribute `name`. Raises InputError if it has characters without tokens."""
    tokens = tokenizer.encode(value, add_special_tokens=False)
    if _spell(tokenizer.convert_ids_to_tokens(tokens)) != value:
        raise InputError(
            f"attribute {name}: the base model's tokenizer has no tokens for all characters of {value!r}. Write the "
            "value with other characters, or use another base model"
        )
    return list(tokens)


def tail_tokens(tokenizer: Any, value: str, *, name: str) -> list[int]:
    """The tokens of `, value` after another value, whichever that is.

    They are those of the tokenizer unless it has a piece of the end of a value and a comma, such as `),`.
    """
    return value_tokens(tokenizer, f"{SEPARATOR}{value}", name=name)


def character_tokens(tokenizer: Any, characters: Iterable[str], *, name: str) -> dict[str, int]:
    """The token of each character. Raises InputError for one that has no token of its own."""
    tokens = {}
    for char in sorted(set(characters)):
        piece = "▁" if char == " " else char
        token = tokenizer.convert_tokens_to_ids(piece)
        if token is None or tokenizer.convert_ids_to_tokens(token) != piece:
            raise InputError(
                f"attribute {name}: the base model's tokenizer has no token for the character {char!r} alone, and the "
                "answers of a pattern are spelled. Remove it from the pattern, or use another base model"
            )
        tokens[char] = int(token)
    return tokens


def spell_answer(tokenizer: Any, answer: str, attribute: Attribute) -> list[int] | None:
    """The tokens of an answer to a pattern, one per character, or of several values.

    None for an answer of another kind, whose tokens are those into which the tokenizer splits it.
    """
    match attribute.kind:
        case PatternKind():
            tokens = character_tokens(tokenizer, answer, name=attribute.name)
            return [tokens[char] for char in answer]
        case MultiChoiceKind():
            first, *others = answer.split(SEPARATOR)
            tails = [tail_tokens(tokenizer, value, name=attribute.name) for value in others]
            return [*value_tokens(tokenizer, first, name=attribute.name), *itertools.chain(*tails)]
    return None


def _spell(pieces: Sequence[str]) -> str:
    """The text of some pieces."""
    found = [(_BYTE.fullmatch(piece), piece) for piece in pieces]
    content = [bytes.fromhex(byte[1]) if byte else piece.replace("▁", " ").encode() for byte, piece in found]
    return b"".join(content).decode(errors="replace")


@dataclass(frozen=True)
class TextPieces:
    """What each token adds to a free text: (V,) of its characters, and whether it begins or ends with a space.

    A token that is not part of a text of one line has more characters than any text may have.
    """

    lengths: torch.Tensor
    begins_with_space: torch.Tensor
    ends_with_space: torch.Tensor

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> "TextPieces":
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        texts = [
            "" if token in special or piece is None or _TAG.fullmatch(piece) else piece.replace("▁", " ")
            for token, piece in enumerate(pieces)
        ]
        return cls(
            torch.tensor([len(text) if _is_text(text) else _NOT_TEXT for text in texts]),
            torch.tensor([text.startswith(" ") for text in texts]),
            torch.tensor([text.endswith(" ") for text in texts]),
        )

    def to(self, device: torch.device) -> "TextPieces":
        return replace(
            self,
            lengths=self.lengths.to(device),
            begins_with_space=self.begins_with_space.to(device),
            ends_with_space=self.ends_with_space.to(device),
        )


def _is_text(text: str) -> bool:
    return bool(text) and text.isprintable() and "  " not in text and unicodedata.is_normalized("NFC", text)
