"""Candidates of a split's images: each image is read once, whatever cannot be read is not among them."""

from datasets import Dataset, Image

from dataset_builder.image_candidates import find_in_images, text_reader
from product_vqa.ocr.image_text import ImageText, TextBox
from product_vqa.task.features import FEATURES
from product_vqa.task.schema import CHALLENGE
from tests.tiny import make_image


def make_dataset() -> Dataset:
    """Two questions about one image, one about another, one without an image, and one whose image is damaged."""
    rows = [
        {"index": number, "image": image, "image_link": link, "group_id": "1", "entity_name": name,
         "entity_value": label, "entity_value_raw": label}
        for number, (link, image, name, label) in enumerate(
            [
                ("a", make_image(0), "item_weight", "500.0 gram"),
                ("a", make_image(0), "width", "3.0 inch"),
                ("b", make_image(1), "voltage", "230.0 volt"),
                ("c", None, "voltage", "12.0 volt"),
                ("d", {"bytes": b"no image", "path": None}, "voltage", "24.0 volt"),
            ]
        )
    ]  # fmt: skip
    return Dataset.from_list(rows, features=FEATURES).cast_column("image", Image(decode=False))


class Engine:
    """An engine that reads one line from every image."""

    description = "one line"

    def __init__(self) -> None:
        self.num_read = 0

    def read(self, image: object) -> ImageText:
        self.num_read += 1
        corners = ((0.1, 0.1), (0.5, 0.1), (0.5, 0.2), (0.1, 0.2))
        return ImageText(60, 40, (TextBox("500 g 230 V", 1.0, corners),))


def test_each_image_is_read_once_and_its_rows_have_the_candidates_of_their_attribute() -> None:
    dataset, engine = make_dataset(), Engine()
    found = dict(find_in_images(range(5), dataset, schema=CHALLENGE, read_text=text_reader(dataset, engine)))
    assert engine.num_read == 2
    assert {position: [one.answer for one in candidates] for position, candidates in found.items()} == {
        0: ["500.0 gram"], 1: [], 2: ["230.0 volt"],
    }  # fmt: skip
    assert found[0][0].box == (0.1, 0.1, 0.5, 0.2)


def test_only_the_rows_that_are_asked_for_are_read() -> None:
    dataset, engine = make_dataset(), Engine()
    read = text_reader(dataset, engine)
    assert [position for position, _ in find_in_images([2, 3], dataset, schema=CHALLENGE, read_text=read)] == [2]
    assert engine.num_read == 1
