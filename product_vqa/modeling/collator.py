"""Make batches: the one place that turns rows into PaliGemma's inputs, for training and for generation.

The text is `<image>` x N + `<bos>` + prompt + newline, then the answer + `<eos>` (in big_vision's PaliGemma: prefix,
separator, suffix). Attention is bidirectional over image and prompt, and causal over the answer. The model learns
which is which from `token_type_ids` (0 prefix, 1 answer) alone. Without them, transformers silently builds another
mask, so a batch is checked for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence

from product_vqa.errors import InputError
from product_vqa.images import ImageError, as_image
from product_vqa.modeling.answer_tokens import spell_answer
from product_vqa.quoting import one_line
from product_vqa.task.attributes import Schema
from product_vqa.task.prompt import format_prompt
from product_vqa.workers import is_worker, to_arrays

if TYPE_CHECKING:
    from transformers import PaliGemmaProcessor

Row = Mapping[str, Any]
Batch = dict[str, torch.Tensor]

IGNORED = -100  # the label of positions without a loss
IMAGE_TOKEN = "<image>"
_NOT_NORMALIZED = {"do_rescale": False, "do_normalize": False}  # uint8 images, resized


def make_training_batch(rows: Sequence[Row], *, processor: PaliGemmaProcessor, schema: Schema) -> Batch:
    """Batch rows (`image`, `entity_name`, `entity_value`) for training.

    Returns input_ids, attention_mask, token_type_ids and labels (B, T) int64, padded on the right, and pixel_values
    (B, 3, H, W) uint8, for `normalize_images`. labels is -100 on image, prompt and padding: the loss covers only the
    answer and its end token, or only the end token where the attribute is `not_shown`. The answer to a pattern is
    spelled, one token per character, and several values are tokenized one by one. Raises InputError for a row without
    an answer, and for a tokenizer that does not tell answers from prompts.
    """
    attributes = [schema[row["entity_name"]] for row in rows]
    answers = [row["entity_value"] for row in rows]
    for number, (answer, attribute) in enumerate(zip(answers, attributes, strict=True)):
        if not answer and not attribute.not_shown:
            raise InputError(
                f"row {number} of the batch has an empty entity_value, so there is nothing to learn from it"
            )
    spelled = {
        number: tokens
        for number, (answer, attribute) in enumerate(zip(answers, attributes, strict=True))
        if (tokens := spell_answer(processor.tokenizer, answer, attribute)) is not None
    }
    batch = dict(
        processor(
            images=[load_row_image(row) for row in rows],
            text=[IMAGE_TOKEN + attribute.question for attribute in attributes],
            suffix=["" if number in spelled else answer for number, answer in enumerate(answers)],
            return_tensors="pt",
            padding=True,
            padding_side="right",
            **_NOT_NORMALIZED,
        )
    )
    assert "token_type_ids" in batch  # without them, transformers silently builds another mask
    # The processor derives the labels from the token types, and padding has the type 0 of the prefix. The attention
    # mask makes sure that no padding has a label, even if that changes.
    batch["labels"] = batch["labels"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    if not (batch["labels"] != IGNORED).any(dim=1).all():
        raise InputError("the base model's tokenizer does not mark the answers in token_type_ids, so none is learned")
    return _insert_answers(batch, spelled, pad=processor.tokenizer.pad_token_id) if spelled else batch


def _insert_answers(batch: Batch, answers: Mapping[int, Sequence[int]], *, pad: int) -> Batch:
    """Insert the tokens of answers (by row) before the end tokens of a batch, which has none for these rows."""
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    inserted = {}
    for name, padding in (("input_ids", pad), ("attention_mask", 0), ("token_type_ids", 0), ("labels", IGNORED)):
        sequences = []
        for number, (row, length) in enumerate(zip(batch[name], lengths, strict=True)):
            tokens = torch.tensor(answers.get(number, ()), dtype=torch.long)
            values = tokens if name in ("input_ids", "labels") else torch.ones_like(tokens)
            sequences.append(torch.cat([row[: length - 1], values, row[length - 1 : length]]))
        inserted[name] = pad_sequence(sequences, batch_first=True, padding_value=padding)
    return batch | inserted


def make_generation_batch(rows: Sequence[Row], *, processor: PaliGemmaProcessor, schema: Schema) -> Batch:
    """Batch rows (`image`, `entity_name`) for generation. Rows with the same image object (by `id`) share one image.

    Returns input_ids, attention_mask and token_type_ids (B, T) int64, padded on the left; pixel_values (P, 3, H, W)
    uint8 of the P distinct images, for `normalize_images`; and image_index (B,) int64, the image of each row.
    """
    position_of_image: dict[int, int] = {}
    image_index = [position_of_image.setdefault(id(row["image"]), len(position_of_image)) for row in rows]
    first_rows = [image_index.index(position) for position in range(len(position_of_image))]
    images = [load_row_image(rows[row]) for row in first_rows]
    return {
        **tokenize_questions([row["entity_name"] for row in rows], processor=processor, schema=schema),
        "pixel_values": resize_images(images, processor=processor),
        "image_index": torch.tensor(image_index),
    }


def tokenize_questions(entity_names: Sequence[str], *, processor: PaliGemmaProcessor, schema: Schema) -> Batch:
    """Return input_ids, attention_mask and token_type_ids (B, T) int64 of the questions, padded on the left."""
    tokenizer = processor.tokenizer
    prefix = processor.image_token * processor.image_seq_length + tokenizer.bos_token
    return dict(
        tokenizer(  # what the processor does, but it requires one image per row
            [f"{prefix}{format_prompt(entity_name, schema=schema)}\n" for entity_name in entity_names],
            padding=True,
            padding_side="left",
            return_token_type_ids=True,
            return_tensors="pt",
        )
    )


def resize_images(images: Sequence[Image.Image], *, processor: PaliGemmaProcessor) -> torch.Tensor:
    """Return decoded images in the model's size, (N, 3, H, W) uint8, for `normalize_images`."""
    made: torch.Tensor = processor.image_processor(list(images), return_tensors="pt", **_NOT_NORMALIZED)[
        "pixel_values"
    ]
    return made


def normalize_images(pixel_values: torch.Tensor, *, processor: PaliGemmaProcessor, dtype: torch.dtype) -> torch.Tensor:
    """Normalize the uint8 images of a batch, (N, 3, H, W), to about [-1, 1], on their device.

    Each of the 256 values is looked up in a table that the processor made. The result equals the processor's bit for
    bit, converted to `dtype`; arithmetic on another device would round differently. uint8 takes a quarter of the bytes
    on the way from the workers to the device. Floating-point images are already normalized.
    """
    if pixel_values.is_floating_point():
        return pixel_values.to(dtype)
    assert pixel_values.dtype == torch.uint8
    levels = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)  # an image: (height 256, width 1, 3)
    made = processor.image_processor([levels], do_resize=False, return_tensors="pt")
    normalized = torch.empty(pixel_values.shape, dtype=dtype, device=pixel_values.device)
    table = made["pixel_values"][0, :, :, 0].type_as(normalized)  # (3, 256)
    for channel in range(3):
        indexes = pixel_values[:, channel].flatten().int()
        normalized[:, channel] = table[channel].index_select(0, indexes).view_as(normalized[:, channel])
    return normalized


def take_rows(batch: Batch, rows: slice) -> Batch:
    """Take some rows of a batch from `make_generation_batch`, with their images."""
    positions, image_index = torch.unique(batch["image_index"][rows], return_inverse=True)
    taken = {name: tensor[rows] for name, tensor in batch.items()}
    return taken | {"pixel_values": batch["pixel_values"][positions], "image_index": image_index}


def load_row_image(row: Row) -> Image.Image:
    """Decode the image of a dataset's row. Raises InputError, which names the row's index, if that fails."""
    try:
        if row["image"] is None:
            raise ImageError("no_image")
        return as_image(row["image"])
    except ImageError as error:
        url = one_line(str(row.get("image_link")))
        raise InputError(
            f"the image of index {row.get('index')} ({url}) cannot be used: {error}; drop that row from the dataset"
        ) from error


@dataclass(frozen=True)
class TrainingCollator:
    """A data collator around `make_training_batch` that worker processes can pickle.

    Adds two items that are not for the model. `row_index` (B,) holds the rows' `index`, to name a row that causes
    trouble. `answer_positions` (B, A) int64 holds the positions whose logits predict a label, filled up with other
    positions for shorter answers. They are found here, on the CPU, because finding them on a GPU would make the CPU
    wait for it. In a worker process, the images are an array, see `product_vqa.workers`.
    """

    processor: PaliGemmaProcessor
    schema: Schema

    def __call__(self, rows: Sequence[Row]) -> Batch:
        batch = make_training_batch(rows, processor=self.processor, schema=self.schema)
        labelled = batch["labels"][:, 1:] != IGNORED
        answer_positions = labelled.int().sort(descending=True, stable=True).indices
        batch |= {
            "row_index": torch.tensor([row["index"] for row in rows]),
            "answer_positions": answer_positions[:, : labelled.sum(dim=1).max()],
        }
        return batch | to_arrays({"pixel_values": batch["pixel_values"]}) if is_worker() else batch  # type: ignore[return-value]
