"""The evaluation's sample, its answers on any number of processes, and its scores."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from product_vqa.errors import argument
from product_vqa.hub import Location
from product_vqa.modeling.loading import load_base_model, load_processor
from product_vqa.task.features import FEATURES
from product_vqa.task.schema import CHALLENGE
from tests.product_vqa.modeling.schemas import ALL_KINDS
from tests.tiny import make_rows
from training import evaluation
from training.evaluation import Answered, answer_sample, sample_rows, score, split_rows


def test_the_sample_is_always_the_same_and_each_entity_has_its_share() -> None:
    rows = make_rows(40) + [row | {"entity_name": "wattage"} for row in make_rows(40, start=40)]
    dataset = Dataset.from_list(rows, features=FEATURES)  # 10 each of four entities, 40 of one
    sample = sample_rows(dataset, 16, seed=1)
    assert Counter(sample["entity_name"]) == {
        "wattage": 8, "item_weight": 2, "voltage": 2, "width": 2, "maximum_weight_recommendation": 2,
    }  # fmt: skip
    assert sample["index"][:] == sample_rows(dataset, 16, seed=1)["index"][:]
    assert sample["index"][:] != sample_rows(dataset, 16, seed=2)["index"][:]
    assert len(sample_rows(dataset, 1000, seed=1)) == 80


def test_the_other_rows_are_all_those_outside_the_sample() -> None:
    dataset = Dataset.from_list(make_rows(40), features=FEATURES)
    chosen, others = split_rows(dataset, 12, seed=1)
    assert chosen["index"][:] == sample_rows(dataset, 12, seed=1)["index"][:]
    assert sorted([*chosen["index"], *others["index"]]) == list(range(40))


def test_scores_and_their_intervals_by_hand() -> None:
    # Twenty images, each asked twice: on half of them both predictions are right as quantities, one of them exactly.
    answered = [
        Answered(
            row, f"image {row // 2}", "width", "1.0 inch" if row < 20 else "", "1.0 inch" if row % 2 else "1 inch"
        )
        for row in range(40)
    ]
    scores = score(answered, schema=CHALLENGE)
    # 20 predictions, all right, and 20 missing: precision 1, recall 0.5. Exactly right: precision 0.5, recall 1/3.
    assert scores["f1_quantity"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(0.4)
    assert (scores["exact_width"], scores["samples"]) == (0.5, 40)
    # Images answered: binomial(20, 1/2), 95 % of them 6 to 14; F1 of a share s is 2 s / (1 + s).
    assert scores["f1_quantity_low"] == pytest.approx(2 * 0.3 / 1.3, abs=0.04)
    assert scores["f1_quantity_high"] == pytest.approx(2 * 0.7 / 1.7, abs=0.04)


def test_answers_of_every_kind_are_scored_by_their_meaning() -> None:
    answers = [
        ("storage", "1 terabyte", "1 TB", False),  # not a spelling of the schema
        ("storage", "16 gigabyte", "16.0 gigabyte", True),
        ("storage", "1000 gigabyte", "1 terabyte", False),  # units are not converted
        ("colour", "navy blue", "Navy  Blue", True),
        ("material", "cotton, wool", "wool / cotton", True),
        ("material", "cotton", "wool / cotton", False),
        ("model", "AB-12", "AB-12", True),
        ("brand", "acme", "ACME", True),
        ("slogan", "", "", True),  # rightly not shown
        ("slogan", "the best", "", False),
        ("weight", "", "1 gram", False),
    ]
    answered = [Answered(row, f"{row}", name, *texts) for row, (name, *texts, _) in enumerate(answers)]
    scores = score(answered, schema=ALL_KINDS)
    # Nine predictions, of which five are right (rightly nothing counts for neither), and one answer is missing.
    assert sum(is_right for *_, is_right in answers) == 6
    assert scores["f1_quantity"] == pytest.approx(2 / (9 / 5 + 6 / 5))
    assert scores["f1"] == pytest.approx(2 / (9 / 1 + 2 / 1))  # the model number alone
    assert {name: scores[f"exact_{name}"] for name in ("storage", "colour", "material", "slogan", "weight")} == {
        "storage": pytest.approx(1 / 3), "colour": 1.0, "material": 0.5, "slogan": 0.5, "weight": 0.0,
    }  # fmt: skip
    assert (scores["not_finite"], scores["samples"]) == (0, 11)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_processes_together_answer_every_row_once(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Nine rows make five batches of two. So that all processes answer as many, some answer the last one again."""
    base = Location(str(tiny_base))
    with argument("base"):
        model, processor = load_base_model(base, dtype=torch.float32), load_processor(base)
    dataset = Dataset.from_list(make_rows(9), features=FEATURES)
    rounds: list[int] = []
    answered = []
    monkeypatch.setattr(evaluation, "gather_object", lambda mine: mine)
    alone = evaluation.generate_answers
    monkeypatch.setattr(evaluation, "generate_answers", lambda *a, **kw: alone(*a, **(kw | {"synced_gpus": False})))
    for process in range(processes):
        state = SimpleNamespace(process_index=process, num_processes=processes)
        monkeypatch.setattr(evaluation, "init_distributed", lambda state=state: state)
        before = len(rounds)
        mine = answer_sample(
            model, dataset, processor=processor, batch_size=2, schema=CHALLENGE, before_batch=lambda: rounds.append(1)
        )
        assert len(rounds) - before == -(-5 // processes), "the others would wait for it"
        answered += mine
    assert sorted(one.row for one in answered) == list(range(9))
    for one in answered:
        row = dataset[one.row]
        assert (one.entity_name, one.reference) == (row["entity_name"], row["entity_value_raw"])
        assert one.prediction, "even a random model answers"
    assert score(answered, schema=CHALLENGE)["samples"] == 9


def test_an_evaluation_can_be_stopped_between_two_batches(tiny_base: Path) -> None:
    base = Location(str(tiny_base))
    with argument("base"):
        model, processor = load_base_model(base, dtype=torch.float32), load_processor(base)
    batches = 0

    def stop_after_two() -> None:
        nonlocal batches
        batches += 1
        if batches > 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        answer_sample(
            model, Dataset.from_list(make_rows(9), features=FEATURES), processor=processor, batch_size=2,
            schema=CHALLENGE, before_batch=stop_after_two,
        )  # fmt: skip


def test_an_evaluation_survives_logits_that_are_not_numbers(tiny_base: Path) -> None:
    """float16 may overflow early in a training. Then the losses must stop the run, not an error of the evaluation."""
    location = Location(str(tiny_base))
    model = load_base_model(location, dtype=torch.float32)
    model.lm_head.weight.data.fill_(float("nan"))
    answered = answer_sample(
        model,
        Dataset.from_list(make_rows(5), features=FEATURES),
        processor=load_processor(location),
        schema=CHALLENGE,
        batch_size=2,
    )
    assert [one.prediction for one in answered] == [""] * 5
    assert score(answered, schema=CHALLENGE)["f1"] == 0.0
