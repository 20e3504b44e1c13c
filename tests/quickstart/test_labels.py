import csv
import dataclasses
import itertools
import random
import re
from collections import Counter
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_builder.labels import LabelForm, label_form
from product_vqa.contact_sheet import SheetRow, contact_sheet
from product_vqa.errors import InputError
from product_vqa.task.quantity import format_quantity, parse_quantity
from product_vqa.task.schema import ENTITIES, UNITS_BY_ENTITY
from quickstart.drawing import FONT_FOLDER, SIZE, draw, encode
from quickstart.labels import LABEL_SHARES, main, write_labels
from quickstart.printing import (
    HARD,
    LEVELS,
    MAX_LINE_CHARACTERS,
    PLAIN,
    SPELLINGS_BY_UNIT,
    STANDARD,
    Label,
    Line,
    is_held_out,
    make_label,
    may_show,
    numbers_in,
)

LENGTHS = {"width", "height", "depth"}
# Dark ink on an even ground, rotated: whatever differs from the ground is print.
CLEAN_HARD = dataclasses.replace(HARD, is_coloured=False, max_noise=0.0, max_shade=0.0)

any_seed = st.integers(0, 2**32)
any_level = st.sampled_from(list(LEVELS.values()))


def labels(level, *, count, held_out=False):
    return [make_label(random.Random(seed), level=level, held_out=held_out) for seed in range(count)]


# ---- what is printed


@settings(max_examples=300, deadline=None)
@given(seed=any_seed, level=any_level, held_out=st.booleans())
def test_truth_is_printed_where_the_fact_says(seed, level, held_out):
    label = make_label(random.Random(seed), level=level, held_out=held_out)
    facts = [(line, fact) for line in label.lines for fact in line.facts]
    assert facts
    for line, fact in facts:
        assert line.text[fact.position :].startswith(fact.number)
        assert not re.match(r"[0-9.]", line.text[fact.position + len(fact.number) :])  # nor is it part of a longer one
        assert fact.position == 0 or not re.match(r"[0-9.]", line.text[fact.position - 1])
        assert fact.unit in line.text[fact.position + len(fact.number) :]
        assert fact.key in line.text
        assert fact.quantity.number == Decimal(fact.number)
        assert fact.quantity.unit in UNITS_BY_ENTITY[fact.entity_name]
        assert any(spelling.startswith(fact.unit) for spelling in SPELLINGS_BY_UNIT[fact.quantity.unit])
    for line in label.lines:
        assert line.text.isascii()
        assert line.text.isprintable()
        assert len(line.text) <= MAX_LINE_CHARACTERS
        assert line.text.startswith(line.key)


@settings(max_examples=300, deadline=None)
@given(seed=any_seed, level=any_level, held_out=st.booleans())
def test_each_question_has_one_answer(seed, level, held_out):
    label = make_label(random.Random(seed), level=level, held_out=held_out)
    facts = [fact for line in label.lines for fact in line.facts]
    assert len({fact.entity_name for fact in facts}) == len(facts) == len(label.facts)
    assert {fact.entity_name for fact in facts if not fact.key} <= {"voltage", "wattage", "item_volume"}
    spellings = "|".join(re.escape(spelling) for group in SPELLINGS_BY_UNIT.values() for spelling in group)
    value = re.compile(rf"[0-9] ?({spellings})(?![A-Za-z])")
    for line in label.lines:
        if not line.facts:
            assert not value.search(line.text), line.text
        elif len(line.facts) > 1:  # W 30 x H 20 in: lengths, one unit
            assert {fact.entity_name for fact in line.facts} <= LENGTHS
            assert len({fact.quantity.unit for fact in line.facts}) == 1
            assert numbers_in(line.text) == [fact.number for fact in line.facts]
        elif len(numbers_in(line.text)) > 1:  # 16.9 FL OZ (500 mL): the first, of the same size as the second
            assert numbers_in(line.text)[0] == line.facts[0].number
            assert line.text.count("(") == 1


def test_second_unit_is_the_same_amount():
    pattern = re.compile(r"([0-9.]+) ?(?:in|IN|inch) \(([0-9.]+) (?:cm|CM)\)")
    found = [
        match for label in labels(HARD, count=3000) for line in label.lines if (match := pattern.search(line.text))
    ]
    assert len(found) >= 20
    for match in found:
        assert float(match[2]) == pytest.approx(float(match[1]) * 2.54, abs=0.051)


@settings(max_examples=200, deadline=None)
@given(seed=any_seed, level=any_level)
def test_every_number_in_a_test_picture_is_held_out_and_none_in_a_training_picture(seed, level):
    for held_out in (False, True):
        label = make_label(random.Random(seed), level=level, held_out=held_out)
        numbers = [number for line in label.lines for number in numbers_in(line.text)]
        assert numbers
        assert {is_held_out(number) for number in numbers if len(number) > 1} <= {held_out}


def test_held_out_class_is_as_large_as_documented():
    classes = {
        "9": [str(n) for n in range(1, 10)],
        "99": [str(n) for n in range(10, 100)],
        "999": [str(n) for n in range(100, 1000)],
        "9999": [str(n) for n in range(1000, 10000)],
        "9.9": [f"{n // 10}.{n % 10}" for n in range(1, 1000) if n % 10],
        "9.99": [f"{n // 100}.{n % 100:02}" for n in range(1, 1000) if n % 10],
    }
    held_out = {name: (sum(map(is_held_out, numbers)), len(numbers)) for name, numbers in classes.items()}
    assert held_out == {
        "9": (0, 9),
        "99": (15, 90),
        "999": (94, 900),
        "9999": (910, 9000),
        "9.9": (73, 900),
        "9.99": (93, 900),
    }


@pytest.mark.parametrize("held_out", [False, True])
def test_every_unit_of_every_entity_and_every_spelling_appears(held_out):
    facts = [fact for label in labels(STANDARD, count=5000, held_out=held_out) for fact in label.facts.values()]
    asked = {(name, unit) for name, units in UNITS_BY_ENTITY.items() for unit in units}
    assert {(fact.entity_name, fact.quantity.unit) for fact in facts} == asked
    printed = {(fact.quantity.unit, fact.unit) for fact in facts}
    assert {(unit, spelling) for unit, group in SPELLINGS_BY_UNIT.items() for spelling in group} <= printed


def test_asked_entities_are_on_the_label():
    for level in LEVELS.values():
        for seed in range(200):
            rng = random.Random(seed)
            names = rng.sample(ENTITIES, 3)
            assert set(names) <= set(make_label(rng, level=level, entity_names=names).facts)


def test_levels_differ_as_stated():
    for level in LEVELS.values():
        for label in labels(level, count=300):
            assert len([line for line in label.lines if not line.is_brand]) in level.line_counts
    plain, standard, hard = (labels(level, count=1000) for level in (PLAIN, STANDARD, HARD))

    def share(made, condition):
        return sum(any(condition(line) for line in label.lines) for label in made) / len(made)

    def has_dimensions(line):
        return len(line.facts) > 1

    def has_two_units(line):
        return len(line.facts) == 1 and "(" in line.text

    assert share(plain, has_dimensions) == share(standard, has_dimensions) == 0
    assert share(plain, has_two_units) == share(standard, has_two_units) == 0
    assert share(hard, has_dimensions) > 0.3
    assert share(hard, has_two_units) > 0.2
    assert len(PLAIN.fonts) == 2
    assert len(STANDARD.fonts) == 5
    assert len(HARD.fonts) == 7


# ---- how it is drawn


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_same_seed_draws_the_same_pixels(level):
    def picture(seed):
        rng = random.Random(seed)
        label = make_label(rng, level=level)
        image, characters = draw(label, rng, level=level)
        return image.tobytes(), characters, encode(image, rng, level=level)

    assert picture(3) == picture(3)
    assert picture(3)[0] != picture(4)[0]


@settings(max_examples=60, deadline=None)
@given(seed=any_seed, level=any_level)
def test_every_character_is_reported_once_and_inside(seed, level):
    rng = random.Random(seed)
    label = make_label(rng, level=level)
    image, characters = draw(label, rng, level=level)
    assert image.size == (SIZE, SIZE)
    assert image.mode == "RGB"
    printed = [
        (char, line, position)
        for line in range(len(label.lines))
        for position, char in enumerate(label.lines[line].text)
        if char != " "
    ]
    assert [(character.char, character.line, character.position) for character in characters] == printed
    for character in characters:
        assert character.x - character.width / 2 >= 2
        assert character.x + character.width / 2 <= SIZE - 2
        assert 8 <= character.y <= SIZE - 8
    for before, after in itertools.pairwise(characters):  # reading order
        if before.line == after.line:
            assert before.x < after.x
    tops = [min(character.y for character in characters if character.line == line) for line in range(len(label.lines))]
    assert tops == sorted(tops)


def test_nothing_is_cut_off_and_each_character_has_ink_where_it_is_said_to_be():
    checked = 0
    for seed in range(100):
        rng = random.Random(seed)
        image, characters = draw(make_label(rng, level=CLEAN_HARD), rng, level=CLEAN_HARD)
        grey = np.asarray(image.convert("L")).astype(int)
        rim = np.concatenate([grey[:2].ravel(), grey[-2:].ravel(), grey[:, :2].ravel(), grey[:, -2:].ravel()])
        assert rim.min() == rim.max()
        for character in characters:
            x, y, half = round(character.x), round(character.y), max(2, round(character.width / 2) - 1)
            assert grey[y - 8 : y + 11, x - half : x + half + 1].min() < rim[0] - 80, (seed, character)
            checked += 1
    assert checked > 3000


@pytest.mark.parametrize("degrees", [0.0, 4.0, 15.0])
def test_rotation_moves_the_positions_with_the_ink(degrees):
    level = dataclasses.replace(CLEAN_HARD, max_degrees=degrees, fonts=("LiberationSans-Bold.ttf",))
    for seed in range(20):
        image, (character,) = draw(Label((Line("H"),)), random.Random(seed), level=level)
        ink = 255 - np.asarray(image.convert("L")).astype(float)
        ink -= ink[0, 0]
        ink[ink < 20] = 0
        y, x = np.average(np.indices(ink.shape).reshape(2, -1), axis=1, weights=ink.ravel()) + 0.5
        assert abs(x - character.x) < 1.2
        assert abs(y - character.y) < 1.2


def test_fonts_ship_with_their_licences():
    fonts = {file.name for file in FONT_FOLDER.iterdir() if file.suffix in (".ttf", ".otf")}
    assert fonts == set(HARD.fonts)
    readme = (FONT_FOLDER / "README.md").read_text()
    licences = {file.name for file in FONT_FOLDER.glob("LICENSE-*.txt")}
    assert all(font in readme for font in fonts)
    assert licences == set(re.findall(r"LICENSE-[\w.-]+\.txt", readme))
    assert sum(file.stat().st_size for file in FONT_FOLDER.iterdir()) <= 2.5e6


# ---- rows


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder, train_rows=1000, test_rows=400, seed=5, level=PLAIN, base_url="http://127.0.0.1:9/images/")
    return folder


def read(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_files_have_the_form_of_the_challenge(written):
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


def test_links_lead_to_the_pictures_and_no_picture_is_in_both_files(written):
    train, test = ({row["image_link"] for row in read(written / name)} for name in ("train.csv", "test.csv"))
    assert not train & test
    names = {file.name for file in (written / "images").iterdir()}
    assert {f"http://127.0.0.1:9/images/{name}" for name in names} == train | test
    for name in sorted(names)[:20]:
        with Image.open(written / "images" / name) as image:
            assert (image.format, image.size) == ("JPEG", (SIZE, SIZE))


def test_train_labels_have_the_stated_forms(written):
    labels = [row["entity_value"] for row in read(written / "train.csv")]
    forms = Counter(label_form(label) for label in labels)
    expected = {form: round(share * 1000) for form, share in LABEL_SHARES.items()}
    assert forms == {**expected, LabelForm.PLAIN: 1000 - sum(expected.values())}
    assert set(expected) == set(LabelForm) - {LabelForm.PLAIN}
    whole = [label for label in labels if re.fullmatch(r"[0-9]+(\.0)? .*", label)]
    short = [label for label in whole if ".0 " not in label]
    assert 0.04 < len(short) / len(whole) < 0.2


def test_test_answers_are_canonical_and_held_out(written):
    for row in read(written / "test_answers.csv"):
        quantity = parse_quantity(row["entity_value"])
        assert row["entity_value"] == format_quantity(quantity)
        assert quantity.unit in UNITS_BY_ENTITY[row["entity_name"]]
        assert may_show(row["entity_value"].split()[0].removesuffix(".0"), held_out=True)
    numbers = [number for row in read(written / "train.csv") for number in numbers_in(row["entity_value"])]
    plain = [row["entity_value"] for row in read(written / "train.csv") if label_form(row["entity_value"]) == "plain"]
    assert len(numbers) > len(plain) > 900
    assert not any(is_held_out(label.split()[0].removesuffix(".0")) for label in plain)


def test_entities_have_equal_shares_and_questions_share_pictures(written):
    for name, shared_low, shared_high in (("train.csv", 0.02, 0.12), ("test.csv", 0.47, 0.67)):
        rows = read(written / name)
        entities = Counter(row["entity_name"] for row in rows)
        assert set(entities) == set(ENTITIES)
        assert max(entities.values()) - min(entities.values()) <= 2
        pictures = Counter(row["image_link"] for row in rows)
        shared = sum(count for count in pictures.values() if count > 1) / len(rows)
        assert shared_low < shared < shared_high
        assert len({(row["image_link"], row["entity_name"]) for row in rows}) == len(rows)


def test_same_seed_writes_the_same_files(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_labels(tmp_path / name, train_rows=20, test_rows=10, seed=seed, level=HARD, base_url="http://x")
    files = {
        name: {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    }
    assert files["a"] == files["b"]
    assert len(files["a"]) > 20
    pictures = {name: {file for file in files[name] if file.endswith(".jpg")} for name in "ac"}
    assert not pictures["a"] & pictures["c"]


def test_contact_sheet_has_room_for_predictions():
    rng = random.Random(0)
    label = make_label(rng, level=STANDARD, entity_names=["voltage"])
    image, _ = draw(label, rng, level=STANDARD)
    truth = format_quantity(label.facts["voltage"].quantity)
    unanswered, answered = (
        contact_sheet([SheetRow(image, "voltage", truth, prediction)] * 12) for prediction in (None, truth)
    )
    assert unanswered.size == answered.size == (1024, 924)
    assert unanswered.tobytes() != answered.tobytes()


def test_command_writes_the_files_and_prints_nothing(tmp_path, capsys):
    options = ["--output_dir", str(tmp_path / "out"), "--train_rows", "6", "--test_rows", "4"]
    main([*options, "--seed", "3", "--level", "hard"])
    assert capsys.readouterr() == ("", "")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "images",
        "train.csv",
        "test.csv",
        "test_answers.csv",
    }
    with pytest.raises(InputError, match="plain, standard, hard"):
        main([*options, "--level", "easy"])
