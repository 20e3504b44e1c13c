"""Labels about invented attributes: `Frostel: XK-93/B`. Pretraining learns from them to read any key and value.

    label = make_general_label(random.Random(7), level=STANDARD)
    label.values  # {"Frostel": "XK-93/B", ...}

A value is of one of these kinds: words, a list of words, a code with any of the printable characters, a number with an
invented unit, a number, or one or two letters. No key and no value is taken from a schema. A tenth of the numbers,
codes and texts is on test images only (`quickstart.rendering.printed_numbers`).
"""

import random
import string
from collections.abc import Mapping
from dataclasses import dataclass, field

from quickstart.rendering.drawing import fits_line, wrap
from quickstart.rendering.label_text import Label, Line, draw_gap
from quickstart.rendering.levels import Level
from quickstart.rendering.printed_numbers import draw_number, is_held_out, numbers_in

_MAX_KEY_CHARACTERS = 13
_MAX_VALUE_LINES = 3
_MAX_LINES = 6  # besides the brand
# The parts of a syllable. One that is listed twice is twice as likely; numbers are those of empty parts.
_ONSETS = (
    "b c d f g h j k l m n p qu r s t v w x y z b c d f g l m n p r s t bl br ch cl cr dr fl fr gl gr ph pl pr sc sh "
    "sk sl sm sn sp st str sw th tr tw",
    3,
)
_VOWELS = ("a e i o u a e i o u a e i o u ai ea ee ie io oo ou y", 0)
_CODAS = ("n r s t l m d k p x ck ff ng nt ll rt sh ss st", 14)
_SYLLABLE = [texts.split() + [""] * empty for texts, empty in (_ONSETS, _VOWELS, _CODAS)]
_SEPARATORS = ("-",) * 6 + ("/",) * 3 + (".",) * 2 + ("",) * 4 + tuple(string.punctuation)
_LIST_SEPARATORS = (", ", ", ", ", ", "/", " & ", "; ", " + ", "|")
_SIZES = ("9", "99", "99", "999", "999", "9999", "9.9", "9.9", "9.99")
_WEIGHTS_BY_KIND = {"words": 26, "list": 16, "code": 28, "quantity": 16, "number": 7, "letters": 7}
_WRAPPED_SHARE = 0.1  # of the values that would fit behind their key


@dataclass(frozen=True)
class GeneralLabel(Label):
    """A label whose lines are about invented attributes."""

    values: Mapping[str, str] = field(
        default_factory=dict
    )  # by key; a number and its unit have one space between them


def make_general_label(rng: random.Random, *, level: Level, held_out: bool = False) -> GeneralLabel:
    """A random label with at least one value.

    With `held_out` every number, code and text of several characters is held out; without it none is.
    """
    blocks: list[list[Line]] = []
    values: dict[str, str] = {}
    for _ in range(rng.choice(level.line_counts)):
        key = _draw_key(rng, held_out=held_out)
        printed, value = _draw_value(rng, held_out=held_out)
        block = _lines(rng, key, printed)
        if key.lower() in map(str.lower, values) or sum(map(len, [*blocks, block])) > _MAX_LINES:
            continue
        blocks.append(block)
        values[key] = value
    rng.shuffle(blocks)
    lines = [line for block in blocks for line in block]
    word_count = rng.choice(level.brand_words)
    if word_count:
        brand = Line(" ".join(_word(rng) for _ in range(word_count))[:20].strip(), is_brand=True)
        lines.insert(0 if rng.random() < 0.8 else len(lines), brand)
    return GeneralLabel(tuple(lines), values)


def draw_absent_key(rng: random.Random, label: GeneralLabel) -> str:
    """A key that the label does not have."""
    present = {key.lower() for key in label.values}
    while True:
        key = _draw_key(rng, held_out=False)
        if key.lower() not in present:
            return key


def _lines(rng: random.Random, key: str, printed: str) -> list[Line]:
    """The key and the value in one line, or the key alone and the value on the lines after it."""
    whole = f"{key}{rng.choice((' ', ' ', ': '))}{printed}"
    if fits_line(whole) and rng.random() >= _WRAPPED_SHARE:
        return [Line(whole, key=key)]
    return [Line(text, is_continued=number > 0) for number, text in enumerate([f"{key}:", *wrap(printed)])]


def _draw_key(rng: random.Random, *, held_out: bool) -> str:
    while True:
        key = " ".join(_word(rng, cased=False) for _ in range(rng.choice((1, 1, 1, 2))))
        key = rng.choice((key.capitalize(), key.capitalize(), key.title(), key.upper()))
        if len(key) <= _MAX_KEY_CHARACTERS and fits_line(f"{key}:") and is_held_out(key) == held_out:
            return key


def _draw_value(rng: random.Random, *, held_out: bool) -> tuple[str, str]:
    """The value as printed, and as the answer to a question about it."""
    while True:
        (kind,) = rng.choices(list(_WEIGHTS_BY_KIND), list(_WEIGHTS_BY_KIND.values()))
        printed, value = _draw_value_of(kind, rng, held_out=held_out)
        lines = wrap(printed)
        fits = printed == " ".join(lines) and len(lines) <= _MAX_VALUE_LINES and all(map(fits_line, lines))
        if fits and (kind in ("quantity", "number", "letters") or _may_show(printed, held_out=held_out)):
            return printed, value


def _may_show(text: str, *, held_out: bool) -> bool:
    if held_out:
        return is_held_out(text)
    return not any(map(is_held_out, (text, *numbers_in(text))))


def _draw_value_of(kind: str, rng: random.Random, *, held_out: bool) -> tuple[str, str]:
    match kind:
        case "words":
            text = " ".join(_word(rng) for _ in range(rng.choice((1, 1, 1, 2))))
        case "list":
            case = rng.choice((str.lower, str.capitalize, str.upper))
            text = rng.choice(_LIST_SEPARATORS).join(
                case(_word(rng, cased=False)) for _ in range(rng.choice((2, 2, 3)))
            )
        case "code":
            text = _code(rng)
        case "letters":
            text = "".join(rng.choices(string.ascii_uppercase, k=rng.choice((1, 2, 2, 3))))
            text = text if rng.random() < 0.7 else text.lower()
        case "number":
            text = draw_number(rng, _SIZES, held_out=held_out)
        case _:
            number = draw_number(rng, _SIZES, held_out=held_out)
            unit = "".join(rng.choices(string.ascii_letters, k=rng.choice((1, 2, 2, 3, 3, 4))))
            unit = rng.choice((unit, unit, unit.lower(), "%"))
            return f"{number}{draw_gap(rng, unit)}{unit}", f"{number} {unit}"
    return text, text


def _code(rng: random.Random) -> str:
    """Capitals and digits in turn, mostly with a separator between them: `XK-93/B`."""
    is_digits = rng.random() < 0.35
    separator = rng.choice(_SEPARATORS)
    text = ""
    for index in range(rng.choice((2, 2, 3, 3, 4))):
        alphabet = string.digits if is_digits else string.ascii_uppercase
        if index:
            text += separator
            separator = separator if rng.random() < 0.6 else rng.choice(_SEPARATORS)
        text += "".join(rng.choices(alphabet, k=rng.randint(1, 4)))
        is_digits = not is_digits if rng.random() < 0.85 else is_digits
    return text if rng.random() < 0.85 else text.lower()


def _word(rng: random.Random, *, cased: bool = True) -> str:
    """An invented word that looks like one of a European language."""
    word = "".join(rng.choice(parts) for _ in range(rng.choice((1, 1, 2, 2))) for parts in _SYLLABLE)[:9]
    if not cased:
        return word
    return rng.choice((word.upper(), word.capitalize(), word.capitalize(), word, word))
