"""Which texts a schema may have: what is asked, answered and printed is seen as it is, and is the same to everyone."""

import re
import unicodedata

_TOKEN = re.compile(r"<[^<>\s]{1,20}>")  # `<image>`, `<eos>`: a tokenizer may read it as a token of its own
# Printable to Python, but drawn as nothing: fillers, joiners, variation selectors and the empty Braille pattern.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")  # whose letters look alike
_SYMBOLS = "\u00b5\u03bc\u03a9"  # Greek letters of units: micro (twice) and ohm


def looks_like_token(text: str) -> bool:
    """Whether a tokenizer may read a part of the text as a token of its own, such as `<image>`."""
    return _TOKEN.search(text) is not None


def has_invisible(text: str) -> bool:
    """Whether a character is drawn as nothing, so that two texts could look the same."""
    return _INVISIBLE.search(text) is not None


def text_problem(text: str, *, max_chars: int) -> tuple[str, str] | None:
    """What is wrong with a text of a schema, and the remedy; None if nothing is."""
    if not text:
        return "is empty", "write it, or remove its line"
    if len(text) > max_chars:
        return f"has {len(text)} characters, more than {max_chars}", "shorten it"
    if text != " ".join(text.split()):
        return "begins or ends with a space, or has two in a row", "write it on one line with single spaces"
    if not text.isprintable() or has_invisible(text):
        char = next(char for char in text if not char.isprintable() or has_invisible(char))
        return f"has the character U+{ord(char):04X}, which cannot be seen", "remove it"
    if text != unicodedata.normalize("NFC", text):
        return "has characters that are not composed", "write it in Unicode's form NFC, as a keyboard does"
    if is_mark(text[0]):
        return f"begins with the combining character U+{ord(text[0]):04X}", "remove it"
    if looks_like_token(text):
        return "looks like a token of the model", "write it without < and >"
    for word in re.split(r"[ _]", text):
        if len(scripts := _scripts_of(word)) > 1:
            return f"mixes {' and '.join(scripts)} letters in a word", "type it again in one script"
    return None


def is_mark(char: str) -> bool:
    """Whether a character combines with the one before it, as vowels do in Indic scripts."""
    return unicodedata.category(char).startswith("M")


def _scripts_of(word: str) -> list[str]:
    names = [unicodedata.name(char, "") for char in word if char.isalpha() and char not in _SYMBOLS]
    return [script.title() for script in _SCRIPTS if any(name.startswith(script) for name in names)]
