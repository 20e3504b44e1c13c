"""Draw images on a sheet, each with its question, label and prediction below."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from product_vqa.entity_f1.scoring import equal_as_quantities
from product_vqa.images import as_image
from product_vqa.task.attributes import Schema
from product_vqa.task.kinds import LabelError
from product_vqa.task.schema import is_challenge


@dataclass(frozen=True)
class SheetRow:
    image: Image.Image | Mapping[str, Any]  # or as a dataset stores it, see product_vqa.images.as_image
    entity_name: str
    entity_value: str  # the label
    prediction: str | None = None  # None: not predicted; "": no prediction


_COLUMNS = 4
_MAX_IMAGE_SIDE = 224  # px
_CELL_WIDTH, _CELL_HEIGHT = 256, 308


def draw_contact_sheet(rows: Sequence[SheetRow], *, schema: Schema) -> Image.Image:
    """Draw the images in rows of four, each with its question, its label and, if there is one, its prediction.

    The prediction is green if it equals the label (for another schema than the challenge's: by meaning), else red.
    """
    height = math.ceil(len(rows) / _COLUMNS) * _CELL_HEIGHT
    sheet = Image.new("RGB", (_COLUMNS * _CELL_WIDTH, height), "white")
    canvas = ImageDraw.Draw(sheet)
    small, large = (ImageFont.load_default(size) for size in (10, 15))
    for position, row in enumerate(rows):
        x = position % _COLUMNS * _CELL_WIDTH + (_CELL_WIDTH - _MAX_IMAGE_SIDE) // 2
        y = position // _COLUMNS * _CELL_HEIGHT + 12
        image = as_image(row.image).copy()
        image.thumbnail((_MAX_IMAGE_SIDE, _MAX_IMAGE_SIDE), Image.Resampling.BICUBIC)
        sheet.paste(image, (x + (_MAX_IMAGE_SIDE - image.width) // 2, y))
        canvas.text((x, y + _MAX_IMAGE_SIDE + 4), schema[row.entity_name].question, font=small, fill="#555555")
        canvas.text((x, y + _MAX_IMAGE_SIDE + 20), row.entity_value, font=large, fill="black")
        if row.prediction is not None:
            colour = "#1a7f37" if _is_right(row.prediction, row, schema) else "#c62828"
            canvas.text(
                (x, y + _MAX_IMAGE_SIDE + 40), f"-> {row.prediction or '(no prediction)'}", font=large, fill=colour
            )
    return sheet


def _is_right(prediction: str, row: SheetRow, schema: Schema) -> bool:
    if is_challenge(schema):
        return equal_as_quantities(prediction, row.entity_value)
    attribute = schema[row.entity_name]
    try:
        return attribute.is_same(attribute.normalize(prediction), attribute.normalize(row.entity_value))
    except LabelError:
        return prediction == row.entity_value
