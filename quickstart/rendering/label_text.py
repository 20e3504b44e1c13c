"""What product labels print: lines of text with facts in them, at a given level of difficulty.

    label = make_label(random.Random(7), level=STANDARD)

**Reference answers.** A label holds at most one fact for an entity, so a question about it has one answer: the number
as printed and the full name of the printed unit (`Net Wt 34 g` -> `34.0 gram`). Where a value has two units,
`16.9 FL OZ (500 mL)`, the first is the answer and the one in brackets is not. In `W 30 x H 20 in` the unit at the end
belongs to all numbers before it. A value is printed without a key only if its unit alone identifies the entity (volts,
watts and volumes: `230V~`); lengths and weights always have a word or a letter next to them. Everything else that is
printed (lot numbers, prices, hertz and so on) has no unit of any entity.

**Text** is always printable ASCII (`mcg` and `uL`, no Greek mu), at most 20 characters per line, and at least 16 px
high (font size) in an image of 224 px: 8 px at the model's 112 px.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from product_vqa.task.numbers import format_number
from product_vqa.task.quantity import Quantity
from product_vqa.task.schema import ENTITIES, UNITS_BY_ENTITY
from quickstart.rendering.levels import Level
from quickstart.rendering.printed_numbers import draw_number, may_show

MAX_LINE_CHARACTERS = 20


@dataclass(frozen=True)
class Fact:
    """The value of an entity that is printed in a line."""

    entity_name: str
    quantity: Quantity
    key: str  # the word or letter that names it: `Net Wt`, `W`, `wide`; "" if there is none
    number: str  # as printed
    unit: str  # as printed: `g`, `FL OZ`, `V~`
    position: int  # index of the number's first character in the line

    @property
    def text(self) -> str:
        """The printed number and unit with one space between them, whatever the line has: `34 g`."""
        return f"{self.number} {self.unit}"


@dataclass(frozen=True)
class Line:
    text: str
    key: str = ""  # the words before the value: `Net Wt`, `Lot`; "" in a brand and in `W 30 x H 20 in`
    facts: tuple[Fact, ...] = ()
    is_brand: bool = False
    is_continued: bool = False  # it belongs to the line above: the same style, directly below


@dataclass(frozen=True)
class Label:
    """The printed lines, from top to bottom."""

    lines: tuple[Line, ...]

    @property
    def facts(self) -> dict[str, Fact]:
        """The only fact of each entity that the label shows, by entity name."""
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
_ENTITIES_WITHOUT_KEY = ("voltage", "wattage", "item_volume")  # their units identify them

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
# How often a unit is printed, in percent of its entity: as in the challenge's train.csv, and at least 2.
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
# Second units as on real packs: the unit, how many of it are in one of the first, and the precision that is printed.
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
# Lines that answer no question, by value: {n} number, {s} small number, {d} price, {a} capitals, {w} word.
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
# Letters of model and lot numbers: none that looks like a digit, a unit or a dimension.
CODE_LETTERS = "AEKNPRTXYZ"

# Sizes of numbers. Each entry is equally likely: few grams have two decimals, few tons have three digits.
_SIZES_SMALL_UNIT = ("9", "99", "99", "999", "999", "999", "9999", "round", "round", "9.9", "9.99")
_SIZES_LARGE_UNIT = ("9", "99", "99", "99", "999", "round", "9.9", "9.9", "9.9", "9.99")
_SIZES_WHOLE = ("9", "99", "99", "999", "999", "9999", "9999")


def _sizes(unit: str) -> Sequence[str]:
    return _SIZES_SMALL_UNIT if unit in _SMALL_UNITS else _SIZES_LARGE_UNIT


def draw_word(rng: random.Random) -> str:
    """An invented word: consonants and vowels in turn."""
    letters = ("bcdfghjklmnprstvwz", "aeiou")
    start = rng.randrange(2)
    word = "".join(rng.choice(letters[(start + index) % 2]) for index in range(rng.randint(3, 8)))
    return rng.choice((word.upper(), word.capitalize(), word.capitalize(), word))


def _unit(rng: random.Random, entity_name: str) -> str:
    units, shares = UNITS_BY_ENTITY[entity_name], _SHARES_BY_ENTITY[entity_name]
    return rng.choices(units, [shares.get(unit, 2) for unit in units])[0]


def _spelling(rng: random.Random, unit: str, *, number: str) -> str:
    spelling = rng.choice(SPELLINGS_BY_UNIT[unit])
    return spelling.removesuffix("s") if number == "1" else spelling


def draw_gap(rng: random.Random, unit: str) -> str:
    """What separates number and unit: always a space where `5lb` and `16OZ` would read as 51 and 160."""
    return " " if unit[0] in "lO" else rng.choice((" ", " ", ""))


def _second_value(rng: random.Random, quantity: Quantity, *, held_out: bool) -> str | None:
    """The same quantity in another unit, or None if such images may not show that number."""
    unit, factor, step = _SECOND_UNITS[quantity.unit]
    number = format_number((quantity.number * factor).quantize(step)).removesuffix(".0")
    if number == "0" or not may_show(number, held_out=held_out):
        return None
    return f"{number} {_spelling(rng, unit, number=number)}"


def _key(rng: random.Random, entity_name: str) -> tuple[str, str, str]:
    """A key, and the texts before and after the value that contain it."""
    if entity_name in _ENTITIES_WITHOUT_KEY and rng.random() < 0.4:
        return "", "", ""
    if entity_name in _SUFFIXES_BY_ENTITY and rng.random() < 0.25:
        suffix = rng.choice(_SUFFIXES_BY_ENTITY[entity_name])
        return suffix, "", f" {suffix}"
    key = rng.choice(KEYS_BY_ENTITY[entity_name])
    return key, key + rng.choice((" ", " ", ": ")), ""


def _fact_line(rng: random.Random, entity_name: str, *, level: Level, held_out: bool) -> Line:
    """A line with one fact, drawn until it is short enough."""
    is_dual = entity_name not in ("voltage", "wattage") and rng.random() < level.dual_share
    while True:
        unit = _unit(rng, entity_name)
        if is_dual and unit not in _SECOND_UNITS:
            continue
        number = draw_number(rng, _sizes(unit), held_out=held_out)
        quantity = Quantity(Decimal(number), unit)
        printed = _spelling(rng, unit, number=number)
        key, before, after = _key(rng, entity_name)
        value = f"{number}{draw_gap(rng, printed)}{printed}"
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
    """A line like `W 30 x H 20 in`: the numbers in the order of `entity_names`, with one unit for all."""
    while True:
        unit = _unit(rng, entity_names[0])
        printed = rng.choice(SPELLINGS_BY_UNIT[unit])
        gap = rng.choice((" ", ""))
        times = rng.choice((" x ", " x ", " X "))
        text = ""
        facts: list[Fact] = []
        for name in entity_names:
            number = draw_number(rng, ("9", "99", "99", "9.9"), held_out=held_out)
            if facts:
                text += times
            text += f"{_LENGTHS[name]}{gap}"
            quantity = Quantity(Decimal(number), unit)
            facts.append(Fact(name, quantity, key=_LENGTHS[name], number=number, unit=printed, position=len(text)))
            text += number
        text += f" {printed}"
        if len(text) <= MAX_LINE_CHARACTERS:
            return Line(text, facts=tuple(facts))


def _other_line(rng: random.Random, *, held_out: bool) -> Line:
    """A line without facts, such as `Lot: AX-340`."""
    while True:
        templates = rng.choice(_OTHERS)
        key, value = (
            template.format(
                n=draw_number(rng, _SIZES_WHOLE, held_out=held_out),
                s=draw_number(rng, ("9", "99"), held_out=held_out),
                d=draw_number(rng, ("9.99",), held_out=held_out),
                a="".join(rng.choice(CODE_LETTERS) for _ in range(rng.randint(1, 2))),
                w=draw_word(rng),
            )
            for template in templates
        )
        separator = rng.choice((" ", " ", ": ")) if key else ""
        text = key + separator + value
        if len(text) <= MAX_LINE_CHARACTERS:
            return Line(text, key=key)


def make_label(rng: random.Random, *, level: Level, entity_names: Sequence[str] = (), held_out: bool = False) -> Label:
    """A random label with a fact about each of `entity_names`, and with facts about random other entities.

    There is at least one fact. With `held_out` every number of several digits is held out; without it none is. The
    number of lines is one of the level's, or larger if `entity_names` need more.
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
        # Other entities take the lines of the lengths that now share one.
        others = [name for name in ENTITIES if name not in _LENGTHS and name not in facts_about]
        facts_about = [name for name in facts_about if name not in lengths]
        facts_about += rng.sample(others, min(len(others), len(lengths) - 1))
    lines += [_fact_line(rng, name, level=level, held_out=held_out) for name in facts_about]
    rng.shuffle(lines)
    word_count = rng.choice(level.brand_words)
    if word_count:
        brand = Line(" ".join(draw_word(rng) for _ in range(word_count)), is_brand=True)
        lines.insert(0 if rng.random() < 0.8 else len(lines), brand)
    return Label(tuple(lines))
