from pathlib import Path

import pytest

from product_vqa.errors import InputError
from quickstart.pretraining.samples import ANSWERS_FROM
from quickstart.pretraining.trainer import BASE_PROGRESS
from tests.quickstart.pretraining.runs import make_pretrainer


@pytest.mark.slow
@pytest.mark.parametrize("progress", [0.0, 0.4])
def test_the_loss_falls_within_a_few_steps(progress: float) -> None:
    trainer = make_pretrainer()
    losses = []
    for _ in range(40):
        metrics = trainer.train_step(progress)
        if progress < ANSWERS_FROM:
            losses.append(metrics["patch_loss"])
        else:
            losses.append(metrics["packed_loss"] if "packed_loss" in metrics else metrics["answer_loss"])
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_the_first_stage_leaves_the_language_model_as_it_was() -> None:
    trainer = make_pretrainer()
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train_step(0.0)
    moved = {name for name, parameter in trainer.model.named_parameters() if not parameter.equal(before[name])}
    assert moved
    assert all("vision_tower" in name for name in moved)
    trainer.train_step(0.9)
    moved = {name for name, parameter in trainer.model.named_parameters() if not parameter.equal(before[name])}
    assert len(moved) == len(before)


def test_a_run_resumed_from_its_checkpoint_continues_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    progress = (0.0, 0.15, 0.5, 0.9)  # in both stages
    uninterrupted = make_pretrainer()
    losses = [uninterrupted.train_step(value)["patch_loss"] for value in progress]
    killed = make_pretrainer()
    for value in progress[:2]:
        killed.train_step(value)
    killed.save(tmp_path / "checkpoint.pt")
    resumed = make_pretrainer()
    resumed.load(tmp_path / "checkpoint.pt")
    assert [resumed.train_step(value)["patch_loss"] for value in progress[2:]] == losses[2:]
    for name, tensor in uninterrupted.model.state_dict().items():
        assert resumed.model.state_dict()[name].equal(tensor), name
    assert (resumed.step, resumed.images) == (4, 16)
    with pytest.raises(InputError, match="holds a run with seed 0, not 1"):
        make_pretrainer(seed=1).load(tmp_path / "checkpoint.pt")


def test_a_base_model_is_trained_further(tmp_path: Path) -> None:
    first = make_pretrainer()
    first.train_step(0.9)
    first.save_base(tmp_path / "base")
    further = make_pretrainer(base=str(tmp_path / "base"))
    assert further.progress == BASE_PROGRESS
    for name, tensor in first.model.state_dict().items():
        assert further.model.state_dict()[name].equal(tensor.bfloat16().float()), name
    for _ in range(2):  # the clock is one step late
        further.train_step(further.progress)
    assert BASE_PROGRESS < further.progress < 1
    with pytest.raises(InputError, match=r"`base`.* has other sizes or tokens than the model of these options"):
        make_pretrainer(base=str(tmp_path / "base"), layers=2)
    with pytest.raises(InputError, match=r"`base`.*missing"):
        make_pretrainer(base=str(tmp_path / "missing"))


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_a_step_in_bfloat16_has_nearly_the_loss_of_float32(progress: float) -> None:
    metrics = [make_pretrainer(bf16=bf16).train_step(progress) for bf16 in (False, True)]
    assert metrics[0] != metrics[1]
    for name, value in metrics[0].items():
        assert metrics[1][name] == pytest.approx(value, rel=0.02, abs=0.02), name
