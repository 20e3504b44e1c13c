"""Labels as pictures: print on a pack, in any colours, with grain, and saved as JPEG.

    image, characters = draw(label, random.Random(7), level=STANDARD)      224 x 224 px, and where each character is

The same seed gives the same pixels on every machine (with one version of Pillow, which brings its own FreeType).
"""

import io
import math
import random
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import NormalDist

from PIL import Image, ImageChops, ImageDraw, ImageFont

from quickstart.printing import Label, Level

SIZE = 224  # px, both sides
MIN_FONT_SIZE = 16
FONT_FOLDER = Path(__file__).parent / "fonts"
# In it, 20 capitals of the smallest size fit into any picture: the resort of a line too wide for its own font.
NARROW_FONT = "RobotoCondensed-Bold.ttf"


@dataclass(frozen=True, slots=True)
class Character:
    """A printed character other than the blank. `label.lines[line].text[position] == char`."""

    char: str
    x: float  # px from the left, the middle of its cell
    y: float  # px from the top, half-way between baseline and capital height
    line: int
    position: int
    width: float  # px, of its cell


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
