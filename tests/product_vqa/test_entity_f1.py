import re
import runpy
import shutil
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from product_vqa.entity_f1.scoring import Counts, Meaning, count, equal_as_quantities, score
from tests.inference.schemas import SCHEMAS, TEXTS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("prediction", "reference", "counts"),
    [  # the scoring rules of the challenge, one by one: tp, fp, fn, tn
        ("5.0 gram", "5.0 gram", Counts(1, 0, 0, 0)),
        ("5.0 gram", "6.0 gram", Counts(0, 1, 0, 0)),
        ("5.0 gram", "", Counts(0, 1, 0, 0)),
        ("", "5.0 gram", Counts(0, 0, 1, 0)),
        ("", "", Counts(0, 0, 0, 1)),
        ("5 gram", "5.0 gram", Counts(0, 1, 0, 0)),
        (" 5.0 gram ", "5.0 gram", Counts(1, 0, 0, 0)),
        ("  ", "5.0 gram", Counts(0, 0, 1, 0)),
    ],
)
def test_each_pair_counts_as_the_challenge_says(prediction: str, reference: str, counts: Counts) -> None:
    assert count([prediction], [reference]) == counts
    twice = Counts(*(2 * number for number in vars(counts).values()))
    assert count([prediction] * 2, [reference] * 2) == twice


def test_f1_is_the_harmonic_mean_worked_out_by_hand() -> None:
    # 3 right, 1 wrong, 2 owed: precision 3/4, recall 3/5, F1 = 2 * 0.45 / 1.35 = 2/3
    scores = score(["a", "b", "c", "x", "", ""], ["a", "b", "c", "d", "e", "f"])
    assert scores["precision"] == 0.75
    assert scores["recall"] == 0.6
    assert scores["f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("10 gram", "10.0 gram", True),
        ("10 gram", "10.01 gram", False),
        ("1 kilogram", "1000 gram", False),
        ("1 meter", "1.0 metre", True),
        ("2 cubic feet", "2.0 cubic foot", True),
        ("[1.0, 2.0] gram", "[1.0, 2.0] gram", True),
        ("[1.0, 2.0] gram", "[1, 2] gram", False),
        ("0.30000000000000000001 cup", "0.3 cup", False),
    ],
)
def test_quantities_are_equal_in_number_and_unit(left: str, right: str, equal: bool) -> None:
    assert equal_as_quantities(left, right) is equal
    assert equal_as_quantities(right, left) is equal


def test_nothing_to_score_is_zero_and_not_an_error() -> None:
    assert score([], [])["f1"] == 0.0
    assert score([""], [""])["true_negatives"] == 1


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        score(["a"], [])


answers = st.sampled_from(["", "1 gram", "1.0 gram", "2.0 gram", "2.0 kilogram", "[1.0, 2.0] volt"])


@settings(max_examples=200)
@given(st.lists(st.tuples(answers, answers), max_size=60))
def test_f1_agrees_with_its_definition_written_out(pairs: list[tuple[str, str]]) -> None:
    def definition(same: object) -> float:
        tp = sum(1 for p, r in pairs if p and r and same(p, r))  # type: ignore[operator]
        fp = sum(1 for p, r in pairs if p and not (r and same(p, r)))  # type: ignore[operator]
        fn = sum(1 for p, r in pairs if not p and r)
        precision = tp / (tp + fp) if tp + fp else 0.0
        recall = tp / (tp + fn) if tp + fn else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def as_numbers(text: str) -> object:
        number, _, unit = text.partition(" ")
        return (Decimal(number), unit) if not text.startswith("[") else text

    scores = score([p for p, _ in pairs], [r for _, r in pairs])
    assert scores["f1"] == pytest.approx(definition(lambda p, r: p == r))
    assert scores["f1_quantity"] == pytest.approx(definition(lambda p, r: as_numbers(p) == as_numbers(r)))


def test_the_evaluate_library_loads_it_as_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    import evaluate

    monkeypatch.chdir(ROOT)
    metric = evaluate.load("product_vqa/entity_f1")
    predictions, references = ["10.0 gram", "", "3.0 volt"], ["10 gram", "5.0 volt", "3.0 volt"]
    assert metric.compute(predictions=predictions, references=references) == score(predictions, references)
    scores = metric.compute(
        predictions=["0.5 kg", "Navy", "AB-1234"],
        references=["500 gram", "navy blue", "ab-1234"],
        units={"weight": {"gram": 1, "kilogram": {"size": 1000, "spellings": ["kg"]}}},
        synonyms={"navy": "navy blue"},
    )
    assert (scores["f1"], scores["f1_quantity"], scores["f1_meaning"]) == (0.0, 0.0, 1.0)


UNITS = yaml.safe_load(TEXTS["nutrition"])["units"] | yaml.safe_load(TEXTS["electronics"])["units"]
MEANING = Meaning.of(UNITS, {"navy": "navy blue", "with": "yes"})


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("3500 mg", "3.5 gram", True),
        ("3.5g", "3.5 gram", True),
        ("100 kcal", "418.4 kJ", True),
        ("100 kcal", "418.5 kJ", False),
        ("-5 g", "5 g", False),
        ("5 Hz", "5 hz", False),  # the case of a unit may count: mW and MW
        ("1 TB", "1000 gigabyte", True),
        ("1000 gram", "1000 hertz", False),  # other dimensions
        ("1000 gram", "1 kilohertz", False),
        ("0.1 gram", "100.00000000000000000000000000001 mg", False),
        ("NAVY", "navy  blue", True),
        ("with", "yes", True),
        ("navy", "red", False),
        ("AB-1234", "ab-1234", True),
        ("007", "7", False),  # a code
        ("5 pounds", "5 POUNDS", True),  # a unit that is not given: text
        ("[1.0, 2.0] gram", "[1.0, 2.0] gram", True),
    ],
)
def test_answers_of_the_same_meaning_are_equal(left: str, right: str, equal: bool) -> None:
    assert (MEANING(left) == MEANING(right)) is equal
    scores = score([left], [right], units=UNITS, synonyms={"navy": "navy blue", "with": "yes"})
    assert scores["f1_meaning"] == float(equal)
    assert score([left], [right]) == {name: value for name, value in scores.items() if name != "f1_meaning"}


def test_what_it_means_that_an_answer_is_empty_does_not_change() -> None:
    scores = score(["", "", "navy"], ["", "red", ""], synonyms={})
    assert (scores["true_negatives"], scores["false_negatives"], scores["false_positives"]) == (1, 1, 1)
    assert scores["f1_meaning"] == 0.0


@pytest.mark.parametrize("name", SCHEMAS)
def test_canonical_answers_are_equal_as_their_schema_says(name: str) -> None:
    answers = {
        "energy": ["418.4 kilojoule", "100.0 kilocalorie", "100.0 kilojoule"],
        "fat": ["0.1 gram", "100.0 milligram", "100.0 gram"],
        "salt": ["0.1 gram", "100.0 milligram"],
        "servings": ["1", "10"],
        "size": ["S", "NA"],
        "colour": ["navy blue", "red"],
        "material": ["cotton", "cotton, wool"],
        "memory": ["1 terabyte", "1000 gigabyte", "1 gigabyte"],
        "battery": ["1000 milliampere hour", "1 milliampere hour"],
        "refresh_rate": ["1.0 kilohertz", "1000.0 hertz"],
        "bluetooth": ["yes", "no"],
        "model_number": ["AB-1234", "AB-123"],
        "brand": ["acme", "Acme", "ac me"],
    }
    meaning = Meaning.of(yaml.safe_load(TEXTS[name]).get("units", {}), {})
    for attribute in SCHEMAS[name].attributes.values():
        for one in answers[attribute.name]:
            for other in answers[attribute.name]:
                assert (meaning(one) == meaning(other)) is attribute.is_same(one, other), (one, other)


@pytest.mark.parametrize(
    ("units", "synonyms", "message"),
    [
        ({"a": {"gram": 0}}, {}, "units: the size of 'gram' is 0, not a positive number"),
        ({"a": {"gram": "heavy"}}, {}, "units: the size of 'gram' is 'heavy', not a positive number"),
        ({"a": {"gram": {"spellings": ["g"]}}}, {}, "units: the size of 'gram' is None, not a positive number"),
        ({"a": {"gram": 1}, "b": {"gram": 1}}, {}, "units: 'gram' spells two units"),
        ({"a": {"gram": 1, "kilo": {"size": 2, "spellings": ["gram"]}}}, {}, "units: 'gram' spells two units"),
        (
            {},
            {"navy": "blue", "Navy": "dark blue"},
            "synonyms: 'Navy' spells two values; case and spaces do not count",
        ),
    ],
)
def test_units_and_synonyms_that_cannot_be_used_are_named(units: dict, synonyms: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        score(["a"], ["b"], units=units, synonyms=synonyms)


@pytest.mark.slow
def test_its_folder_is_a_space_that_scores(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    folder = shutil.copytree(ROOT / "product_vqa" / "entity_f1", tmp_path / "entity_f1")
    app = runpy.run_path(str(folder / "app.py"))
    scores = app["score"]([["10.0 gram", "10 gram"], ["5.0 volt", "5.0 volt"], [None, ""]])
    assert (scores["precision"], scores["f1_quantity"]) == (0.5, 1.0)
    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert front["app_file"] == "app.py"
    assert {"evaluate", "metric"} <= set(front["tags"])


def test_the_metric_can_be_published_as_it_is() -> None:
    """It imports nothing of this project but its own scoring, which imports nothing but the standard library."""
    folder = ROOT / "product_vqa" / "entity_f1"
    assert "product_vqa" not in (folder / "scoring.py").read_text()
    imports = [
        line for line in (folder / "entity_f1.py").read_text().splitlines() if line.startswith(("import", "from"))
    ]
    assert imports == [
        "from typing import Any", "import datasets", "import evaluate", "from .scoring import score",
    ]  # fmt: skip
