import random
import re
import string

import torch

from product_vqa.hub import Location
from product_vqa.modeling.loading import load_base_model, load_processor
from quickstart.rendering.levels import STANDARD
from quickstart.rendering.schema_text import SchemaText
from tests.commands import ROOT
from tests.example_schemas import SCHEMAS

BASE = ROOT / "quickstart" / "base"


def test_the_shipped_base_model_is_small_and_complete() -> None:
    base = Location(str(BASE))
    model = load_base_model(base, dtype=torch.float32)
    processor = load_processor(base)
    assert (BASE / "model.safetensors").stat().st_size <= 6_000_000
    tokens = processor.tokenizer.tokenize("1234.5 kilogram")
    assert tokens == ["1", "2", "3", "4", ".", "5", "▁kilogram"]
    sizes = {
        module.out_features for module in model.model.language_model.modules() if isinstance(module, torch.nn.Linear)
    }
    assert all(size % 64 == 0 for size in sizes)
    assert "license: apache-2.0" in (BASE / "README.md").read_text()


def test_answers_about_other_attributes_have_no_unknown_tokens() -> None:
    tokenizer = load_processor(Location(str(BASE))).tokenizer
    answers = {
        value.entity_value
        for schema in SCHEMAS.values()
        for seed in range(200)
        for value in SchemaText(schema).make_label(random.Random(seed), level=STANDARD).values.values()
    }
    assert len(answers) > 500
    for answer in answers:
        ids = tokenizer(answer, add_special_tokens=False).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == answer
    assert tokenizer.unk_token_id in tokenizer("5 °C").input_ids
    assert len(tokenizer.tokenize("4500.0 milliampere hour")) == 22  # as the card has it


def test_the_card_names_the_characters_whose_embeddings_are_nearly_the_same() -> None:
    base = Location(str(BASE))
    tokenizer = load_processor(base).tokenizer
    characters = string.printable.strip()
    embeddings = load_base_model(base, dtype=torch.float32).get_input_embeddings().weight
    rows = torch.nn.functional.normalize(embeddings[tokenizer.convert_tokens_to_ids(list(characters))], dim=1)
    similarities = (rows @ rows.T).fill_diagonal_(0).amax(dim=1)
    same = {char for char, similarity in zip(characters, similarities, strict=True) if similarity > 0.98}
    named = re.search(
        r"embeddings of `` (.*?) `` have a cosine similarity above\n0.98", (BASE / "README.md").read_text()
    )
    assert named and set(named[1].split()) == same
