import random

from product_vqa.contact_sheet import SheetRow, draw_contact_sheet
from product_vqa.task.quantity import format_quantity
from quickstart.rendering.drawing import draw
from quickstart.rendering.label_text import make_label
from quickstart.rendering.levels import STANDARD


def test_the_sheet_has_room_for_predictions() -> None:
    rng = random.Random(0)
    label = make_label(rng, level=STANDARD, entity_names=["voltage"])
    image, _ = draw(label, rng, level=STANDARD)
    reference = format_quantity(label.facts["voltage"].quantity)
    without = draw_contact_sheet([SheetRow(image, "voltage", reference)] * 12)
    with_predictions = draw_contact_sheet([SheetRow(image, "voltage", reference, prediction=reference)] * 12)
    assert without.size == with_predictions.size == (1024, 924)
    assert without.tobytes() != with_predictions.tobytes()
