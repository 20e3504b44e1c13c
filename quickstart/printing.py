"""What product labels say: lines of print with the facts in them, at stated levels of difficulty.

    label = make_label(random.Random(7), level=STANDARD)

**Levels.** `plain`: one or two lines, two fonts, dark on light. `standard`: a brand and two to four lines, five fonts,
sizes and inks that differ from line to line, any colours, a third of the further lines about something else, grain,
JPEG. `hard`: also two fonts more, smaller print, up to 4 degrees askew, uneven light, stronger grain and compression,
several lengths in one line, and values in two units. `Level` has the numbers.

**Truth.** A picture holds at most one fact for an entity, so a question about it has one answer: the number as printed
and the full name of the unit as printed (`Net Wt 34 g` -> `34.0 gram`). Where a value is given in two units,
`16.9 FL OZ (500 mL)`, the first is the answer and the one in brackets is not. In `W 30 x H 20 in` the unit at the end
belongs to every number before it. A value stands bare only if its unit alone decides what it is (volts, watts and
volumes: `230V~`); lengths and weights always have a word or a letter beside them. What else is printed (lot numbers,
prices, hertz ...) has no unit in which any entity is answered.

**Held-out numbers.** A tenth of all numbers (`is_held_out`) is printed on test pictures and nowhere else, whatever
they stand for; so a right answer about a test picture was read and not remembered. Printed are 10..99 (held out: 15 of
90), 100..999 (94 of 900), 1000..9999 (910 of 9000), 0.1..99.9 (73 of 900), 0.01..9.99 (93 of 900); and 1..9, which are
on all pictures: who never saw a lone 3 would take it for the beginning of a longer number.

**Text** is printable ASCII without exception (`mcg` and `uL`, no Greek mu), at most 20 characters a line, and at least
16 px high (font size) in a picture of 224 px: 8 px where the model sees 112.
"""

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache

from product_vqa.task.quantity import Quantity, format_number
from product_vqa.task.schema import ENTITIES, UNITS_BY_ENTITY

MAX_LINE_CHARACTERS = 20


@dataclass(frozen=True)
class Level:
    """How difficult pictures are; `plain` unless said otherwise. `dataclasses.replace` makes steps between levels."""

    line_counts: tuple[int, ...] = (1, 2)  # lines beside the brand; each entry is equally likely
    brand_words: tuple[int, ...] = (0, 1)  # words in the brand's line, likewise; 0: no such line
    other_share: float = 0.2  # of the lines after the first: those that answer no question
    dimensions_share: float = 0.0  # of the pictures with a length: two or three in one line, `W 30 x H 20 in`
    dual_share: float = 0.0  # of the weights, volumes and single lengths: a second unit follows in brackets
    fonts: tuple[str, ...] = ("LiberationSans-Bold.ttf", "RobotoCondensed-Bold.ttf")
    font_sizes: tuple[int, int] = (22, 32)  # px; brands up to a quarter larger, long lines and full packs smaller
    own_style_share: float = 0.0  # of the lines: a font, a size, an ink of its own (drawn separately)
    is_coloured: bool = False  # any colours 110 and more apart in luminance, frames, bands; else dark on light
    max_degrees: float = 0.0  # rotation to either side
    max_noise: float = 0.0  # standard deviation of the grain, in steps of 255
    max_shade: float = 0.0  # uneven light: what it adds or takes in a corner, in steps of 255
    jpeg_quality: tuple[int, int] = (90, 95)


PLAIN = Level()
STANDARD = Level(
    line_counts=(2, 3, 3, 4),
    brand_words=(1, 1, 2),
    other_share=0.3,
    fonts=(*PLAIN.fonts, "OpenSans-Regular.ttf", "LiberationSerif-Bold.ttf", "DejaVuSansMono-Bold.ttf"),
    font_sizes=(20, 31),
    own_style_share=0.3,
    is_coloured=True,
    max_noise=12.0,
    jpeg_quality=(70, 95),
)
HARD = replace(
    STANDARD,
    line_counts=(3, 3, 4),
    other_share=0.35,
    dimensions_share=0.6,
    dual_share=0.4,
    fonts=(*STANDARD.fonts, "RobotoSlab-Bold.otf", "Cabin-Bold.otf"),
    font_sizes=(18, 28),
    max_degrees=4.0,
    max_noise=16.0,
    max_shade=25.0,
    jpeg_quality=(50, 90),
)
LEVELS = {"plain": PLAIN, "standard": STANDARD, "hard": HARD}


@dataclass(frozen=True)
class Fact:
    """One answer that is printed in a line."""

    entity_name: str
    quantity: Quantity
    key: str  # the word or letter that names it: `Net Wt`, `W`, `wide`; "" if bare
    number: str  # as printed
    unit: str  # as printed: `g`, `FL OZ`, `V~`
    position: int  # of the number's first character in the line

    @property
    def text(self) -> str:
        """The value in the print's own words, with one blank whatever the print has: `34 g`."""
        return f"{self.number} {self.unit}"


@dataclass(frozen=True)
class Line:
    text: str
    key: str = ""  # the words before the value, if any: `Net Wt`, `Lot`; "" in a brand and in `W 30 x H 20 in`
    facts: tuple[Fact, ...] = ()
    is_brand: bool = False


@dataclass(frozen=True)
class Label:
    """What is printed, from top to bottom."""

    lines: tuple[Line, ...]

    @property
    def brand(self) -> str:
        return next((line.text for line in self.lines if line.is_brand), "")

    @property
    def facts(self) -> dict[str, Fact]:
        """By entity: there is never a second one."""
        return {fact.entity_name: fact for line in self.lines for fact in line.facts}


_LENGTHS = {"width": "W", "height": "H", "depth": "D"}
KEYS_BY_ENTITY: dict[str, tuple[str, ...]] = {
    "width": ("Width", "WIDTH", "Width", "W"),
    "depth": ("Depth", "DEPTH", "Depth", "D"),
    "height": ("Height", "HEIGHT", "Height", "H"),
    "item_weight": ("Net Wt", "Net Wt.", "NET WT", "Net Weight", "Net", "Weight", "WEIGHT", "Wt"),
    "maximum_weight_recommendation": ("Max load", "MAX LOAD", "Max weight", "Load limit", "Holds", "max.", "Max"),
    "voltage": ("Voltage", "VOLTAGE", "Input", "Supply"),
    "wattage": ("Power", "POWER", "Wattage", "Output"),
    "item_volume": ("Volume", "VOLUME", "Vol", "Vol.", "Contents", "Capacity"),
}
_SUFFIXES_BY_ENTITY = {
    "width": ("wide",),
    "depth": ("deep",),
    "height": ("high", "tall"),
    "maximum_weight_recommendation": ("max", "max."),
}
_BARE = ("voltage", "wattage", "item_volume")

SPELLINGS_BY_UNIT: dict[str, tuple[str, ...]] = {
    "centimetre": ("cm", "CM"),
    "foot": ("ft", "FT", "feet"),
    "inch": ("in", "inch", "IN"),
    "metre": ("m", "metres"),
    "millimetre": ("mm", "MM"),
    "yard": ("yd", "yards"),
    "gram": ("g", "gm", "grams"),
    "kilogram": ("kg", "KG", "Kg"),
    "microgram": ("mcg", "MCG"),
    "milligram": ("mg", "MG"),
    "ounce": ("oz", "OZ"),
    "pound": ("lb", "lbs", "LB", "LBS"),
    "ton": ("t", "tons"),
    "kilovolt": ("kV", "KV"),
    "millivolt": ("mV",),
    "volt": ("V", "v", "V~", "VAC", "VDC", "volts"),
    "kilowatt": ("kW", "KW"),
    "watt": ("W", "w", "watts"),
    "centilitre": ("cl", "cL"),
    "cubic foot": ("cu ft", "cu. ft."),
    "cubic inch": ("cu in", "cu. in."),
    "cup": ("cups", "CUPS"),
    "decilitre": ("dl", "dL"),
    "fluid ounce": ("fl oz", "FL OZ", "fl. oz."),
    "gallon": ("gal", "GAL"),
    "imperial gallon": ("imp gal", "Imp. gal"),
    "litre": ("L", "L", "Ltr"),
    "microlitre": ("uL", "ul"),
    "millilitre": ("mL", "ml", "ML"),
    "pint": ("pt", "pints"),
    "quart": ("qt", "quarts"),
}
# How often a unit is printed, in percent of its entity: as in the real train.csv, and at least 2.
_LENGTH_SHARES = {"centimetre": 50, "inch": 34, "millimetre": 14}
_SHARES_BY_ENTITY = {
    "width": _LENGTH_SHARES,
    "depth": _LENGTH_SHARES,
    "height": _LENGTH_SHARES,
    "item_weight": {"gram": 62, "kilogram": 12, "ounce": 8, "pound": 8, "milligram": 8},
    "maximum_weight_recommendation": {"kilogram": 41, "pound": 31, "gram": 13, "ton": 7, "ounce": 4},
    "voltage": {"volt": 100},
    "wattage": {"watt": 98},
    "item_volume": {"millilitre": 47, "fluid ounce": 27, "litre": 12},
}
_SMALL_UNITS = {"gram", "microgram", "milligram", "millimetre", "volt", "millivolt", "watt", "millilitre"}
# Second units as packs give them: the unit, its size in the first, and the last decimal printed.
_SECOND_UNITS = {
    "ounce": ("gram", Decimal("28.3495"), Decimal(1)),
    "pound": ("kilogram", Decimal("0.453592"), Decimal("0.1")),
    "gram": ("ounce", Decimal("0.035274"), Decimal("0.1")),
    "kilogram": ("pound", Decimal("2.20462"), Decimal("0.1")),
    "fluid ounce": ("millilitre", Decimal("29.5735"), Decimal(1)),
    "millilitre": ("fluid ounce", Decimal("0.033814"), Decimal("0.1")),
    "gallon": ("litre", Decimal("3.78541"), Decimal("0.1")),
    "inch": ("centimetre", Decimal("2.54"), Decimal("0.1")),
    "foot": ("metre", Decimal("0.3048"), Decimal("0.1")),
}
# Lines that answer no question, by value: {n} whole number, {s} small one, {d} price, {a} capitals, {w} word.
_KEYS_BY_OTHER_VALUE = {
    "{n}": ("Lot", "LOT", "Art.", "Ref", "SKU", "No.", "Item", "Size", "Year", "Pieces", "Pack of", "{w}", "{w}"),
    "{a}{n}": ("Model", "Batch", "Code"),
    "{a}-{n}": ("Model", "Type"),
    "{w}": ("Type", "Colour", "Made in", "{w}"),
    "${d}": ("Price", "Only", ""),
    "{n} pcs": ("Qty", ""),
    "{n} Hz": ("Freq", ""),
    "{n} mAh": ("Battery", ""),
    "{n} rpm": ("Speed",),
    "{n} GB": ("Memory",),
    "{s} A": ("Fuse", ""),
    "{s} C": ("Temp",),
    "{s}+": ("Age",),
    "{s}": ("SPF",),
    "{s}% {w}": ("",),
}
_OTHERS = tuple((key, value) for value, keys in _KEYS_BY_OTHER_VALUE.items() for key in keys)
# Letters of model and lot numbers: none that could be taken for a digit, a unit or a dimension.
_CODE_LETTERS = "AEKNPRTXYZ"

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
# Sizes of numbers, as often as they are listed: few grams have two decimals, few tons have three digits.
_SIZES_SMALL_UNIT = ("9", "99", "99", "999", "999", "999", "9999", "round", "round", "9.9", "9.99")
_SIZES_LARGE_UNIT = ("9", "99", "99", "99", "999", "round", "9.9", "9.9", "9.9", "9.99")
_SIZES_WHOLE = ("9", "99", "99", "999", "999", "9999", "9999")


def is_held_out(number: str) -> bool:
    """Whether a number, as printed, belongs to the tenth that only test pictures show: one of one digit never does."""
    return len(number) > 1 and zlib.crc32(number.encode()) % 10 == 1


def may_show(number: str, *, held_out: bool) -> bool:
    """Whether a picture with held-out numbers, or one without, may show this number."""
    return len(number) == 1 or is_held_out(number) == held_out


def numbers_in(text: str) -> list[str]:
    """All numbers in a printed text: `AX-340` has one, `16.9 FL OZ (500 mL)` two."""
    return _NUMBER.findall(text)


@cache
def all_numbers(size: str, held_out: bool) -> tuple[str, ...]:
    numbers = {
        "9": lambda: map(str, range(1, 10)),
        "99": lambda: map(str, range(10, 100)),
        "999": lambda: map(str, range(100, 1000)),
        "9999": lambda: map(str, range(1000, 10000)),
        "round": lambda: map(str, [*range(10, 1000, 10), *range(1000, 10000, 500)]),
        "9.9": lambda: (f"{whole}.{tenth}" for whole in range(100) for tenth in range(1, 10)),
        "9.99": lambda: (f"{n // 100}.{n % 100:02}" for n in range(1, 1000) if n % 10),
    }[size]()
    return tuple(number for number in numbers if may_show(number, held_out=held_out))


def draw_number(rng: random.Random, sizes: Sequence[str], *, held_out: bool) -> str:
    return rng.choice(all_numbers(rng.choice(sizes), held_out))


def _sizes(unit: str) -> Sequence[str]:
    return _SIZES_SMALL_UNIT if unit in _SMALL_UNITS else _SIZES_LARGE_UNIT


def _word(rng: random.Random) -> str:
    """A word that nobody has seen: consonants and vowels in turn."""
    letters = ("bcdfghjklmnprstvwz", "aeiou")
    start = rng.randrange(2)
    word = "".join(rng.choice(letters[(start + place) % 2]) for place in range(rng.randint(3, 8)))
    return rng.choice((word.upper(), word.capitalize(), word.capitalize(), word))


def _unit(rng: random.Random, entity_name: str) -> str:
    units, shares = UNITS_BY_ENTITY[entity_name], _SHARES_BY_ENTITY[entity_name]
    return rng.choices(units, [shares.get(unit, 2) for unit in units])[0]


def _spelling(rng: random.Random, unit: str, *, number: str) -> str:
    spelling = rng.choice(SPELLINGS_BY_UNIT[unit])
    return spelling.removesuffix("s") if number == "1" else spelling


def _gap(rng: random.Random, unit: str) -> str:
    """Between number and unit. `5lb` and `16OZ` would read as 51 and 160."""
    return " " if unit[0] in "lO" else rng.choice((" ", " ", ""))


def _second_value(rng: random.Random, quantity: Quantity, *, held_out: bool) -> str | None:
    """The same quantity in another unit, if that number is printed on such pictures at all."""
    unit, factor, step = _SECOND_UNITS[quantity.unit]
    number = format_number((quantity.number * factor).quantize(step)).removesuffix(".0")
    if number == "0" or not may_show(number, held_out=held_out):
        return None
    return f"{number} {_spelling(rng, unit, number=number)}"


def _fact_line(rng: random.Random, entity_name: str, *, level: Level, held_out: bool) -> Line:
    is_dual = entity_name not in ("voltage", "wattage") and rng.random() < level.dual_share
    while True:
        unit = _unit(rng, entity_name)
        if is_dual and unit not in _SECOND_UNITS:
            continue
        number = draw_number(rng, _sizes(unit), held_out=held_out)
        quantity, printed = Quantity(Decimal(number), unit), _spelling(rng, unit, number=number)
        key = before = after = ""
        if entity_name in _BARE and rng.random() < 0.4:
            pass
        elif entity_name in _SUFFIXES_BY_ENTITY and rng.random() < 0.25:
            key = rng.choice(_SUFFIXES_BY_ENTITY[entity_name])
            after = f" {key}"
        else:
            key = rng.choice(KEYS_BY_ENTITY[entity_name])
            before = key + rng.choice((" ", " ", ": "))
        value = f"{number}{_gap(rng, printed)}{printed}"
        if is_dual:
            second = _second_value(rng, quantity, held_out=held_out)
            if second is None:
                continue
            value += f" ({second})"
        text = before + value + after
        if len(text) <= MAX_LINE_CHARACTERS:
            fact = Fact(entity_name, quantity, key=key, number=number, unit=printed, position=len(before))
            return Line(text, key=key if before else "", facts=(fact,))


def _dimensions_line(rng: random.Random, entity_names: Sequence[str], *, held_out: bool) -> Line:
    """`W 30 x H 20 in`: the numbers in the order of `entity_names`, one unit for all."""
    while True:
        unit = _unit(rng, entity_names[0])
        printed = rng.choice(SPELLINGS_BY_UNIT[unit])
        gap, times = rng.choice((" ", "")), rng.choice((" x ", " x ", " X "))
        text, facts = "", []
        for name in entity_names:
            number = draw_number(rng, ("9", "99", "99", "9.9"), held_out=held_out)
            text += f"{times if text else ''}{_LENGTHS[name]}{gap}"
            quantity = Quantity(Decimal(number), unit)
            facts.append(Fact(name, quantity, key=_LENGTHS[name], number=number, unit=printed, position=len(text)))
            text += number
        text += f" {printed}"
        if len(text) <= MAX_LINE_CHARACTERS:
            return Line(text, facts=tuple(facts))


def _other_line(rng: random.Random, *, held_out: bool) -> Line:
    while True:
        templates = rng.choice(_OTHERS)
        key, value = (
            template.format(
                n=draw_number(rng, _SIZES_WHOLE, held_out=held_out),
                s=draw_number(rng, ("9", "99"), held_out=held_out),
                d=draw_number(rng, ("9.99",), held_out=held_out),
                a="".join(rng.choice(_CODE_LETTERS) for _ in range(rng.randint(1, 2))),
                w=_word(rng),
            )
            for template in templates
        )
        text = f"{key}{rng.choice((' ', ' ', ': ')) if key else ''}{value}"
        if len(text) <= MAX_LINE_CHARACTERS:
            return Line(text, key=key)


def make_label(rng: random.Random, *, level: Level, entity_names: Sequence[str] = (), held_out: bool = False) -> Label:
    """What a pack says: facts about each of `entity_names` (at least one of any) and, as it comes, about others.

    With `held_out`, every number of several digits on it is held out, and otherwise none is. There are as many lines
    as the level has, and more only if `entity_names` need them.
    """
    needed = max(1, len(entity_names))
    line_count = max(needed, rng.choice(level.line_counts))
    other_count = sum(rng.random() < level.other_share for _ in range(line_count - needed))
    unasked = [name for name in ENTITIES if name not in entity_names]
    facts_about = [*entity_names, *rng.sample(unasked, line_count - other_count - len(entity_names))]

    lines = [_other_line(rng, held_out=held_out) for _ in range(other_count)]
    lengths = [name for name in facts_about if name in _LENGTHS]
    if lengths and rng.random() < level.dimensions_share:
        absent = [name for name in _LENGTHS if name not in lengths]
        count = max(len(lengths), rng.choice((2, 2, 3)))
        together = [*lengths, *rng.sample(absent, count - len(lengths))]
        rng.shuffle(together)
        lines.append(_dimensions_line(rng, together, held_out=held_out))
        # Others take the lines of the lengths that share one.
        others = [name for name in ENTITIES if name not in _LENGTHS and name not in facts_about]
        facts_about = [name for name in facts_about if name not in lengths]
        facts_about += rng.sample(others, min(len(others), len(lengths) - 1))
    lines += [_fact_line(rng, name, level=level, held_out=held_out) for name in facts_about]
    rng.shuffle(lines)
    if word_count := rng.choice(level.brand_words):
        brand = Line(" ".join(_word(rng) for _ in range(word_count)), is_brand=True)
        lines.insert(0 if rng.random() < 0.8 else len(lines), brand)
    return Label(tuple(lines))
