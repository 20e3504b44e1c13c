"""Answers a second: ours beside a notebook's way and beside the bare model, the same rows in one run.

python -m benchmarks.predict --json

The base is `benchmarks.small_base`, its weights random, with an adapter of rank 8. As in test.csv 1.45 questions are
asked about a picture. Everybody says the same number of tokens.

ours        the loop of inference.predict: the built dataset (448 px), batches, adapter merged, answers constrained
free        the same with --constrain off
notebook    a row at a time: the original picture, float32, adapter unmerged, `generate`
bare        prefill and decoding of batches that lie ready as tensors, every row's picture encoded, no text made
"""

import argparse
import io
import json
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

from benchmarks.measuring import alternate, printing_to_stderr
from benchmarks.picture_server import made_picture
from benchmarks.small_base import SMALL_VOCABULARY, save_small_adapter, save_small_base
from dataset_builder.image_preparation import prepare_picture
from inference import AttributeReader
from inference.dataloader import RowBatches, load_batches
from inference.predictions import to_table
from product_vqa.modeling.collator import Batch, make_generation_batch, normalize_images
from product_vqa.task.features import FEATURES
from product_vqa.task.prompt import format_prompt
from product_vqa.task.schema import ENTITIES

# test.csv: 131,187 rows on 90,666 pictures, those of a picture one after the other.
QUESTIONS_A_PICTURE = [1] * 13 + [2] * 5 + [3] * 2
NEW_TOKENS = 6  # `34.0 gram` and the end
ORIGINAL_SIZE, STORED_SIZE = 1000, 448


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--notebook_rows", type=int, default=64, help="the first of them, for the slowest way")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5, help="alternated; the median counts")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()

    with printing_to_stderr(), tempfile.TemporaryDirectory(prefix="benchmark-") as work:
        base, adapter = Path(work, "base"), Path(work, "adapter")
        parameters = save_small_base(base, vocabulary=SMALL_VOCABULARY)
        save_small_adapter(adapter, base=base)
        rows, originals = make_rows(options.rows)
        dataset = Dataset.from_list(rows, features=FEATURES)
        dataset.to_parquet(Path(work, "test.parquet"))
        dataset = Dataset.from_parquet(str(Path(work, "test.parquet")), cache_dir=work)
        reader = AttributeReader.from_pretrained(str(adapter))
        free = AttributeReader(reader.model, reader.processor, constrain=False)
        reader.max_new_tokens = free.max_new_tokens = NEW_TOKENS
        ready = make_ready(dataset, reader, batch_size=options.batch_size)
        unmerged = PeftModel.from_pretrained(PaliGemmaForConditionalGeneration.from_pretrained(base), adapter).eval()

        def ours(reader: AttributeReader) -> None:
            batches = RowBatches(dataset, processor=reader.processor, batch_size=options.batch_size)
            for batch in load_batches(batches, range(len(batches)), num_workers=0):
                to_table(batch, reader.answer(batch.inputs, batch.entity_names))

        ways: dict[str, tuple[int, Callable[[], Any]]] = {
            "ours": (options.rows, lambda: ours(reader)),
            "free": (options.rows, lambda: ours(free)),
            "bare": (options.rows, lambda: bare_loop(reader.model, ready)),
            "notebook": (
                options.notebook_rows,
                lambda: notebook(unmerged, reader.processor, originals[: options.notebook_rows]),
            ),
        }
        for _, way in ways.values():
            way()  # does not count
        timed = {name: partial(seconds_of, way) for name, (_, way) in ways.items()}
        seconds = alternate(timed, repeats=options.repeats)
    rates = {name: number / seconds[name] for name, (number, _) in ways.items()}
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
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k:<28}{v}" for k, v in result.items()))


def seconds_of(way: Callable[[], Any]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def make_rows(number: int) -> tuple[list[dict[str, Any]], list[tuple[bytes, str]]]:
    """Rows as built, and (original picture, entity name) of each."""
    rows: list[dict[str, Any]] = []
    originals = []
    picture = 0
    while len(rows) < number:
        original = made_picture(str(picture), size=ORIGINAL_SIZE)
        stored = {"bytes": prepare_picture(original, image_size=STORED_SIZE).data, "path": None}
        for _ in range(QUESTIONS_A_PICTURE[picture % len(QUESTIONS_A_PICTURE)]):
            entity_name = ENTITIES[len(rows) % len(ENTITIES)]
            rows.append(
                {
                    "index": len(rows), "image": stored, "image_link": f"https://shop.example/{picture}.jpg",
                    "group_id": "1", "entity_name": entity_name, "entity_value": "", "entity_value_raw": "",
                }
            )  # fmt: skip
            originals.append((original, entity_name))
        picture += 1
    return rows[:number], originals[:number]


def make_ready(dataset: Dataset, reader: AttributeReader, *, batch_size: int) -> list[Batch]:
    rows = list(dataset)
    batches = []
    for start in range(0, len(rows), batch_size):
        batch = make_generation_batch(rows[start : start + batch_size], processor=reader.processor)
        pixels = normalize_images(batch["pixel_values"], processor=reader.processor, dtype=reader.model.dtype)
        batches.append(batch | {"pixel_values": pixels})
    return batches


@torch.inference_mode()
def bare_loop(model: PaliGemmaForConditionalGeneration, batches: list[Batch]) -> None:
    """Greedy, a cache, the last position's logits only; the reader's model, which keeps lm_head's input contiguous."""
    for batch in batches:
        mask = batch["attention_mask"]
        cache = DynamicCache(config=model.config.get_text_config())
        inputs = {name: tensor for name, tensor in batch.items() if name != "image_index"}
        positions = mask.cumsum(-1).clamp(min=1)
        logits = model(**inputs, position_ids=positions, cache=cache, logits_to_keep=1).logits[:, -1]
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
def notebook(model: PeftModel, processor: PaliGemmaProcessor, rows: list[tuple[bytes, str]]) -> list[str]:
    texts = []
    for original, entity_name in rows:
        image = Image.open(io.BytesIO(original)).convert("RGB")
        inputs = processor(images=image, text=f"<image>{format_prompt(entity_name)}", return_tensors="pt")
        del inputs["labels"]
        tokens = model.generate(**inputs, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False)
        texts.append(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts


if __name__ == "__main__":
    main()
