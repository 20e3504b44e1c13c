"""What the test bed of silence asks, and how it judges thresholds."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.silence import resample_thresholds, write_fresh
from product_vqa.task.schema import CHALLENGE, ENTITIES


def test_fresh_labels_are_asked_all_attributes_and_most_have_no_answer(tmp_path: Path) -> None:
    write_fresh(tmp_path / "images", tmp_path / "fresh.csv", number=6, level="standard", seed="0/test")
    rows = list(csv.DictReader((tmp_path / "fresh.csv").open()))
    assert len(rows) == 6 * 8 and len({row["image_link"] for row in rows}) == 6
    assert [row["entity_name"] for row in rows[:8]] == list(ENTITIES)
    shown = [row for row in rows if row["entity_value"]]
    assert 6 <= len(shown) <= 30 and all(CHALLENGE[row["entity_name"]].is_valid(row["entity_value"]) for row in shown)
    assert {row["image_link"] for row in rows} == {file.name for file in (tmp_path / "images").iterdir()}


def make_answers(images: int, *, share_wrong: float, seed: int) -> pd.DataFrame:
    """Eight answers per image, some empty; of the others, those with a low confidence are wrong."""
    rng = np.random.default_rng(seed)
    number = 8 * images
    is_shown = rng.random(number) < 0.4
    is_right = rng.random(number) >= share_wrong
    confidence = np.where(is_shown & is_right, rng.uniform(0.6, 1, number), rng.uniform(0, 0.7, number))
    is_silent = ~is_shown & (rng.random(number) < 0.8)
    return pd.DataFrame(
        {
            "image_link": np.repeat([str(image) for image in range(images)], 8),
            "prediction": np.where(is_silent, "", "1.0 gram"),
            "confidence": confidence,
            "shown": np.where(is_shown, 0.9, 0.3),
            "number_confidence": confidence,
            "unit_confidence": 1.0,
            "is_shown": is_shown,
            "is_right": np.where(is_silent, ~is_shown, is_shown & is_right),
            "is_number_right": np.where(is_silent, ~is_shown, is_shown & is_right),
        }
    )


def test_thresholds_are_judged_on_other_images() -> None:
    result = resample_thresholds(make_answers(400, share_wrong=0.1, seed=0), seed=0, splits=20)
    assert result["splits"] == 20 and result["found"] >= 19
    assert result["kept"] >= 0.9 and 0.5 < result["answered"] <= 1
    hopeless = resample_thresholds(make_answers(60, share_wrong=0.9, seed=1), seed=0, splits=3)
    assert hopeless == {"splits": 3, "found": 0, "kept": 1.0, "kept_where_found": None, "answered": 0.0}  # silent
