"""Product labels, rendered, with the truth about what is printed on them.

    label = make_label(random.Random(7), level=STANDARD)     what is printed: lines, and the facts in them
    image, characters = draw(label, random.Random(7), level=STANDARD)      224 x 224 px, and where each character is

The same seed gives the same pixels on every machine (with one version of Pillow, which brings its own FreeType).

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

import csv
import hashlib
import io
import math
import random
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from statistics import NormalDist

from PIL import Image, ImageChops, ImageDraw, ImageFont

from product_vqa.entities import ENTITIES, UNITS_BY_ENTITY
from product_vqa.prompt import format_prompt
from product_vqa.quantity import LabelForm, Quantity, format_number, format_quantity

SIZE = 224  # px, both sides
MIN_FONT_SIZE = 16
MAX_LINE_CHARACTERS = 20
FONT_FOLDER = Path(__file__).parent / "fonts"
# In it, 20 capitals of the smallest size fit into any picture: the resort of a line too wide for its own font.
NARROW_FONT = "RobotoCondensed-Bold.ttf"


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


@dataclass(frozen=True, slots=True)
class Character:
    """A printed character other than the blank. `label.lines[line].text[position] == char`."""

    char: str
    x: float  # px from the left, the middle of its cell
    y: float  # px from the top, half-way between baseline and capital height
    line: int
    position: int
    width: float  # px, of its cell


# ---- what is printed

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
def _numbers(size: str, held_out: bool) -> tuple[str, ...]:
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


def _number(rng: random.Random, sizes: Sequence[str], *, held_out: bool) -> str:
    return rng.choice(_numbers(rng.choice(sizes), held_out))


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
        number = _number(rng, _sizes(unit), held_out=held_out)
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
            number = _number(rng, ("9", "99", "99", "9.9"), held_out=held_out)
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
                n=_number(rng, _SIZES_WHOLE, held_out=held_out),
                s=_number(rng, ("9", "99"), held_out=held_out),
                d=_number(rng, ("9.99",), held_out=held_out),
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


# ---- how it is drawn


_OVERHANG = 3  # px that a glyph may reach out of its cell


class _Face:
    """A font at a size. Glyphs are drawn once and then pasted: a third of the time, and no kerning."""

    def __init__(self, font_file: str, size: int) -> None:
        self.font = ImageFont.truetype(FONT_FOLDER / font_file, size, layout_engine=ImageFont.Layout.BASIC)
        self.advances = {chr(code): round(self.font.getlength(chr(code))) for code in range(32, 127)}
        _, self.top, _, self.bottom = (int(side) for side in self.font.getbbox("(Hgj$|"))  # of all ink
        _, capital, _, baseline = self.font.getbbox("H")
        self.middle = (capital + baseline) / 2 - self.top  # of capitals, below the top of all ink
        self._glyphs: dict[str, Image.Image] = {}

    def glyph(self, char: str) -> Image.Image:
        """Its ink as a mask, from `_OVERHANG` left of its cell and from the top of all ink."""
        if char not in self._glyphs:
            mask = Image.new("L", (self.advances[char] + 2 * _OVERHANG, self.bottom - self.top))
            ImageDraw.Draw(mask).text((_OVERHANG, -self.top), char, font=self.font, fill=255)
            self._glyphs[char] = mask
        return self._glyphs[char]


@cache
def _face(font_file: str, size: int) -> _Face:
    return _Face(font_file, size)


Colour = tuple[int, int, int]


@dataclass
class _Style:
    font_file: str
    size: int
    ink: Colour

    @property
    def face(self) -> _Face:
        return _face(self.font_file, self.size)

    @property
    def height(self) -> int:
        return self.face.bottom - self.face.top

    def width(self, text: str) -> int:
        advances = self.face.advances
        return sum(advances[char] for char in text)

    def shrink(self, text: str, width: float) -> None:
        """Make the text fit, in another font if need be."""
        while (drawn := self.width(text)) > width:
            if self.size > MIN_FONT_SIZE:
                self.size = max(MIN_FONT_SIZE, min(self.size - 1, int(self.size * width / drawn)))
            else:
                assert self.font_file != NARROW_FONT, text
                self.font_file = NARROW_FONT


def _luminance(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _colour(rng: random.Random, low: int = 0, high: int = 255) -> Colour:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _ink(rng: random.Random, paper: Colour, *, level: Level) -> Colour:
    if not level.is_coloured:
        return _colour(rng, 0, 40)
    for _ in range(20):
        colour = _colour(rng)
        if abs(_luminance(colour) - _luminance(paper)) > 110:
            return colour
    return (0, 0, 0) if _luminance(paper) > 127 else (255, 255, 255)


def _styles(rng: random.Random, label: Label, paper: Colour, width: float, *, level: Level) -> list[_Style]:
    low, high = level.font_sizes
    common = _Style(rng.choice(level.fonts), rng.randint(low, high), _ink(rng, paper, level=level))
    styles = []
    for line in label.lines:
        style = replace(common)
        if rng.random() < level.own_style_share or line.is_brand:
            style.font_file = rng.choice(level.fonts)
        if line.is_brand:
            style.size = rng.randint(low, high * 5 // 4)
        elif rng.random() < level.own_style_share:
            style.size = rng.randint(low, high)
        if rng.random() < level.own_style_share:
            style.ink = _ink(rng, paper, level=level)
        style.shrink(line.text, width)
        styles.append(style)
    return styles


_LINE_GAP = 4  # px, at least


def draw(label: Label, rng: random.Random, *, level: Level) -> tuple[Image.Image, tuple[Character, ...]]:
    """The pack in the picture (RGB, 224 x 224), and its characters, line after line, without blanks."""
    degrees = rng.uniform(-level.max_degrees, level.max_degrees)
    ground = paper = _colour(rng, 215, 255)
    if level.is_coloured:
        grey = rng.randint(200, 255)
        ground = (grey, grey, grey) if rng.random() < 0.5 else _colour(rng)
        paper = _colour(rng, 215, 255) if rng.random() < 0.3 else _colour(rng)
    left, top, right, bottom = (rng.randint(0, 8) for _ in range(4))
    right, bottom = SIZE - 1 - right, SIZE - 1 - bottom
    image = Image.new("RGB", (SIZE, SIZE), ground)
    canvas = ImageDraw.Draw(image)
    outline = _colour(rng) if level.is_coloured and rng.random() < 0.4 else None
    canvas.rounded_rectangle(
        (left, top, right, bottom), rng.randint(0, 20), fill=paper, outline=outline, width=rng.randint(1, 3)
    )

    # Text stays inside the pack's frame, and so far inside the picture that no rotation moves it out.
    edge = 4 + math.ceil(SIZE / 2 * math.sin(math.radians(abs(degrees))))
    x_low, y_low = max(left + 5, edge), max(top + 5, edge)
    x_high, y_high = min(right - 5, SIZE - edge), min(bottom - 5, SIZE - edge)
    width = x_high - x_low

    styles = _styles(rng, label, paper, width, level=level)
    room = y_high - y_low - _LINE_GAP * (len(styles) - 1)
    while sum(style.height for style in styles) > room:
        max(styles, key=lambda style: style.size).size -= 1
    free = room - sum(style.height for style in styles)
    gaps = [rng.random() ** 1.5 for _ in range(len(styles) + 1)]
    gaps = [gap / sum(gaps) * free for gap in gaps]
    widths = [style.width(line.text) for line, style in zip(label.lines, styles, strict=True)]
    alignment = rng.choices(("left", "centre", "ragged"), (45, 30, 25))[0]
    indent = rng.random() * (width - max(widths))

    places, y = [], float(y_low)
    for style, gap, text_width in zip(styles, gaps, widths, strict=False):
        y += gap
        slack = width - text_width
        x = {"left": min(indent, slack), "centre": slack / 2, "ragged": rng.random() * slack}[alignment]
        places.append((x_low + int(x), int(y)))
        y += style.height + _LINE_GAP

    if level.is_coloured and rng.random() < 0.3:
        for line, style, (_, y) in zip(label.lines, styles, places, strict=True):
            if line.is_brand:  # on a band across the pack
                band = _colour(rng)
                canvas.rectangle((left, y - 3, right, y + style.height + 2), fill=band)
                style.ink = _ink(rng, band, level=level)

    characters = []
    for index, (line, style, (x, y)) in enumerate(zip(label.lines, styles, places, strict=True)):
        for position, char in enumerate(line.text):
            advance = style.face.advances[char]
            if char != " ":
                image.paste(style.ink, (x - _OVERHANG, y), style.face.glyph(char))
                characters.append(Character(char, x + advance / 2, y + style.face.middle, index, position, advance))
            x += advance

    if degrees:
        image = image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=ground)
        characters = [_rotate(character, degrees) for character in characters]
    if level.max_noise or level.max_shade:
        image = _expose(image, rng, level=level)
    return image, tuple(characters)


def _rotate(character: Character, degrees: float) -> Character:
    """Where `Image.rotate` (counter-clockwise, about the middle) takes it."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    x, y = character.x - SIZE / 2, character.y - SIZE / 2
    return replace(character, x=SIZE / 2 + x * cosine + y * sine, y=SIZE / 2 - x * sine + y * cosine)


# The normal distribution in 256 steps: a random byte picks one.
_NORMAL = tuple(NormalDist().inv_cdf((step + 0.5) / 256) for step in range(256))


@cache
def _grain(noise: int) -> bytes:
    """What each random byte makes of the middle grey 128, at a standard deviation of `noise` tenths."""
    return bytes(min(255, max(0, 128 + round(noise / 10 * step))) for step in _NORMAL)


def _expose(image: Image.Image, rng: random.Random, *, level: Level) -> Image.Image:
    """Grain, and light that differs from corner to corner; the same in all three channels."""
    grain = _grain(rng.randint(0, round(10 * level.max_noise)))
    light = Image.frombytes("L", (SIZE, SIZE), rng.randbytes(SIZE * SIZE).translate(grain))
    if level.max_shade:
        corners = bytes(128 + round(rng.uniform(-level.max_shade, level.max_shade)) for _ in range(4))
        shade = Image.frombytes("L", (2, 2), corners).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        light = ImageChops.add(light, shade, 1, -128)
    return ImageChops.add(image, Image.merge("RGB", (light, light, light)), 1, -128)


def encode(image: Image.Image, rng: random.Random, *, level: Level) -> bytes:
    """The picture as a JPEG file of a quality that the level allows."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randint(*level.jpeg_quality))
    return file.getvalue()


# ---- rows, in the form of the challenge's files

# Train labels that are no plain quantity, as shares of the rows (rounded to whole rows). The real train.csv has all of
# them, but 0.1 % and less of most; a thousand rows shall hold each.
LABEL_SHARES = {
    LabelForm.RANGE_BRACKETS: 0.02,
    LabelForm.RANGE_TO: 0.005,
    LabelForm.UNIT_UNKNOWN: 0.01,
    LabelForm.EXPONENT: 0.003,
    LabelForm.BROKEN: 0.002,
}
# Of the whole numbers: `500 gram` for `500.0 gram`. Elsewhere there are none, as in the real file.
SHORT_SHARES = {"item_weight": 0.24, "maximum_weight_recommendation": 0.54}
# Pictures with one, two, three questions: 6 % (train) and 57 % (test) of the rows share one, as in the real files.
_QUESTION_WEIGHTS = {"train": (97, 3, 0), "test": (62, 32, 6)}
# The printed unit, and the one in the label, of facts that no allowed unit can tell.
_FOREIGN_UNITS = {
    "wattage": ("HP", "horsepower"),
    "item_weight": ("ct", "carat"),
    "maximum_weight_recommendation": ("persons", "person"),
}
_RANGE_ENTITIES = ("voltage", "voltage", "voltage", "item_weight", "item_weight", "item_volume", "wattage")
_RANGE_UNITS = {
    "voltage": ("volt",),
    "item_weight": ("gram", "kilogram"),
    "item_volume": ("millilitre", "litre"),
    "wattage": ("watt",),
}
_GROUP_IDS = tuple(random.Random("groups").sample(range(100_000, 1_000_000), 40))


@dataclass(frozen=True)
class Row:
    image_link: str
    group_id: int
    entity_name: str
    entity_value: str


def _replace_value(label: Label, entity_name: str, value: str) -> Label:
    """The same label with another value for the entity: one that is no Fact."""
    key = KEYS_BY_ENTITY[entity_name][0]
    odd = Line(f"{key} {value}", key=key)
    return Label(
        tuple(odd if any(fact.entity_name == entity_name for fact in line.facts) else line for line in label.lines)
    )


def _odd_label(rng: random.Random, form: LabelForm, entity_name: str, *, level: Level) -> tuple[str, Label, str]:
    """An entity, what is printed, and the label: one that a dataset's builder has to make sense of or leave out."""
    if form in (LabelForm.EXPONENT, LabelForm.BROKEN):
        label = make_label(rng, level=level, entity_names=[entity_name])
        quantity = label.facts[entity_name].quantity
        exponent = "e" if form is LabelForm.EXPONENT else " e"
        return entity_name, label, f"{quantity.number:e} {quantity.unit}".replace("e", exponent, 1)
    if form is LabelForm.UNIT_UNKNOWN:
        entity_name = rng.choice(list(_FOREIGN_UNITS))
        printed, unit = _FOREIGN_UNITS[entity_name]
        number = _number(rng, ("9", "99"), held_out=False)
        value, answer = f"{number} {printed}", f"{format_number(Decimal(number))} {unit}"
    else:
        entity_name = rng.choice(_RANGE_ENTITIES)
        unit = rng.choice(_RANGE_UNITS[entity_name])
        low, high = sorted(rng.sample(_numbers(rng.choice(("99", "999", "9.9")), False), 2), key=Decimal)
        value = f"{low}-{high} {SPELLINGS_BY_UNIT[unit][0]}"
        answer = f"{low} {unit} to {high} {unit}"
        if form is LabelForm.RANGE_BRACKETS:
            answer = f"[{format_number(Decimal(low))}, {format_number(Decimal(high))}] {unit}"
    label = make_label(rng, level=level, entity_names=[entity_name])
    return entity_name, _replace_value(label, entity_name, value), answer


def _train_answer(rng: random.Random, fact: Fact) -> str:
    answer = format_quantity(fact.quantity)
    return answer.replace(".0 ", " ") if rng.random() < SHORT_SHARES.get(fact.entity_name, 0) else answer


def _make_rows(folder: Path, *, split: str, row_count: int, seed: int, level: Level, base_url: str) -> list[Row]:
    """Write the pictures of a split; return its rows, picture after picture."""
    rows: list[Row] = []
    asked: Counter[str] = Counter()
    odd_forms = [form for form, share in LABEL_SHARES.items() for _ in range(round(share * row_count))]
    if split == "test":
        odd_forms = []

    def least_asked(count: int, rng: random.Random) -> list[str]:
        return sorted(ENTITIES, key=lambda name: (asked[name], rng.random()))[:count]

    picture = 0
    while len(rows) < row_count:
        rng = random.Random(f"{seed}/{split}/{picture}")  # of its own: a picture depends on no other's drawing
        picture += 1
        if odd_forms:
            name, label, odd_answer = _odd_label(rng, odd_forms.pop(), least_asked(1, rng)[0], level=level)
            answers = {name: odd_answer}
        else:
            count = rng.choices((1, 2, 3), _QUESTION_WEIGHTS[split])[0]
            names = least_asked(min(count, max(level.line_counts), row_count - len(rows)), rng)
            label = make_label(rng, level=level, entity_names=names, held_out=split == "test")
            facts = [label.facts[name] for name in names]
            if split == "train":
                answers = {fact.entity_name: _train_answer(rng, fact) for fact in facts}
            else:
                answers = {fact.entity_name: format_quantity(fact.quantity) for fact in facts}
        image, _ = draw(label, rng, level=level)
        content = encode(image, rng, level=level)
        file_name = f"{hashlib.sha256(content).hexdigest()[:16]}.jpg"
        (folder / file_name).write_bytes(content)
        asked.update(list(answers))
        group_id = rng.choice(_GROUP_IDS)
        rows += [Row(f"{base_url}/{file_name}", group_id, name, answer) for name, answer in answers.items()]
    return rows


def _write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_labels(
    folder: Path, *, train_rows: int, test_rows: int, seed: int = 0, level: Level = STANDARD, base_url: str
) -> None:
    """Write `images/*.jpg`, `train.csv`, `test.csv` and `test_answers.csv`, in the form of the challenge's files.

    train.csv has no index column, and `LABEL_SHARES` of its labels are ranges, foreign units and exponents. test.csv
    is ordered by link, as the real one; its index has gaps. test_answers.csv (index, entity_name, entity_value) holds
    canonical quantities only. The eight entities have equal shares but for the odd labels. Links are
    `{base_url}/{name}.jpg`; a name is a digest of the file's content.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    base_url = base_url.rstrip("/")
    train = _make_rows(images, split="train", row_count=train_rows, seed=seed, level=level, base_url=base_url)
    test = _make_rows(images, split="test", row_count=test_rows, seed=seed, level=level, base_url=base_url)

    random.Random(f"{seed}/order").shuffle(train)
    test.sort(key=lambda row: (row.image_link, row.entity_name))
    indexes = sorted(random.Random(f"{seed}/index").sample(range(test_rows + 1 + test_rows // 50), test_rows))
    _write_csv(
        folder / "train.csv",
        ("image_link", "group_id", "entity_name", "entity_value"),
        [(row.image_link, row.group_id, row.entity_name, row.entity_value) for row in train],
    )
    _write_csv(
        folder / "test.csv",
        ("index", "image_link", "group_id", "entity_name"),
        [(i, row.image_link, row.group_id, row.entity_name) for i, row in zip(indexes, test, strict=True)],
    )
    _write_csv(
        folder / "test_answers.csv",
        ("index", "entity_name", "entity_value"),
        [(i, row.entity_name, row.entity_value) for i, row in zip(indexes, test, strict=True)],
    )


# ---- a sheet to look at


@dataclass(frozen=True)
class SheetRow:
    image: Image.Image
    entity_name: str
    entity_value: str  # the truth
    prediction: str | None = None  # None: not asked yet; "": no answer


_COLUMNS = 4
_CELL_WIDTH, _CELL_HEIGHT = 256, 308


def contact_sheet(rows: Sequence[SheetRow]) -> Image.Image:
    """Pictures in rows of four (best: twelve); below each the question, the truth, and the prediction if there is."""
    height = math.ceil(len(rows) / _COLUMNS) * _CELL_HEIGHT
    sheet = Image.new("RGB", (_COLUMNS * _CELL_WIDTH, height), "white")
    canvas = ImageDraw.Draw(sheet)
    small, large = _face("OpenSans-Regular.ttf", 11).font, _face("OpenSans-Regular.ttf", 15).font
    for place, row in enumerate(rows):
        x = place % _COLUMNS * _CELL_WIDTH + (_CELL_WIDTH - SIZE) // 2
        y = place // _COLUMNS * _CELL_HEIGHT + 12
        picture = row.image.convert("RGB").copy()
        picture.thumbnail((SIZE, SIZE), Image.Resampling.BICUBIC)
        sheet.paste(picture, (x + (SIZE - picture.width) // 2, y))
        canvas.text((x, y + SIZE + 4), format_prompt(row.entity_name), font=small, fill="#555555")
        canvas.text((x, y + SIZE + 20), row.entity_value, font=large, fill="black")
        if row.prediction is not None:
            colour = "#1a7f37" if row.prediction == row.entity_value else "#c62828"
            canvas.text((x, y + SIZE + 40), f"-> {row.prediction or '(no answer)'}", font=large, fill=colour)
    return sheet


# ---- the command


@dataclass
class LabelOptions:
    output_dir: str = field(metadata={"help": "folder for images/, train.csv, test.csv and test_answers.csv"})
    train_rows: int = field(default=2000, metadata={"help": "rows of train.csv"})
    test_rows: int = field(default=400, metadata={"help": "rows of test.csv"})
    seed: int = field(default=0, metadata={"help": "the same seed gives the same files"})
    level: str = field(default="standard", metadata={"help": f"difficulty: {', '.join(LEVELS)}"})
    base_url: str = field(
        default="http://127.0.0.1:8000",
        metadata={"help": "where the links point to; as it stands: `python -m http.server` in images/"},
    )

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {self.level!r}")
        for name in ("train_rows", "test_rows"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


def main(argv: list[str] | None = None) -> None:
    from product_vqa.command import parse_options, writable_folder

    description = "Render product labels, with train.csv, test.csv and test_answers.csv in the challenge's form."
    (options,) = parse_options(LabelOptions, description=description, argv=argv)
    write_labels(
        writable_folder(options.output_dir, flag="--output_dir"),
        train_rows=options.train_rows,
        test_rows=options.test_rows,
        seed=options.seed,
        level=LEVELS[options.level],
        base_url=options.base_url,
    )


if __name__ == "__main__":
    from product_vqa.command import run

    run(main)
