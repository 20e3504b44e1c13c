import io

from datasets import Dataset
from PIL import Image

from product_vqa.task.features import FEATURES


def test_the_columns_are_those_of_the_contract() -> None:
    assert {name: getattr(feature, "dtype", None) for name, feature in FEATURES.items()} == {
        "index": "int64",
        "image": "PIL.Image.Image",
        "image_link": "string",
        "group_id": "string",
        "entity_name": "string",
        "entity_value": "string",
        "entity_value_raw": "string",
    }


def test_a_row_may_lack_its_image() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "PNG")
    texts = dict.fromkeys(("image_link", "group_id", "entity_name", "entity_value", "entity_value_raw"), "")
    rows = [{"index": 1, "image": None, **texts}, {"index": 2, "image": {"bytes": stream.getvalue()}, **texts}]
    dataset = Dataset.from_list(rows, features=FEATURES)
    assert dataset[0]["image"] is None
    assert dataset[1]["image"].size == (2, 2)
