"""Pictures at a glance: question, truth and answer below each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from product_vqa.entity_f1.scoring import equal_as_quantities
from product_vqa.images import as_image
from product_vqa.task.prompt import format_prompt


@dataclass(frozen=True)
class SheetRow:
    image: Image.Image | Mapping[str, Any]  # or as a dataset stores it, see product_vqa.images.as_image
    entity_name: str
    entity_value: str  # the truth
    prediction: str | None = None  # None: not asked yet; "": no answer


_COLUMNS = 4
_SIZE = 224  # of a picture at most, px
_CELL_WIDTH, _CELL_HEIGHT = 256, 308


def contact_sheet(rows: Sequence[SheetRow]) -> Image.Image:
    """Pictures in rows of four (best: twelve); below each the question, the truth, and the prediction if there is."""
    height = math.ceil(len(rows) / _COLUMNS) * _CELL_HEIGHT
    sheet = Image.new("RGB", (_COLUMNS * _CELL_WIDTH, height), "white")
    canvas = ImageDraw.Draw(sheet)
    small, large = (ImageFont.load_default(size) for size in (10, 15))
    for place, row in enumerate(rows):
        x = place % _COLUMNS * _CELL_WIDTH + (_CELL_WIDTH - _SIZE) // 2
        y = place // _COLUMNS * _CELL_HEIGHT + 12
        picture = as_image(row.image).copy()
        picture.thumbnail((_SIZE, _SIZE), Image.Resampling.BICUBIC)
        sheet.paste(picture, (x + (_SIZE - picture.width) // 2, y))
        canvas.text((x, y + _SIZE + 4), format_prompt(row.entity_name), font=small, fill="#555555")
        canvas.text((x, y + _SIZE + 20), row.entity_value, font=large, fill="black")
        if row.prediction is not None:
            colour = "#1a7f37" if equal_as_quantities(row.prediction, row.entity_value) else "#c62828"
            canvas.text((x, y + _SIZE + 40), f"-> {row.prediction or '(no answer)'}", font=large, fill=colour)
    return sheet
