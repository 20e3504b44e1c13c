"""Batches: tokens, labels, mask and images, as the processor makes them and as the model sees them."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from product_vqa.errors import InputError
from product_vqa.modeling.collator import load_row_image, normalize_images, take_rows
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.task.prompt import format_prompt
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import parse_schema
from quickstart.pretraining.small_paligemma import make_processor
from tests.product_vqa.modeling.challenge import TrainingCollator, make_generation_batch, make_training_batch
from tests.product_vqa.modeling.schemas import ALL_KINDS, accepts_tokens, draw_answer
from tests.tiny import make_rows

of_paligemma = pytest.mark.parametrize("base", ["paligemma"], indirect=True)  # its tokens are in the test


@of_paligemma
def test_the_golden_training_batch(processor: PaliGemmaProcessor) -> None:
    batch = make_training_batch(make_rows(3), processor=processor)  # item_weight, voltage, maximum_weight_...
    img, pad = ["<image>"] * 4, "<pad>"
    ask = ["<bos>", "What", "▁is", "▁the"]
    first = [*img, *ask, "▁item", "▁weight", "?", "\n", "5", "0", "0", ".", "0", "▁gram", "<eos>"]
    second = [*img, *ask, "▁voltage", "?", "\n", "2", "3", "0", ".", "0", "▁volt", "<eos>", pad]
    third = [*img, *ask, "▁maximum", "▁weight", "▁recommendation", "?", "\n", "1", ".", "5", "▁kilogram", "<eos>", pad]
    third, first, second = third[:18], [*first], [*second]
    length = 19
    tokens = [row + [pad] * (length - len(row)) for row in (first, second, third)]
    ids = [processor.tokenizer.convert_tokens_to_ids(row) for row in tokens]
    assert batch["input_ids"].tolist() == ids
    prompts, answers = (12, 11, 13), (7, 7, 5)
    for row in range(3):
        end = prompts[row] + answers[row]
        assert batch["token_type_ids"][row].tolist() == [0] * prompts[row] + [1] * answers[row] + [0] * (length - end)
        assert batch["attention_mask"][row].tolist() == [1] * end + [0] * (length - end)
        assert batch["labels"][row].tolist() == (
            [-100] * prompts[row] + ids[row][prompts[row] : end] + [-100] * (length - end)
        )
    assert batch["pixel_values"].shape == (3, 3, 28, 28)
    assert batch["pixel_values"].dtype == torch.uint8
    normalized = normalize_images(batch["pixel_values"], processor=processor, dtype=torch.float32)
    assert 0.8 < normalized.abs().max() <= 1
    assert torch.equal(
        normalize_images(normalized, processor=processor, dtype=torch.bfloat16), normalized.to(torch.bfloat16)
    )
    on_meta = normalize_images(batch["pixel_values"].to("meta"), processor=processor, dtype=torch.float16)
    assert (on_meta.device.type, on_meta.dtype, on_meta.shape) == ("meta", torch.float16, (3, 3, 28, 28))


@of_paligemma
def test_a_generation_batch_is_the_prompt_padded_on_the_left(processor: PaliGemmaProcessor) -> None:
    batch = make_generation_batch(make_rows(2), processor=processor)
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "pixel_values", "image_index"}
    assert batch["attention_mask"].tolist() == [[1] * 12, [0] + [1] * 11]
    assert batch["token_type_ids"].tolist() == [[0] * 12] * 2
    assert processor.tokenizer.decode(batch["input_ids"][1]) == "<pad>" + "<image>" * 4 + "<bos>What is the voltage?\n"


def test_every_row_has_exactly_the_tokens_of_its_own_image(processor: PaliGemmaProcessor) -> None:
    """Question and answer come from fixed words and labels: every row holds exactly its own image's tokens."""
    batch = make_training_batch(make_rows(8), processor=processor)
    assert ((batch["input_ids"] == processor.image_token_id).sum(dim=1) == 4).all()


def test_a_row_without_an_answer_is_refused(processor: PaliGemmaProcessor) -> None:
    rows = make_rows(2)
    rows[1]["entity_value"] = ""
    with pytest.raises(ValueError, match="row 1 of the batch has an empty entity_value"):
        make_training_batch(rows, processor=processor)


@of_paligemma
def test_padding_is_not_learned_whatever_its_token_type(processor: PaliGemmaProcessor) -> None:
    of_another = copy.deepcopy(processor)
    of_another.tokenizer._pad_token_type_id = 1
    labels = make_training_batch(make_rows(2), processor=of_another)["labels"]
    assert torch.equal(labels, make_training_batch(make_rows(2), processor=processor)["labels"])
    assert labels[1, -1] == -100  # padding


@of_paligemma
def test_a_tokenizer_that_does_not_tell_answers_from_prompts_is_refused(processor: PaliGemmaProcessor) -> None:
    of_another = copy.deepcopy(processor)
    of_another.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(pair="$A:0 $B:0", special_tokens=[])
    with pytest.raises(
        InputError,
        match=r"^the base model's tokenizer does not mark the answers in token_type_ids, so none is learned$",
    ):
        make_training_batch(make_rows(2), processor=of_another)


def test_an_image_of_any_mode_is_read_as_rgb(processor: PaliGemmaProcessor) -> None:
    rows = make_rows(4)
    for row, mode in zip(rows, ("L", "RGBA", "CMYK", "P"), strict=True):
        row["image"] = row["image"].convert(mode)
    assert make_generation_batch(rows, processor=processor)["pixel_values"].shape == (4, 3, 28, 28)


def inputs(batch: dict[str, torch.Tensor], processor: PaliGemmaProcessor) -> dict[str, torch.Tensor]:
    """What the model takes in."""
    pixels = normalize_images(batch["pixel_values"], processor=processor, dtype=torch.float32)
    kept = {name: tensor for name, tensor in batch.items() if name not in ("labels", "image_index")}
    return kept | {"pixel_values": pixels}


def test_a_batch_to_be_answered_is_the_processors_own(processor: PaliGemmaProcessor) -> None:
    rows = make_rows(5)
    batch = make_generation_batch(rows, processor=processor)
    expected = processor(
        images=[row["image"] for row in rows],
        text=[f"<image>{format_prompt(row['entity_name'], schema=CHALLENGE)}" for row in rows],
        padding=True, padding_side="left", return_tensors="pt",
    )  # fmt: skip
    assert batch["image_index"].tolist() == [0, 1, 2, 3, 4]
    made = inputs(batch, processor)
    assert made.keys() == expected.keys() - {"labels"}
    for name, tensor in made.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.7]},
        {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
    ],
    ids=lambda settings: "-".join(settings) or "paligemma",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_images_normalized_on_the_device_are_the_processors_to_the_bit(
    settings: dict[str, Any], dtype: torch.dtype
) -> None:
    """All 256 values in each channel, and images that are resized."""
    processor = make_processor(image_size=28, patch_size=14)
    for name, value in settings.items():
        setattr(processor.image_processor, name, value)
    levels = np.arange(28 * 28 * 3).reshape(28, 28, 3) // 3 % 256 + np.array([0, 85, 170])
    rows = [row | {"image": Image.fromarray((levels % 256).astype(np.uint8))} for row in make_rows(1)] + make_rows(3)
    expected = processor.image_processor([row["image"] for row in rows], return_tensors="pt")["pixel_values"]
    for make in (make_training_batch, make_generation_batch):
        pixels = make(rows, processor=processor)["pixel_values"]
        assert pixels.dtype == torch.uint8
        assert torch.equal(normalize_images(pixels, processor=processor, dtype=dtype), expected.to(dtype))
    assert len(set(pixels[0].flatten().tolist())) == 256


def test_rows_of_one_image_share_it_and_can_be_taken_apart(processor: PaliGemmaProcessor) -> None:
    rows = make_rows(6)
    for row, other in ((1, 0), (4, 3), (5, 0)):
        rows[row]["image"] = rows[other]["image"]
    batch = make_generation_batch(rows, processor=processor)
    assert batch["pixel_values"].shape == (3, 3, 28, 28)
    assert batch["image_index"].tolist() == [0, 0, 1, 2, 2, 0]
    part = take_rows(batch, slice(3, 6))
    assert part["image_index"].tolist() == [1, 1, 0]
    assert torch.equal(part["pixel_values"], batch["pixel_values"][[0, 2]])
    assert torch.equal(part["input_ids"], batch["input_ids"][3:])


def test_a_row_alone_and_in_a_padded_batch_gives_the_same_logits(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration
) -> None:
    rows = make_rows(4)
    together = make_training_batch(rows, processor=processor)
    with torch.inference_mode():
        logits = model(**inputs(together, processor)).logits
        for index, row in enumerate(rows):
            alone = make_training_batch([row], processor=processor)
            length = alone["input_ids"].shape[1]
            single = model(**inputs(alone, processor)).logits[0]
            torch.testing.assert_close(logits[index, :length], single, atol=1e-5, rtol=0)
        # And on the left, as generation pads.
        left = model(**inputs(make_generation_batch(rows, processor=processor), processor)).logits[:, -1]
        for index, row in enumerate(rows):
            single = model(**inputs(make_generation_batch([row], processor=processor), processor)).logits[0, -1]
            torch.testing.assert_close(left[index], single, atol=1e-5, rtol=0)


@of_paligemma
def test_the_prefix_sees_itself_in_both_directions_and_the_answer_only_backwards(
    processor: PaliGemmaProcessor, model: PaliGemmaForConditionalGeneration
) -> None:
    batch = make_training_batch(make_rows(1), processor=processor)
    taken = inputs(batch, processor)

    def logits_with(position: int, token: str) -> torch.Tensor:
        ids = taken["input_ids"].clone()
        ids[0, position] = processor.tokenizer.convert_tokens_to_ids(token)
        with torch.inference_mode():
            return model(**(taken | {"input_ids": ids})).logits[0]

    with torch.inference_mode():
        plain = model(**taken).logits[0]
    newline, first_digit, last = 11, 12, 18
    # Another last word of the prompt is seen at its first word...
    assert not torch.allclose(plain[4], logits_with(newline - 1, "x")[4], atol=1e-5)
    # ...another answer token is not seen before it: the answer is causal.
    changed = logits_with(first_digit + 2, "9")
    torch.testing.assert_close(plain[: first_digit + 2], changed[: first_digit + 2], atol=1e-5, rtol=0)
    assert not torch.allclose(plain[last], changed[last], atol=1e-5)


def test_the_collator_names_the_rows_and_where_their_answers_are_predicted(processor: PaliGemmaProcessor) -> None:
    rows = make_rows(3)
    batch = TrainingCollator(processor)(rows)
    assert batch["row_index"].tolist() == [row["index"] for row in rows]
    labels = batch["labels"]
    lengths = (labels != -100).sum(dim=1).tolist()
    assert batch["answer_positions"].shape == (3, max(lengths))
    for row, length in enumerate(lengths):
        predicted = [position for position in range(labels.shape[1] - 1) if labels[row, position + 1] != -100]
        assert batch["answer_positions"][row, :length].tolist() == predicted
    assert batch["pixel_values"].dtype == torch.uint8


@pytest.mark.parametrize(("image", "reason"), [(None, "no_image"), ({"bytes": b"<html>"}, "not_a_picture")])
def test_a_row_whose_image_cannot_be_used_is_named(image: object, reason: str) -> None:
    row = {"image": image, "index": 7, "image_link": "https://shop.example/a.jpg"}
    with pytest.raises(
        InputError,
        match=rf"^the image of index 7 \(https://shop.example/a.jpg\) cannot be used: {reason}; drop that row "
        "from the dataset$",
    ):
        load_row_image(row)


@of_paligemma
def test_the_side_of_the_padding_is_not_the_tokenizers(processor: PaliGemmaProcessor) -> None:
    default = processor.tokenizer.padding_side
    try:
        for side in ("left", "right"):
            processor.tokenizer.padding_side = side
            assert make_training_batch(make_rows(2), processor=processor)["attention_mask"][1, [0, -1]].tolist() == [
                1,
                0,
            ]
            assert make_generation_batch(make_rows(2), processor=processor)["attention_mask"][1, [0, -1]].tolist() == [
                0,
                1,
            ]
    finally:
        processor.tokenizer.padding_side = default


@of_paligemma
def test_a_worker_process_passes_images_through_the_pipe(processor: PaliGemmaProcessor) -> None:
    """And nothing else: an array does not use /dev/shm."""
    rows = make_rows(2)
    here = TrainingCollator(processor)(rows)
    loader = torch.utils.data.DataLoader(rows, batch_size=2, collate_fn=TrainingCollator(processor), num_workers=1)
    (batch,) = loader
    assert batch.keys() == here.keys()
    assert {name for name, values in batch.items() if isinstance(values, np.ndarray)} == {"pixel_values"}
    assert (batch["pixel_values"] == here["pixel_values"].numpy()).all()
    assert torch.equal(batch["labels"], here["labels"])


def test_a_training_batch_of_every_kind_has_the_labels_that_the_automaton_accepts(
    processor: PaliGemmaProcessor,
) -> None:
    rng, tokenizer = random.Random(0), processor.tokenizer
    automaton = AnswerAutomaton.from_tokenizer(tokenizer, schema=ALL_KINDS)
    names = list(ALL_KINDS.names) * 3
    rows = [
        row | {"entity_name": name, "entity_value": draw_answer(ALL_KINDS[name], rng)}
        for row, name in zip(make_rows(len(names)), names, strict=True)
    ]
    rows[names.index("slogan")]["entity_value"] = rows[names.index("model")]["entity_value"] = ""
    batch = TrainingCollator(processor, schema=ALL_KINDS)(rows)
    for number, row in enumerate(rows):
        labels = batch["labels"][number]
        tokens = labels[labels != -100].tolist()
        assert tokens[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(tokens[:-1]) == row["entity_value"]
        assert accepts_tokens(automaton, row["entity_name"], tokens)
        if row["entity_name"] == "model":
            assert tokenizer.convert_ids_to_tokens(tokens[:-1]) == list(row["entity_value"])
        # Prompt, answer and padding are where the processor puts them.
        length = int(batch["attention_mask"][number].sum())
        prompt = length - len(tokens)
        width = labels.shape[0]
        assert batch["attention_mask"][number].tolist() == [1] * length + [0] * (width - length)
        assert batch["token_type_ids"][number].tolist() == [0] * prompt + [1] * len(tokens) + [0] * (width - length)
        assert labels.tolist() == [-100] * prompt + tokens + [-100] * (width - length)
        assert batch["input_ids"][number, prompt:length].tolist() == tokens
        assert (batch["input_ids"][number, length:] == tokenizer.pad_token_id).all()
        asked = tokenizer.decode(batch["input_ids"][number, 5:prompt])
        assert asked == f"{ALL_KINDS[row['entity_name']].question}\n"
    positions = batch["answer_positions"]
    assert positions.shape[1] == int((batch["labels"] != -100).sum(dim=1).max())


def test_an_answer_that_is_spelled_leaves_the_others_as_the_processor_makes_them(
    processor: PaliGemmaProcessor,
) -> None:
    """`12` is one token per digit in any tokenizer of the family: spelled or not, the batch is the same."""
    spelled = parse_schema(
        "version: 1\nattributes: {a: {kind: pattern, pattern: '[0-9]{1,4}'}, b: {kind: yes_no}}", name="s"
    )
    plain = parse_schema("version: 1\nattributes: {a: {kind: integer, digits: 4}, b: {kind: yes_no}}", name="s")
    answers = [("a", "12"), ("b", "yes"), ("a", "9876"), ("b", "no")]
    rows = [
        row | {"entity_name": name, "entity_value": value}
        for row, (name, value) in zip(make_rows(4), answers, strict=True)
    ]
    batch = make_training_batch(rows, processor=processor, schema=spelled)
    expected = make_training_batch(rows, processor=processor, schema=plain)
    assert batch.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(batch[name], tensor), name
        assert batch[name].dtype == tensor.dtype


def test_an_empty_answer_is_refused_where_it_is_not_one(processor: PaliGemmaProcessor) -> None:
    rows = [row | {"entity_name": "brand", "entity_value": ""} for row in make_rows(1)]
    with pytest.raises(InputError, match="row 0 of the batch has an empty entity_value"):
        make_training_batch(rows, processor=processor, schema=ALL_KINDS)
