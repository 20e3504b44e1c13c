"""Drawing of labels: text on a pack, in any colours, with noise, saved as JPEG.

    image, characters = draw(label, random.Random(7), level=STANDARD)

The image has 224 x 224 px; `characters` says where each character is. The same seed gives the same pixels on every
machine with the same version of Pillow, which includes its own FreeType.
"""

import io
import math
import random
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import NormalDist

from PIL import Image, ImageChops, ImageDraw, ImageFont

from quickstart.rendering.label_text import MAX_LINE_CHARACTERS, Label
from quickstart.rendering.levels import Level

SIZE = 224  # px, both sides
MIN_FONT_SIZE = 16
FONT_FOLDER = Path(__file__).parent / "fonts"
# For a line that is too wide in its own font: 20 capitals of the smallest size fit into any image.
NARROW_FONT = "RobotoCondensed-Bold.ttf"
MIN_TEXT_WIDTH = 197  # px between the margins of any pack of LEVELS


@dataclass(frozen=True, slots=True)
class Character:
    """A printed character other than a space. `label.lines[line].text[position] == char`."""

    char: str
    x: float  # px from the left to the middle of its cell
    y: float  # px from the top to the middle between baseline and capital height
    line: int
    position: int
    width: float  # px of its cell
    height: float  # px of a capital of its font


_OVERHANG = 3  # px by which a glyph may exceed its cell on either side


class _Face:
    """A font at a size. Each glyph is drawn once and then pasted, which takes a third of the time; no kerning."""

    def __init__(self, font_file: str, size: int) -> None:
        self.font = ImageFont.truetype(FONT_FOLDER / font_file, size, layout_engine=ImageFont.Layout.BASIC)
        self.advances = {chr(code): round(self.font.getlength(chr(code))) for code in range(32, 127)}
        _, self.top, _, self.bottom = (int(side) for side in self.font.getbbox("(Hgj$|"))  # of all characters
        _, capital, _, baseline = self.font.getbbox("H")
        self.middle = (capital + baseline) / 2 - self.top  # of capitals, below `top`
        self.capital_height = baseline - capital
        self._glyphs: dict[str, Image.Image] = {}

    def glyph(self, char: str) -> Image.Image:
        """The character as a mask that begins `_OVERHANG` px left of its cell, at `top`."""
        if char not in self._glyphs:
            mask = Image.new("L", (self.advances[char] + 2 * _OVERHANG, self.bottom - self.top))
            ImageDraw.Draw(mask).text((_OVERHANG, -self.top), char, font=self.font, fill=255)
            self._glyphs[char] = mask
        return self._glyphs[char]


@cache
def _face(font_file: str, size: int) -> _Face:
    return _Face(font_file, size)


def is_drawable(text: str) -> bool:
    """Whether the fonts have its characters, printable ASCII. The small PaliGemma has tokens for the same."""
    return text.isascii() and text.isprintable()


def fits_line(text: str) -> bool:
    """Whether a drawable text fits into one line of any image, at least in the narrow font."""
    advances = _face(NARROW_FONT, MIN_FONT_SIZE).advances
    return len(text) <= MAX_LINE_CHARACTERS and sum(advances[char] for char in text) <= MIN_TEXT_WIDTH


def wrap(text: str) -> list[str]:
    """The text in lines that fit; a word that is too long for a line has one of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and fits_line(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


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
        """Reduce the size until the text fits into `width` px; below the smallest size, change to the narrow font."""
        while self.width(text) > width:
            if self.size > MIN_FONT_SIZE:
                fitting_size = int(self.size * width / self.width(text))
                self.size = max(MIN_FONT_SIZE, min(self.size - 1, fitting_size))
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
    styles: list[_Style] = []
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
        if line.is_continued:
            style = replace(styles[-1])
        style.shrink(line.text, width)
        styles.append(style)
    return styles


@dataclass(frozen=True)
class _Box:
    """A rectangle in px; `right` and `bottom` are part of it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top


_MIN_LINE_GAP = 4  # px


def draw(label: Label, rng: random.Random, *, level: Level) -> tuple[Image.Image, tuple[Character, ...]]:
    """Draw a pack with this label on it.

    Returns the image (RGB, 224 x 224) and its characters, line by line, without spaces.
    """
    degrees = rng.uniform(-level.max_degrees, level.max_degrees)
    ground, paper = _background(rng, level=level)
    image = Image.new("RGB", (SIZE, SIZE), ground)
    pack = _draw_pack(image, rng, paper, level=level)
    area = _text_area(pack, degrees)
    styles = _styles(rng, label, paper, area.width, level=level)
    _shrink_to_height(styles, area.height)
    positions = _line_positions(rng, label, styles, area)
    if level.is_coloured and rng.random() < 0.3:
        _draw_brand_bands(image, rng, label, styles, positions, pack, level=level)
    characters = _print(image, label, styles, positions)
    if degrees:
        image = image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=ground)
        characters = [_rotate(character, degrees) for character in characters]
    if level.max_noise or level.max_shade:
        image = _expose(image, rng, level=level)
    return image, tuple(characters)


def _background(rng: random.Random, *, level: Level) -> tuple[Colour, Colour]:
    """The colours of what is behind the pack and of the pack."""
    light = _colour(rng, 215, 255)
    if not level.is_coloured:
        return light, light
    grey = rng.randint(200, 255)
    ground = (grey, grey, grey) if rng.random() < 0.5 else _colour(rng)
    paper = _colour(rng, 215, 255) if rng.random() < 0.3 else _colour(rng)
    return ground, paper


def _draw_pack(image: Image.Image, rng: random.Random, paper: Colour, *, level: Level) -> _Box:
    left, top, right_margin, bottom_margin = (rng.randint(0, 8) for _ in range(4))
    pack = _Box(left, top, SIZE - 1 - right_margin, SIZE - 1 - bottom_margin)
    outline = _colour(rng) if level.is_coloured and rng.random() < 0.4 else None
    ImageDraw.Draw(image).rounded_rectangle(
        (pack.left, pack.top, pack.right, pack.bottom),
        rng.randint(0, 20),
        fill=paper,
        outline=outline,
        width=rng.randint(1, 3),
    )
    return pack


def _text_area(pack: _Box, degrees: float) -> _Box:
    """Where text may be: inside the pack's frame, and so far inside the image that the rotation cuts nothing off."""
    edge = 4 + math.ceil(SIZE / 2 * math.sin(math.radians(abs(degrees))))
    return _Box(
        max(pack.left + 5, edge),
        max(pack.top + 5, edge),
        min(pack.right - 5, SIZE - edge),
        min(pack.bottom - 5, SIZE - edge),
    )


def _shrink_to_height(styles: list[_Style], height: int) -> None:
    available = height - _MIN_LINE_GAP * (len(styles) - 1)
    while sum(style.height for style in styles) > available:
        max(styles, key=lambda style: style.size).size -= 1


def _line_positions(rng: random.Random, label: Label, styles: list[_Style], area: _Box) -> list[tuple[int, int]]:
    """(x, y) of each line's upper left corner: random gaps between the lines, one alignment for all."""
    free = area.height - _MIN_LINE_GAP * (len(styles) - 1) - sum(style.height for style in styles)
    shares = [rng.random() ** 1.5 for _ in range(len(styles) + 1)]
    shares = [0 if line.is_continued else share for line, share in zip(label.lines, shares, strict=False)] + shares[
        -1:
    ]
    gaps = [share / sum(shares) * free for share in shares]
    widths = [style.width(line.text) for line, style in zip(label.lines, styles, strict=True)]
    alignment = rng.choices(("left", "centre", "ragged"), (45, 30, 25))[0]
    indent = rng.random() * (area.width - max(widths))

    positions = []
    y = float(area.top)
    for style, gap, width in zip(styles, gaps, widths, strict=False):  # the last gap is below the last line
        y += gap
        slack = area.width - width
        x_by_alignment = {"left": min(indent, slack), "centre": slack / 2, "ragged": rng.random() * slack}
        positions.append((area.left + int(x_by_alignment[alignment]), int(y)))
        y += style.height + _MIN_LINE_GAP
    return positions


def _draw_brand_bands(
    image: Image.Image,
    rng: random.Random,
    label: Label,
    styles: list[_Style],
    positions: list[tuple[int, int]],
    pack: _Box,
    *,
    level: Level,
) -> None:
    """Put a coloured band across the pack behind the brand, and give the brand an ink that suits it."""
    canvas = ImageDraw.Draw(image)
    for line, style, (_, y) in zip(label.lines, styles, positions, strict=True):
        if line.is_brand:
            colour = _colour(rng)
            canvas.rectangle((pack.left, y - 3, pack.right, y + style.height + 2), fill=colour)
            style.ink = _ink(rng, colour, level=level)


def _print(
    image: Image.Image, label: Label, styles: list[_Style], positions: list[tuple[int, int]]
) -> list[Character]:
    """Print the lines; returns where each character is."""
    characters = []
    for index, (line, style, (x, y)) in enumerate(zip(label.lines, styles, positions, strict=True)):
        for position, char in enumerate(line.text):
            advance = style.face.advances[char]
            if char != " ":
                image.paste(style.ink, (x - _OVERHANG, y), style.face.glyph(char))
                middle = x + advance / 2, y + style.face.middle
                characters.append(Character(char, *middle, index, position, advance, style.face.capital_height))
            x += advance
    return characters


def _rotate(character: Character, degrees: float) -> Character:
    """Move the character as `Image.rotate` moves its ink: counter-clockwise, about the centre."""
    sine = math.sin(math.radians(degrees))
    cosine = math.cos(math.radians(degrees))
    x = character.x - SIZE / 2
    y = character.y - SIZE / 2
    return replace(character, x=SIZE / 2 + x * cosine + y * sine, y=SIZE / 2 - x * sine + y * cosine)


# The normal distribution in 256 steps, so that a random byte picks one.
_NORMAL = tuple(NormalDist().inv_cdf((step + 0.5) / 256) for step in range(256))


@cache
def _noise_table(noise: int) -> bytes:
    """The grey value around 128 for each random byte, at a standard deviation of `noise` tenths."""
    return bytes(min(255, max(0, 128 + round(noise / 10 * step))) for step in _NORMAL)


def _expose(image: Image.Image, rng: random.Random, *, level: Level) -> Image.Image:
    """Add noise and light that differs from corner to corner, the same in all three channels."""
    table = _noise_table(rng.randint(0, round(10 * level.max_noise)))
    light = Image.frombytes("L", (SIZE, SIZE), rng.randbytes(SIZE * SIZE).translate(table))
    if level.max_shade:
        corners = bytes(128 + round(rng.uniform(-level.max_shade, level.max_shade)) for _ in range(4))
        shade = Image.frombytes("L", (2, 2), corners).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        light = ImageChops.add(light, shade, 1, -128)
    return ImageChops.add(image, Image.merge("RGB", (light, light, light)), 1, -128)


def encode(image: Image.Image, rng: random.Random, *, level: Level) -> bytes:
    """The image as a JPEG file, at a random quality of the level."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randint(*level.jpeg_quality))
    return file.getvalue()
