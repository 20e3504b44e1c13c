import csv
from pathlib import Path

from benchmarks.ablation import shuffle_labels


def test_labels_are_shuffled_within_their_entity(tmp_path: Path) -> None:
    rows = [["image_link", "entity_name", "entity_value"]]
    rows += [[f"{number}.jpg", "width" if number % 2 else "height", f"{number} inch"] for number in range(40)]
    with (tmp_path / "train.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows(rows)
    shuffle_labels(tmp_path / "train.csv", tmp_path / "shuffled.csv", seed=0)
    with (tmp_path / "shuffled.csv").open(newline="") as lines:
        header, *shuffled = csv.reader(lines)
    assert header == rows[0]
    assert [row[:2] for row in shuffled] == [row[:2] for row in rows[1:]]
    for entity in ("width", "height"):
        before = [value for _, name, value in rows[1:] if name == entity]
        after = [value for _, name, value in shuffled if name == entity]
        assert sorted(after) == sorted(before)
        assert after != before
