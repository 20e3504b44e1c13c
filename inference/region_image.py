"""An image with the region that an answer was read from, bright or in a box: for the page and the report."""

import io
import math

from PIL import Image, ImageChops, ImageDraw, ImageOps

from product_vqa.modeling.attribution import AnswerRegion
from product_vqa.ocr.image_text import Box

SIZE = (480, 480)  # px
_DARK = 120  # of 255: the brightness of what an answer does not depend on
_BRIGHT_FROM = 0.5  # of the highest heat: as bright as in the image
_OUTLINE = ((255, 190, 0), (0, 0, 0))  # the inner line and the outer one; one of them is visible on any colour
_QUALITY = 85


def draw_region(image: Image.Image, region: AnswerRegion) -> bytes:
    """Return a JPEG with the region's box, as large as fits into `SIZE`; without a box, the image as it is.

    With a heat map, what the answer does not depend on is dark.
    `image` is the one that was located, in RGB and of the same size.
    """
    small = ImageOps.contain(image.convert("RGB"), SIZE)
    if region.heat_map is not None and region.box is not None:
        heat = region.heat_map / region.heat_map.max() / _BRIGHT_FROM
        levels = (_DARK + (255 - _DARK) * heat.clip(max=1)).round().astype("uint8")
        light = Image.fromarray(levels, "L").resize(small.size, Image.Resampling.BILINEAR)
        small = ImageChops.multiply(small, Image.merge("RGB", (light, light, light)))
    if region.box is not None:
        scale_x, scale_y = small.width / image.width, small.height / image.height
        left, top, right, bottom = (
            round(side * scale) for side, scale in zip(region.box, (scale_x, scale_y) * 2, strict=True)
        )
        canvas = ImageDraw.Draw(small)
        for distance, colour in enumerate(_OUTLINE, start=1):  # around the box, so that it hides nothing of it
            canvas.rectangle(
                (left - 2 * distance, top - 2 * distance, right - 1 + 2 * distance, bottom - 1 + 2 * distance),
                outline=colour,
                width=2,
            )
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def text_region(prediction: str, box: Box, image: Image.Image) -> AnswerRegion:
    """The region of the text that supports a prediction, by its box as fractions of the image."""
    left, top, right, bottom = box
    return AnswerRegion(
        prediction,
        box=(
            math.floor(left * image.width),
            math.floor(top * image.height),
            math.ceil(right * image.width),
            math.ceil(bottom * image.height),
        ),
    )
