"""Rows as build stores them, for benchmarks that need no real images."""

from typing import Any

from dataset_builder.image_preparation import prepare_image
from product_vqa.task.schema import ENTITIES, UNITS_BY_ENTITY

STORED_SIZE = 448  # px, build's default


def store_image(original: bytes) -> dict[str, Any]:
    """The image as a dataset holds it."""
    return {"bytes": prepare_image(original, image_size=STORED_SIZE).data, "path": None}


def make_row(index: int, image: dict[str, Any], *, image_number: int) -> dict[str, Any]:
    """A labelled row about a stored image; the attributes take turns."""
    entity_name = ENTITIES[index % len(ENTITIES)]
    units = UNITS_BY_ENTITY[entity_name]
    value = f"{(7 * index % 4000) / 10} {units[index % len(units)]}"
    return {
        "index": index,
        "image": image,
        "image_link": f"https://shop.example/{image_number}.jpg",
        "group_id": "1",
        "entity_name": entity_name,
        "entity_value": value,
        "entity_value_raw": value,
    }
