"""Pretraining in miniature, what its samples show and hide, and the base that ships."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from product_vqa.errors import InputError, argument
from product_vqa.hub import Location
from product_vqa.modeling.loading import load_base, load_processor
from quickstart.drawing import SIZE, draw
from quickstart.muon import orthogonalize
from quickstart.packing import pack
from quickstart.patch_targets import HEADS, patch_targets
from quickstart.pretrain import ANSWERS_FROM, Pretraining, PretrainOptions, draw_picture, to_pixels
from quickstart.printing import STANDARD, Label, Line, is_held_out, make_label, may_show, numbers_in
from quickstart.reading import count_right, make_questions, measure
from quickstart.reading_tasks import KINDS, Question, ask, ask_several
from quickstart.small_paligemma import make_model, make_processor
from tests.commands import CPU_2, launch

BASE = Path(__file__).parents[2] / "quickstart" / "base"
TINY = {"hidden_size": 64, "layers": 1, "image_size": 56, "batch_size": 4}


def make_training(**changes: int) -> Pretraining:
    return Pretraining(PretrainOptions(**{**TINY, **changes}))


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_loss_falls_within_a_few_steps(share: float) -> None:
    training = make_training()
    losses = []
    for _ in range(24):
        figures = training.train_step(share)
        is_answering = share >= ANSWERS_FROM
        losses.append(
            figures.get("packed_loss", figures.get("answer_loss")) if is_answering else figures["patch_loss"]
        )
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_the_first_stage_leaves_the_language_model_as_it_was() -> None:
    training = make_training()
    before = {name: parameter.clone() for name, parameter in training.model.named_parameters()}
    training.train_step(0.0)
    moved = {name for name, parameter in training.model.named_parameters() if not parameter.equal(before[name])}
    assert moved
    assert all("vision_tower" in name for name in moved)
    training.train_step(0.9)
    moved = {name for name, parameter in training.model.named_parameters() if not parameter.equal(before[name])}
    assert len(moved) == len(before)


def test_a_run_resumed_from_its_checkpoint_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    shares = (0.0, 0.15, 0.5, 0.9)  # across the border between the stages
    whole = make_training()
    losses = [whole.train_step(share)["patch_loss"] for share in shares]
    killed = make_training()
    for share in shares[:2]:
        killed.train_step(share)
    killed.save(tmp_path / "checkpoint.pt")
    resumed = make_training()
    resumed.load(tmp_path / "checkpoint.pt")
    assert [resumed.train_step(share)["patch_loss"] for share in shares[2:]] == losses[2:]
    for name, tensor in whole.model.state_dict().items():
        assert resumed.model.state_dict()[name].equal(tensor), name
    assert (resumed.step, resumed.pictures) == (4, 16)
    with pytest.raises(InputError, match="holds a run with --seed 0, not 1"):
        make_training(seed=1).load(tmp_path / "checkpoint.pt")


def test_two_processes_train_together_and_leave_a_base_that_loads(tmp_path: Path) -> None:
    sizes = [f"--{name}={value}" for name, value in TINY.items()]
    done = launch(
        "quickstart.pretrain",
        *("--minutes", "0.01", "--eval_rows", "1", "--output_dir", tmp_path, *sizes),
        config_file=CPU_2,
    )
    assert "pictures in 0.0 minutes" in done.stdout
    header, row = (tmp_path / "curve.csv").read_text().splitlines()
    steps, pictures = (int(row.split(",")[header.split(",").index(name)]) for name in ("step", "pictures"))
    assert pictures == 2 * TINY["batch_size"] * steps > 0
    base = Location(str(tmp_path / "base"))
    with argument("base"):
        model = load_base(base, dtype=torch.float32)
    shares = measure(model, processor=load_processor(base), rows=2, level=STANDARD)
    assert shares.keys() == set(KINDS)
    resumed = make_training()
    resumed.load(tmp_path / "checkpoint.pt")
    assert resumed.step == steps


@pytest.mark.parametrize("share", [0.0, 0.05, 0.22, 0.28, 0.32, 0.9])
def test_no_sample_carries_a_held_out_number(share: float) -> None:
    rng = random.Random(share)
    seen = 0
    for _ in range(60):
        label, _, _ = draw_picture(rng, share)
        texts = [line.text for line in label.lines]
        texts += [question.prompt for _ in range(4) if (question := ask("expand", label, rng)) is not None]
        for number in (number for text in texts for number in numbers_in(text)):
            assert not is_held_out(number)
            seen += 1
    assert seen > 200


def test_the_evaluation_shows_held_out_numbers_only() -> None:
    questions = make_questions("get", rows=20, level=STANDARD, seed=0)
    numbers = [number for _, question in questions for number in numbers_in(question.answer)]
    assert len(numbers) == 20
    assert all(may_show(number, held_out=True) for number in numbers)
    assert any(is_held_out(number) for number in numbers)


def test_pretraining_never_asks_the_question_of_the_fine_tuning() -> None:
    from product_vqa.task.prompt import format_prompt
    from product_vqa.task.schema import ENTITIES

    rng = random.Random(0)
    asked = [question for _ in range(300) for question in ask_several(make_label(rng, level=STANDARD), rng, count=6)]
    assert len(asked) > 1000
    assert {question.kind for question in asked} == set(KINDS)
    assert not {question.prompt for question in asked} & {format_prompt(entity) for entity in ENTITIES}


def test_questions_are_answered_as_printed() -> None:
    rng = random.Random(3)
    label = make_label(rng, level=STANDARD, entity_names=["item_weight"])
    fact = label.facts["item_weight"]
    while (question := ask("get", label, rng)).prompt != "What is the mass?":
        pass
    assert question.answer == f"{fact.number} {fact.unit}"
    assert ask("all", label, rng).answer.split("|") == [line.text for line in label.lines]
    other = Label((Line("Lot: AX-7", key="Lot"), Line("Lot 9", key="Lot"), Line("Code: K5", key="Code")))
    assert ask("after", other, rng) == Question("after", "read after Code", "K5")
    assert ask("get", other, rng) is None


@pytest.fixture(scope="module")
def processor():
    return make_processor(image_size=56, patch_size=8)


def test_pixels_are_those_of_the_processor(processor) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
    expected = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"][0]
    made = torch.from_numpy(to_pixels(image, size=56).copy()).permute(2, 0, 1).float().div(127.5).sub(1)
    torch.testing.assert_close(made, expected, atol=0, rtol=0)


def test_a_single_question_is_masked_as_paligemma_masks_it_and_packed_ones_do_not_see_each_other(processor) -> None:
    model = make_model(processor, patch_size=8, hidden_size=64, layers=2).eval()
    asked = [Question("get", "What is the mass?", "34 g"), Question("line", "read line 2", "Net Wt: 34 kg")]
    pixels = torch.randn(1, 3, 56, 56)

    def logits(batch, row=0):
        with torch.inference_mode():
            return model(
                input_ids=batch.input_ids,
                pixel_values=pixels.expand(len(batch.input_ids), -1, -1, -1),
                position_ids=batch.position_ids,
                attention_mask=batch.attention_mask,
            ).logits[row]

    batch = processor(
        images=[Image.new("RGB", (8, 8))] * 2,
        text=[f"<image>{question.prompt}" for question in asked],
        suffix=[question.answer for question in asked],
        return_tensors="pt",
        padding=True,
        padding_side="right",
    )
    single = pack([[asked[0]], [asked[1]]], processor=processor)
    assert single.input_ids.equal(batch["input_ids"])
    labels = batch.pop("labels").masked_fill(batch["attention_mask"] == 0, -100)
    assert single.labels.equal(labels)
    batch["pixel_values"] = pixels.expand(2, -1, -1, -1)
    with torch.inference_mode():
        expected = model(**batch).logits
    for row in range(2):
        length = int(batch["attention_mask"][row].sum())
        torch.testing.assert_close(logits(single, row)[:length], expected[row, :length], atol=1e-5, rtol=0)

    both = logits(pack([asked], processor=processor))
    other = logits(pack([[asked[0], Question("line", "read line 3", "Lot 12")]], processor=processor))
    first_ends = int((single.labels[0] != -100).nonzero()[-1])
    torch.testing.assert_close(both[:first_ends], other[:first_ends], atol=1e-5, rtol=0)


def test_a_packed_question_stands_directly_behind_the_image_wherever_it_is_packed(processor) -> None:
    """So that pretraining teaches what is asked later: one question behind one image."""
    model = make_model(processor, patch_size=8, hidden_size=64, layers=2).eval()
    asked = [Question("get", "What is the mass?", "34 g"), Question("line", "read line 2", "Net Wt: 34 kg")]
    asked.append(Question("after", "read after Code", "K5"))
    image_tokens, pixels = processor.image_seq_length, torch.randn(1, 3, 56, 56)
    alone = [pack([[question, question]], processor=processor) for question in asked]
    lengths = [(batch.input_ids.shape[1] - image_tokens) // 2 for batch in alone]
    packed = pack([asked], processor=processor)
    expected = [*range(1, image_tokens + 1)]
    for length in lengths:
        expected += range(image_tokens + 1, image_tokens + 1 + length)
    assert packed.position_ids[0].tolist() == expected

    def answer_logits(questions) -> list[torch.Tensor]:
        batch = pack([questions], processor=processor)
        with torch.inference_mode():
            logits = model(
                input_ids=batch.input_ids,
                pixel_values=pixels,
                position_ids=batch.position_ids,
                attention_mask=batch.attention_mask,
            ).logits[0]
        return list(logits[image_tokens:].split([lengths[asked.index(question)] for question in questions]))

    forwards, backwards = answer_logits(asked), answer_logits(asked[::-1])[::-1]
    for one, other in zip(forwards, backwards, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_patch_targets_say_what_is_printed_where() -> None:
    rng = random.Random(1)
    label = make_label(rng, level=STANDARD, entity_names=["voltage"])
    _, characters = draw(label, rng, level=STANDARD)
    targets = dict(zip(HEADS, patch_targets(label, characters, grid=28), strict=True))
    fact = label.facts["voltage"]
    line = next(index for index, line in enumerate(label.lines) if fact in line.facts)
    digit = next(c for c in characters if c.line == line and c.position == fact.position)
    patch = int(digit.y / 8) * 28 + int(digit.x / 8)
    assert chr(targets["first"][patch] + 32) == fact.number[0]
    assert targets["line"][patch] == line + 1
    assert targets["position"][patch] == fact.position + 1
    assert targets["place"][patch] == 1
    assert targets["meaning"][patch] > 2
    assert (targets["first"] > 0).sum() > 0.7 * len(characters)


@pytest.mark.parametrize("shape", [(2, 64, 192), (2, 192, 64)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert values.min() > 0.3 and values.max() < 1.3


def test_the_shipped_base_is_small_and_complete() -> None:
    base = Location(str(BASE))
    with argument("base"):
        model = load_base(base, dtype=torch.float32)
    processor = load_processor(base)
    assert (BASE / "model.safetensors").stat().st_size <= 6_000_000
    tokens = processor.tokenizer.tokenize("1234.5 kilogram")
    assert tokens == ["1", "2", "3", "4", ".", "5", "▁kilogram"]
    sizes = {
        module.out_features for module in model.model.language_model.modules() if isinstance(module, torch.nn.Linear)
    }
    assert all(size % 64 == 0 for size in sizes)
    assert "license: apache-2.0" in (BASE / "README.md").read_text()


def test_the_shipped_base_reads() -> None:
    with argument("base"):
        model = load_base(Location(str(BASE)), dtype=torch.float32).eval()
    processor = load_processor(Location(str(BASE)))
    questions = make_questions("get", rows=50, level=STANDARD, seed=1)
    assert count_right(model, questions, processor=processor) > 0.6 * 50
