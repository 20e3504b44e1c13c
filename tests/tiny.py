"""Tiny things of the real classes: a base of 28 px, rows with pictures, a dataset folder."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ANSWERS = (
    ("item_weight", "500.0 gram", "500 gram"),
    ("voltage", "230.0 volt", "230.0 volt"),
    ("maximum_weight_recommendation", "1.5 kilogram", "1.5 kilogram"),
    ("width", "12.25 inch", "12.25 inch"),
)


def make_image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def make_rows(number: int, *, labelled: bool = True, start: int = 0) -> list[dict[str, Any]]:
    """Rows as published, over several entities, with answers of unequal length."""
    rows = []
    for index in range(start, start + number):
        entity, canonical, raw = ANSWERS[index % len(ANSWERS)]
        rows.append(
            {
                "index": index,
                "image": make_image(index),
                "image_link": f"https://example.com/{index}.jpg",
                "group_id": "1",
                "entity_name": entity,
                "entity_value": canonical if labelled else "",
                "entity_value_raw": raw if labelled else "",
            }
        )
    return rows


def save_dataset(folder: Path, *, train: int = 32, validation: int = 8, test: int = 11) -> Path:
    """A dataset folder as build makes it; the test row of index 2 above the others' has no picture."""
    from datasets import Dataset

    from product_vqa.schema import FEATURES

    (folder / "data").mkdir(parents=True)
    splits = {
        "train": make_rows(train),
        "validation": make_rows(validation, start=1000),
        "test": make_rows(test, labelled=False, start=5000),
    }
    splits["test"][2]["image"] = None
    for split, rows in splits.items():
        if rows:
            Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def save_tiny_base(folder: Path, *, seed: int = 0) -> Path:
    """A base of 28 px (4 image tokens) and two layers, hidden size 128 so that NF4 runs on a CPU."""
    from quickstart.small_paligemma import save_base

    save_base(folder, image_size=28, patch_size=14, hidden_size=128, layers=2, seed=seed)
    return folder
