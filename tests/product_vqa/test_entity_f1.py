import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from product_vqa.entity_f1.scoring import Counts, count, equal_as_quantities, score

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


@pytest.mark.slow
def test_its_folder_is_a_space_that_scores(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra `demo`")
    folder = shutil.copytree(ROOT / "product_vqa" / "entity_f1", tmp_path / "entity_f1")
    program = "import app; print(app.score([['10.0 gram', '10 gram'], ['5.0 volt', '5.0 volt'], [None, '']]))"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert "'precision': 0.5" in done.stdout, done.stderr
    assert "'f1_quantity': 1.0" in done.stdout
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
    assert imports == ["import datasets", "import evaluate", "from .scoring import score"]
