"""The difficulty levels of rendered labels: plain, standard and hard."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Level:
    """How difficult the images of a level are. The defaults are those of `plain`.

    `dataclasses.replace` makes levels in between.
    """

    line_counts: tuple[int, ...] = (1, 2)  # lines besides the brand; each entry is equally likely
    brand_words: tuple[int, ...] = (0, 1)  # words of the brand line; each entry is equally likely, 0 means no line
    other_share: float = 0.2  # share of the lines after the first that answer no question
    dimensions_share: float = (
        0.0  # share of the images with lengths that print two or three in a line, `W 30 x H 20 in`
    )
    dual_share: float = 0.0  # share of the weights, volumes and single lengths with a second unit in brackets
    fonts: tuple[str, ...] = ("LiberationSans-Bold.ttf", "RobotoCondensed-Bold.ttf")
    font_sizes: tuple[int, int] = (22, 32)  # px; brands are up to a quarter larger, text that does not fit is smaller
    own_style_share: float = 0.0  # share of the lines with a font of their own; drawn again for the size and the ink
    is_coloured: bool = False  # any colours at least 110 apart in luminance, frames and bands; otherwise dark on light
    max_degrees: float = 0.0  # rotation in either direction
    max_noise: float = 0.0  # standard deviation of the noise, on a scale of 255
    max_shade: float = 0.0  # uneven light: the largest change of brightness in a corner, on a scale of 255
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
