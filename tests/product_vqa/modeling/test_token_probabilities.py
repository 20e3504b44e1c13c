"""The log probabilities of tokens are those of the model itself, however they are computed."""

from pathlib import Path

import pytest
import torch

from product_vqa.modeling.attribute_reader import AttributeReader
from product_vqa.modeling.token_probabilities import (
    answer_token_log_p,
    first_token_log_p,
    token_text,
    token_texts,
)
from product_vqa.task.prompt import format_prompt
from product_vqa.task.schema import CHALLENGE
from tests.product_vqa.modeling.challenge import make_generation_batch
from tests.tiny import make_rows


@pytest.fixture(scope="module")
def reader(tiny_base: Path) -> AttributeReader:
    return AttributeReader.from_pretrained(None, base_model=str(tiny_base), dtype="float32")


def test_the_first_token_has_the_probabilities_of_plain_transformers(reader: AttributeReader) -> None:
    rows = make_rows(5)
    batch = make_generation_batch([*rows, rows[0]], processor=reader.processor)
    found = first_token_log_p(reader.model, batch, processor=reader.processor)
    assert torch.allclose(found[0], found[5])
    for row, own in zip(rows, found[:5], strict=True):
        inputs = reader.processor(
            images=row["image"],
            text=f"<image>{format_prompt(row['entity_name'], schema=CHALLENGE)}",
            return_tensors="pt",
        )
        inputs.pop("labels", None)
        with torch.inference_mode():
            expected = reader.model(**inputs).logits[0, -1].log_softmax(-1)
        assert torch.allclose(own, expected, atol=1e-4)


def test_an_answers_tokens_have_their_conditional_probabilities(reader: AttributeReader) -> None:
    (row,) = make_rows(1)
    tokens = answer_token_log_p(
        reader.model, row, processor=reader.processor, schema=CHALLENGE, num_most_likely=4
    )  # fmt: skip
    assert "".join(token.token for token in tokens) == "500.0 gram<eos>"
    first = first_token_log_p(
        reader.model, make_generation_batch([row], processor=reader.processor), processor=reader.processor
    )[0]
    best = first.topk(4)
    tokenizer = reader.processor.tokenizer
    assert [one.token for one in tokens[0].most_likely] == [
        token_text(tokenizer, one) for one in best.indices.tolist()
    ]
    assert [one.log_p for one in tokens[0].most_likely] == pytest.approx(best.values.tolist(), abs=1e-4)
    # An answer that is not constrained has the model's own probability.
    free = AttributeReader(reader.model, reader.processor, constrain=False, schema=CHALLENGE)
    free.max_new_tokens = 1
    answer = free.read(row["image"], row["entity_name"])
    assert answer.confidence == pytest.approx(float(first.exp().max()), rel=1e-3)
    no_others = answer_token_log_p(
        reader.model, row, processor=reader.processor, schema=CHALLENGE, num_most_likely=0
    )  # fmt: skip
    assert [token.log_p for token in no_others] == [token.log_p for token in tokens]
    assert not any(token.most_likely for token in no_others)


def test_each_token_of_the_vocabulary_has_a_text(reader: AttributeReader) -> None:
    tokenizer = reader.processor.tokenizer
    texts = token_texts(tokenizer, len(tokenizer) + 3)
    assert texts[-3:] == ["", "", ""]
    assert " gram" in texts and "5" in texts and texts[tokenizer.eos_token_id] == "<eos>"
