from collections.abc import Sequence

import torch
from PIL import Image
from transformers import PaliGemmaProcessor

from product_vqa.modeling.collator import IGNORED
from quickstart.pretraining.packing import TextBatch, pack
from quickstart.pretraining.small_paligemma import make_model
from quickstart.pretraining.tasks import Question


def test_a_single_question_is_masked_as_in_paligemma_and_packed_questions_do_not_attend_to_each_other(
    processor: PaliGemmaProcessor,
) -> None:
    model = make_model(processor, patch_size=8, hidden_size=64, layers=2).eval()
    asked = [Question("get", "What is the mass?", "34 g"), Question("line", "read line 2", "Net Wt: 34 kg")]
    pixels = torch.randn(1, 3, 56, 56)

    def logits(batch: TextBatch, row: int = 0) -> torch.Tensor:
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
    labels = batch.pop("labels").masked_fill(batch["attention_mask"] == 0, IGNORED)
    assert single.labels.equal(labels)
    batch["pixel_values"] = pixels.expand(2, -1, -1, -1)
    with torch.inference_mode():
        expected = model(**batch).logits
    for row in range(2):
        length = int(batch["attention_mask"][row].sum())
        torch.testing.assert_close(logits(single, row)[:length], expected[row, :length], atol=1e-5, rtol=0)

    both = logits(pack([asked], processor=processor))
    other = logits(pack([[asked[0], Question("line", "read line 3", "Lot 12")]], processor=processor))
    first_ends = int((single.labels[0] != IGNORED).nonzero()[-1])
    torch.testing.assert_close(both[:first_ends], other[:first_ends], atol=1e-5, rtol=0)


def test_a_packed_question_follows_the_image_directly_wherever_it_is_packed(processor: PaliGemmaProcessor) -> None:
    """So that pretraining trains for what is asked later: one question after one image."""
    model = make_model(processor, patch_size=8, hidden_size=64, layers=2).eval()
    asked = [Question("get", "What is the mass?", "34 g"), Question("line", "read line 2", "Net Wt: 34 kg")]
    asked.append(Question("after", "read after Code", "K5"))
    image_tokens = processor.image_seq_length
    pixels = torch.randn(1, 3, 56, 56)
    alone = [pack([[question, question]], processor=processor) for question in asked]
    lengths = [(batch.input_ids.shape[1] - image_tokens) // 2 for batch in alone]
    packed = pack([asked], processor=processor)
    expected = [*range(1, image_tokens + 1)]
    for length in lengths:
        expected += range(image_tokens + 1, image_tokens + 1 + length)
    assert packed.position_ids[0].tolist() == expected

    def answer_logits(questions: Sequence[Question]) -> list[torch.Tensor]:
        batch = pack([questions], processor=processor)
        with torch.inference_mode():
            logits = model(
                input_ids=batch.input_ids,
                pixel_values=pixels,
                position_ids=batch.position_ids,
                attention_mask=batch.attention_mask,
            ).logits[0]
        return list(logits[image_tokens:].split([lengths[asked.index(question)] for question in questions]))

    forwards = answer_logits(asked)
    backwards = answer_logits(asked[::-1])[::-1]
    for one, other in zip(forwards, backwards, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
