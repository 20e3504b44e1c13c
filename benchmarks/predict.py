"""Prediction speed, compared with the notebook approach and with the bare model, on the same rows in one run.

python -m benchmarks.predict --json

The base model is `benchmarks.small_model` with random weights and an adapter of rank 8. As in test.csv, an image has
1.45 questions on average. All variants generate the same number of tokens.

ours        the loop of inference.predict: the built dataset (448 px), batches, adapter merged, constrained decoding
free        the same with --constrain off
notebook    row by row: the original image, float32, adapter not merged, `generate`
bare        prefill and decoding of batches that are ready as tensors; encodes the image of every row, makes no text
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from PIL import Image
from transformers import DynamicCache, PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from benchmarks.image_server import make_image
from benchmarks.results import print_result, stdout_to_stderr
from benchmarks.rows import make_row, store_image
from benchmarks.small_model import SMALL_VOCABULARY, save_small_adapter, save_small_model
from benchmarks.timing import alternate
from inference import AttributeReader
from inference.dataloader import RowBatches, load_batches
from inference.predictions import to_table
from product_vqa.modeling.collator import Batch, make_generation_batch, normalize_images
from product_vqa.task.features import FEATURES
from product_vqa.task.prompt import format_prompt
from product_vqa.task.schema import CHALLENGE

# test.csv has 131,187 rows on 90,666 images; the rows of an image follow each other.
QUESTIONS_PER_IMAGE = [1] * 13 + [2] * 5 + [3] * 2
NEW_TOKENS = 6  # `34.0 gram` and the end token
ORIGINAL_SIZE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--notebook_rows", type=int, default=64, help="number of first rows for the slowest variant")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each variant, in turn; the median counts")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()

    with stdout_to_stderr(), tempfile.TemporaryDirectory(prefix="benchmark-") as work:
        base, adapter = Path(work, "base"), Path(work, "adapter")
        parameters = save_small_model(base, vocabulary=SMALL_VOCABULARY)
        save_small_adapter(adapter, base=base)
        rows, originals = make_rows(options.rows)
        Dataset.from_list(rows, features=FEATURES).to_parquet(Path(work, "test.parquet"))
        dataset = Dataset.from_parquet(str(Path(work, "test.parquet")), cache_dir=work)
        reader = AttributeReader.from_pretrained(str(adapter))
        free_reader = AttributeReader(reader.model, reader.processor, constrain=False, schema=reader.schema)
        reader.max_new_tokens = free_reader.max_new_tokens = NEW_TOKENS
        tensors = make_tensors(dataset, reader, batch_size=options.batch_size)
        unmerged = PeftModel.from_pretrained(PaliGemmaForConditionalGeneration.from_pretrained(base), adapter).eval()
        first_originals = originals[: options.notebook_rows]
        variants: dict[str, Callable[[], Any]] = {
            "ours": lambda: predict(reader, dataset, batch_size=options.batch_size),
            "free": lambda: predict(free_reader, dataset, batch_size=options.batch_size),
            "bare": lambda: predict_bare(reader.model, tensors),
            "notebook": lambda: predict_like_a_notebook(unmerged, reader.processor, first_originals),
        }
        for variant in variants.values():
            variant()  # warm-up
        timed = {name: partial(seconds_of, variant) for name, variant in variants.items()}
        seconds = alternate(timed, repeats=options.repeats)
    num_rows = dict.fromkeys(variants, options.rows) | {"notebook": len(first_originals)}
    rates = {name: num_rows[name] / seconds[name] for name in variants}
    result = {
        "cores": os.cpu_count(),
        "parameters": parameters,
        "dtype": str(reader.model.dtype),
        "rows": options.rows,
        "pictures": len({row["image_link"] for row in rows}),
        "rows_per_s": {name: round(rate, 2) for name, rate in rates.items()},
        "ratio_vs_notebook": round(rates["ours"] / rates["notebook"], 2),
        "ratio_vs_bare_loop": round(rates["ours"] / rates["bare"], 3),
        "ratio_constrained_vs_free": round(rates["ours"] / rates["free"], 3),
    }
    print_result(result, as_json=options.json)


def seconds_of(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def make_rows(number: int) -> tuple[list[dict[str, Any]], list[tuple[bytes, str]]]:
    """Dataset rows, and (original image, entity name) of each."""
    rows: list[dict[str, Any]] = []
    originals = []
    image_number = 0
    while len(rows) < number:
        original = make_image(str(image_number), size=ORIGINAL_SIZE)
        stored = store_image(original)
        for _ in range(QUESTIONS_PER_IMAGE[image_number % len(QUESTIONS_PER_IMAGE)]):
            rows.append(make_row(len(rows), stored, image_number=image_number))
            originals.append((original, rows[-1]["entity_name"]))
        image_number += 1
    return rows[:number], originals[:number]


def make_tensors(dataset: Dataset, reader: AttributeReader, *, batch_size: int) -> list[Batch]:
    """All batches as the model takes them."""
    rows = list(dataset)
    batches = []
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        batch = make_generation_batch(some, processor=reader.processor, schema=reader.schema)
        pixels = normalize_images(batch["pixel_values"], processor=reader.processor, dtype=reader.model.dtype)
        batches.append(batch | {"pixel_values": pixels})
    return batches


def predict(reader: AttributeReader, dataset: Dataset, *, batch_size: int) -> None:
    batches = RowBatches(dataset, processor=reader.processor, batch_size=batch_size, schema=reader.schema)
    for batch in load_batches(batches, range(len(batches)), num_workers=0):
        to_table(batch, reader.answer(batch.inputs, batch.entity_names))


@torch.inference_mode()
def predict_bare(model: PaliGemmaForConditionalGeneration, batches: list[Batch]) -> None:
    """Greedy decoding with a cache and the logits of the last position only, selected as in `generate_answers`."""
    for batch in batches:
        mask = batch["attention_mask"]
        cache = DynamicCache(config=model.config.get_text_config())
        inputs = {name: tensor for name, tensor in batch.items() if name != "image_index"}
        positions = mask.cumsum(-1).clamp(min=1)
        last = torch.tensor([mask.shape[1] - 1])
        logits = model(**inputs, position_ids=positions, cache=cache, logits_to_keep=last).logits[:, -1]
        for _ in range(NEW_TOKENS - 1):
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = model(
                input_ids=logits.argmax(-1)[:, None],
                attention_mask=mask,
                position_ids=mask.sum(-1, keepdim=True),
                cache=cache,
                logits_to_keep=1,
            ).logits[:, -1]
        logits.argmax(-1)


@torch.inference_mode()
def predict_like_a_notebook(
    model: PeftModel, processor: PaliGemmaProcessor, rows: list[tuple[bytes, str]]
) -> list[str]:
    texts = []
    for original, entity_name in rows:
        image = Image.open(io.BytesIO(original)).convert("RGB")
        inputs = processor(
            images=image, text=f"<image>{format_prompt(entity_name, schema=CHALLENGE)}", return_tensors="pt"
        )
        del inputs["labels"]
        tokens = model.generate(**inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
        texts.append(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts


if __name__ == "__main__":
    main()
