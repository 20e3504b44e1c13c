import pytest
import torch

from product_vqa.hub import Location
from product_vqa.modeling.loading import load_base_model, load_processor
from quickstart.pretraining.accuracy import count_correct, make_questions
from quickstart.rendering.levels import STANDARD
from quickstart.rendering.printed_numbers import is_held_out, may_show, numbers_in
from tests.commands import ROOT

pytestmark = pytest.mark.slow

BASE = ROOT / "quickstart" / "base"


@pytest.mark.faults
def test_the_questions_are_about_held_out_numbers_only() -> None:
    questions = make_questions("get", rows=20, level=STANDARD, seed=0)
    numbers = [number for _, question in questions for number in numbers_in(question.answer)]
    assert len(numbers) == 20
    assert all(may_show(number, held_out=True) for number in numbers)
    assert any(is_held_out(number) for number in numbers)


def test_the_shipped_base_model_reads() -> None:
    model = load_base_model(Location(str(BASE)), dtype=torch.float32).eval()
    processor = load_processor(Location(str(BASE)))
    questions = make_questions("get", rows=50, level=STANDARD, seed=1)
    assert count_correct(model, questions, processor=processor) > 0.6 * 50
