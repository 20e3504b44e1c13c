import random

import pytest
from PIL import Image

from product_vqa.contact_sheet import SheetRow, draw_contact_sheet
from product_vqa.task.quantity import format_quantity
from product_vqa.task.schema import CHALLENGE
from quickstart.rendering.drawing import draw
from quickstart.rendering.label_text import make_label
from quickstart.rendering.levels import STANDARD
from tests.inference.schemas import SCHEMAS


def test_the_sheet_has_room_for_predictions() -> None:
    rng = random.Random(0)
    label = make_label(rng, level=STANDARD, entity_names=["voltage"])
    image, _ = draw(label, rng, level=STANDARD)
    reference = format_quantity(label.facts["voltage"].quantity)
    without = draw_contact_sheet([SheetRow(image, "voltage", reference)] * 12, schema=CHALLENGE)
    with_predictions = draw_contact_sheet(
        [SheetRow(image, "voltage", reference, prediction=reference)] * 12, schema=CHALLENGE
    )
    assert without.size == with_predictions.size == (1024, 924)
    assert without.tobytes() != with_predictions.tobytes()


GREEN, RED = (26, 127, 55), (198, 40, 40)


@pytest.mark.parametrize(
    ("schema", "attribute", "label", "prediction", "is_right"),
    [
        ("clothes", "colour", "navy", "navy blue", True),
        ("clothes", "colour", "", "", True),
        ("clothes", "colour", "navy", "red", False),
        ("electronics", "memory", "1 TB", "1000 gigabyte", True),
        ("electronics", "memory", "1 TB", "", False),
        ("nutrition", "fat", "3.5 g", "3.4 gram", False),
    ],
)
def test_a_prediction_about_another_schema_is_green_if_it_means_the_label(
    schema: str, attribute: str, label: str, prediction: str, is_right: bool
) -> None:
    row = SheetRow(Image.new("RGB", (20, 20), "white"), attribute, label, prediction=prediction)
    colours = {colour for _, colour in draw_contact_sheet([row], schema=SCHEMAS[schema]).getcolors(2**20)}
    assert (GREEN in colours, RED in colours) == (is_right, not is_right)
