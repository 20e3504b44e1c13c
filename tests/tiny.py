"""Small objects of the real classes: base models of 28 px, rows with images, a dataset folder."""

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ANSWERS = (
    ("item_weight", "500.0 gram", "500 gram"),
    ("voltage", "230.0 volt", "230.0 volt"),
    ("maximum_weight_recommendation", "1.5 kilogram", "1.5 kilogram"),
    ("width", "12.25 inch", "12.25 inch"),
)


def make_image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def make_rows(number: int, *, labelled: bool = True, start: int = 0) -> list[dict[str, Any]]:
    """Rows as published, over several entities, with answers of unequal length."""
    rows = []
    for index in range(start, start + number):
        entity, canonical, raw = ANSWERS[index % len(ANSWERS)]
        rows.append(
            {
                "index": index,
                "image": make_image(index),
                "image_link": f"https://example.com/{index}.jpg",
                "group_id": "1",
                "entity_name": entity,
                "entity_value": canonical if labelled else "",
                "entity_value_raw": raw if labelled else "",
            }
        )
    return rows


def save_dataset(folder: Path, *, train: int = 32, validation: int = 8, test: int = 11) -> Path:
    """A dataset folder as build makes it; the test row of index 2 above the others' has no image."""
    from datasets import Dataset

    from product_vqa.task.features import FEATURES

    (folder / "data").mkdir(parents=True)
    splits = {
        "train": make_rows(train),
        "validation": make_rows(validation, start=1000),
        "test": make_rows(test, labelled=False, start=5000),
    }
    splits["test"][2]["image"] = None
    for split, rows in splits.items():
        if rows:
            Dataset.from_list(rows, features=FEATURES).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def save_row_groups(
    folder: Path, splits: dict[str, list[dict[str, Any]]], *, files: int = 2, rows: int = 5, has_table: bool = False
) -> Path:
    """A dataset folder with several files per split and `rows` rows per row group; `has_table` adds the table of the
    rows without images, as build does."""
    import pyarrow.parquet as pq
    from datasets import Dataset

    from product_vqa.task.features import FEATURES

    configs: dict[str, list[dict[str, str]]] = {"default": [], "rows": []}
    for split, own in splits.items():
        table = Dataset.from_list(own, features=FEATURES).data.table
        share = -(-len(own) // files)
        for number in range(files):
            file = folder / "data" / f"{split}-{number:05}-of-{files:05}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table.slice(number * share, share), file, row_group_size=rows)
        configs["default"].append({"split": split, "path": f"data/{split}-*"})
        if has_table:
            (folder / "rows").mkdir(exist_ok=True)
            pq.write_table(table.drop_columns(["image"]), folder / "rows" / f"{split}.parquet", row_group_size=rows)
            configs["rows"].append({"split": split, "path": f"rows/{split}.parquet"})
    listed = [{"config_name": name, "data_files": paths} for name, paths in configs.items() if paths]
    (folder / "README.md").write_text(f"---\n{json.dumps({'configs': listed})}\n---\n")
    return folder


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    """A Parquet file of these rows as they are: an image may be any bytes, or a path."""
    import pyarrow.parquet as pq
    from datasets import Dataset

    from product_vqa.task.features import FEATURES

    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(Dataset.from_list(rows, features=FEATURES).data.table, file)


def save_tiny_base(folder: Path, *, seed: int = 0) -> Path:
    """A base of 28 px (4 image tokens) and two layers, hidden size 128 so that NF4 runs on a CPU."""
    from quickstart.pretraining.small_paligemma import save_base

    save_base(folder, image_size=28, patch_size=14, hidden_size=128, layers=2, seed=seed)
    return folder


def make_letters_tokenizer() -> "PreTrainedTokenizerFast":  # noqa: F821
    """Every character is a token of its own, a space too: no unit is a word."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<image>", "\n", "▁", *string.printable.strip()]
    tokenizer = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"}, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def save_letters_base(folder: Path) -> Path:
    """As `save_tiny_base`, with a tokenizer that spells everything by letters."""
    import torch

    from quickstart.pretraining.small_paligemma import make_model, make_processor

    processor = make_processor(image_size=28, patch_size=14, tokenizer=make_letters_tokenizer())
    make_model(processor, patch_size=14).to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_gemma_tokenizer() -> "GemmaTokenizer":  # noqa: F821
    """Gemma's own class and layout: byte pairs learnt within words, bytes for what is not in the vocabulary."""
    import json

    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import GemmaTokenizer

    from product_vqa.task.schema import CHALLENGE, UNITS

    learner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    learner.normalizer = normalizers.Replace(" ", "▁")
    # Merges stay within a word, and no digit is part of one.
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Digits(individual_digits=True)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=[*string.ascii_letters, *string.digits, *".,?-/▁\n"],
        show_progress=False,
    )
    learner.train_from_iterator(
        [*(one.question for one in CHALLENGE.attributes.values()), *(f"a {unit}" for unit in UNITS)] * 2, trainer
    )
    learnt = json.loads(learner.to_str())["model"]
    return GemmaTokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(pair) for pair in learnt["merges"]],
        extra_special_tokens={"image_token": "<image>"},
    )


def save_tiny_paligemma2(folder: Path, *, seed: int = 0) -> Path:
    """As `save_tiny_base`, with the language model and the tokenizer of PaliGemma 2."""
    import torch
    from transformers import Gemma2Config, PaliGemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig

    from quickstart.pretraining.small_paligemma import make_processor

    processor = make_processor(image_size=28, patch_size=14, tokenizer=make_gemma_tokenizer())
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    vocabulary = len(processor.tokenizer)
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            **sizes, image_size=28, patch_size=14, projection_dim=128, vision_use_head=False
        ).to_dict(),
        text_config=Gemma2Config(
            **sizes, **special, num_key_value_heads=1, head_dim=64, query_pre_attn_scalar=64, vocab_size=vocabulary,
            initializer_range=128**-0.5,
        ).to_dict(),
        image_token_index=processor.image_token_id, projection_dim=128, hidden_size=128, vocab_size=vocabulary,
        **special,
    )  # fmt: skip
    torch.manual_seed(seed)
    PaliGemmaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_real_tokenizer_base(folder: Path, family: str) -> Path:
    """As `save_tiny_base`, with the vocabulary and the tokenizer of the published base models."""
    from dataclasses import replace

    from benchmarks.base_models import PALIGEMMA2_3B, PALIGEMMA_3B, save_base_model

    architecture = {"gemma": PALIGEMMA_3B, "gemma2": PALIGEMMA2_3B}[family]
    save_base_model(folder, replace(architecture.shrink(), image_size=28))
    return folder
