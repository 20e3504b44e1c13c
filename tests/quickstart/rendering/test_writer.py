import csv
import hashlib
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from dataset_builder.labels import LabelForm, label_form
from product_vqa.task.quantity import format_quantity, parse_quantity
from product_vqa.task.schema import ENTITIES, UNITS_BY_ENTITY
from quickstart.rendering.drawing import SIZE
from quickstart.rendering.label_text import make_label
from quickstart.rendering.levels import HARD, LEVELS, PLAIN
from quickstart.rendering.printed_numbers import is_held_out, may_show, numbers_in
from quickstart.rendering.writer import LABEL_SHARES, find_not_shown, write_labels


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder, train_rows=1000, test_rows=400, seed=5, level=PLAIN, base_url="http://127.0.0.1:9/images/")
    return folder


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.slow
def test_files_have_the_format_of_the_challenge(written: Path) -> None:
    train, test, answers = (read(written / name) for name in ("train.csv", "test.csv", "test_answers.csv"))
    assert list(train[0]) == ["image_link", "group_id", "entity_name", "entity_value"]
    assert list(test[0]) == ["index", "image_link", "group_id", "entity_name"]
    assert list(answers[0]) == ["index", "entity_name", "entity_value"]
    assert (len(train), len(test)) == (1000, 400)
    assert [row["index"] for row in test] == [row["index"] for row in answers]
    assert [row["entity_name"] for row in test] == [row["entity_name"] for row in answers]
    indexes = [int(row["index"]) for row in test]
    assert indexes == sorted(set(indexes))
    assert indexes != list(range(400))  # gaps
    assert all(row["group_id"].isdigit() for row in train + test)


def test_urls_lead_to_the_images_and_no_image_is_in_both_files(written: Path) -> None:
    train, test = ({row["image_link"] for row in read(written / name)} for name in ("train.csv", "test.csv"))
    assert not train & test
    names = {file.name for file in (written / "images").iterdir()}
    assert {f"http://127.0.0.1:9/images/{name}" for name in names} == train | test
    for name in sorted(names)[:20]:
        with Image.open(written / "images" / name) as image:
            assert (image.format, image.size) == ("JPEG", (SIZE, SIZE))


def test_train_labels_have_the_documented_forms(written: Path) -> None:
    labels = [row["entity_value"] for row in read(written / "train.csv")]
    forms = Counter(label_form(label) for label in labels)
    expected = {form: round(share * 1000) for form, share in LABEL_SHARES.items()}
    assert forms == {**expected, LabelForm.PLAIN: 1000 - sum(expected.values())}
    assert set(expected) == set(LabelForm) - {LabelForm.PLAIN}
    integers = [label for label in labels if re.fullmatch(r"[0-9]+(\.0)? .*", label)]
    short = [label for label in integers if ".0 " not in label]
    assert 0.04 < len(short) / len(integers) < 0.2


def test_reference_answers_are_canonical_and_held_out(written: Path) -> None:
    for row in read(written / "test_answers.csv"):
        quantity = parse_quantity(row["entity_value"])
        assert row["entity_value"] == format_quantity(quantity)
        assert quantity.unit in UNITS_BY_ENTITY[row["entity_name"]]
        assert may_show(row["entity_value"].split()[0].removesuffix(".0"), held_out=True)
    numbers = [number for row in read(written / "train.csv") for number in numbers_in(row["entity_value"])]
    plain = [row["entity_value"] for row in read(written / "train.csv") if label_form(row["entity_value"]) == "plain"]
    assert len(numbers) > len(plain) > 900
    assert not any(is_held_out(label.split()[0].removesuffix(".0")) for label in plain)


def test_entities_have_equal_shares_and_questions_share_images(written: Path) -> None:
    for name, shared_low, shared_high in (("train.csv", 0.02, 0.12), ("test.csv", 0.47, 0.67)):
        rows = read(written / name)
        entities = Counter(row["entity_name"] for row in rows)
        assert set(entities) == set(ENTITIES)
        assert max(entities.values()) - min(entities.values()) <= 2
        rows_by_image = Counter(row["image_link"] for row in rows)
        shared = sum(count for count in rows_by_image.values() if count > 1) / len(rows)
        assert shared_low < shared < shared_high
        assert len({(row["image_link"], row["entity_name"]) for row in rows}) == len(rows)


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_labels(tmp_path / name, train_rows=20, test_rows=10, seed=seed, level=HARD, base_url="http://x")
    files = {
        name: {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    }
    assert files["a"] == files["b"]
    assert len(files["a"]) > 20
    images = {name: {file for file in files[name] if file.endswith(".jpg")} for name in "ac"}
    assert not images["a"] & images["c"]


@pytest.mark.parametrize(
    ("level", "digest"),
    [
        ("plain", "5b1db146019ba004"),
        ("standard", "6a8eea3fff289ee3"),
        ("hard", "5cb190c4fbdf3062"),
    ],
)
def test_the_challenges_labels_stay_what_they_were(level: str, digest: str, tmp_path: Path) -> None:
    """The published results are about these files: every byte of them, with the pinned version of Pillow."""
    write_labels(tmp_path, train_rows=40, test_rows=20, seed=3, level=LEVELS[level], base_url="http://127.0.0.1:8000")
    content = hashlib.sha256()
    for file in sorted(tmp_path.rglob("*.*")):
        content.update(file.relative_to(tmp_path).as_posix().encode() + file.read_bytes())
    assert content.hexdigest()[:16] == digest


def test_questions_that_a_label_does_not_answer_are_rows_of_their_own(tmp_path: Path) -> None:
    """The images and the other rows are the same with and without them."""
    for name, share in (("plain", 0.0), ("silent", 0.3)):
        write_labels(tmp_path / name, train_rows=120, test_rows=5, level=PLAIN, base_url="http://x", unanswered=share)
    plain, silent = (read(tmp_path / name / "train.csv") for name in ("plain", "silent"))
    empty = [row for row in silent if not row["entity_value"]]
    answered = [tuple(row.values()) for row in silent if row["entity_value"]]
    assert 0.2 < len(empty) / len(silent) < 0.4
    assert sorted(answered) == sorted(tuple(row.values()) for row in plain)
    asked = [(row["image_link"], row["entity_name"]) for row in silent]
    assert len(set(asked)) == len(asked) and len({row["entity_name"] for row in empty}) == len(ENTITIES)
    assert (tmp_path / "plain" / "test.csv").read_text() == (tmp_path / "silent" / "test.csv").read_text()


def test_what_a_label_does_not_show_is_what_it_has_no_fact_about() -> None:
    for seed in range(50):
        label = make_label(random.Random(seed), level=PLAIN, entity_names=["voltage"])
        not_shown = find_not_shown(label, ["wattage"])
        assert set(not_shown) == set(ENTITIES) - set(label.facts) - {"wattage"} and "voltage" not in not_shown
