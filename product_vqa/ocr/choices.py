"""Finds the values of a choice in lines of text: `Colour: NAVY blue` -> `navy blue`.

Words are compared, so that `wool` is not in `woollen`, and the longest text wins: `dark blue` is not `blue`, too.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from product_vqa.ocr.geometry import Line
from product_vqa.task.kinds import key_of

MAX_WORDS = 100  # of a line: its 200 characters have no more, but for signs that stand for several words

Words = tuple[str, ...]


def find_values(lines: Sequence[Line], values: Mapping[str, tuple[str, ...]]) -> dict[Line, list[str]]:
    """The lines that show values of a choice, each with these values; `values` are those of the kind."""
    by_words: defaultdict[Words, list[str]] = defaultdict(list)
    for value, synonyms in values.items():
        for words in {_words(text) for text in (value, *synonyms)} - {()}:
            by_words[words].append(value)
    lengths = sorted({len(words) for words in by_words}, reverse=True)
    return {line: found for line in lines if (found := _find(_words(line.text), by_words, lengths))}


def _find(words: Words, by_words: Mapping[Words, list[str]], lengths: Sequence[int]) -> list[str]:
    found: dict[str, None] = {}
    start = 0
    while start < len(words):
        length = next((length for length in lengths if words[start : start + length] in by_words), 0)
        found |= dict.fromkeys(by_words.get(words[start : start + length], ()))
        start += length or 1
    return list(found)


def _words(text: str) -> Words:
    return tuple(re.findall(r"[^\W_]+", key_of(text))[:MAX_WORDS])
