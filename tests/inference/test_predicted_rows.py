"""Rows that are predicted in memory: each answer at its row, and none for a row without an image."""

from pathlib import Path

import pytest

from inference import AttributeReader
from inference.predicted_rows import predict_rows
from product_vqa.dataset import load_split
from product_vqa.hub import locate


@pytest.mark.slow
def test_answers_are_those_of_the_rows_with_an_image(adapter_reader: AttributeReader, tiny_dataset: Path) -> None:
    dataset = load_split(locate(str(tiny_dataset)), "test")
    predicted = predict_rows(dataset, adapter_reader, batch_size=4, num_workers=0)
    assert predicted.positions == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]  # the image of row 2 is missing
    assert predicted.candidates == [] and all(batch.inputs == {} for batch in predicted.batches)
    table = predicted.table()
    assert list(table["index"]) == dataset["index"][:]
    expected = [answer.prediction for answer in predicted.answers]
    assert list(table["prediction"]) == [*expected[:2], "", *expected[2:]]
    backwards = predicted.table(predicted.answers[::-1])
    assert list(backwards["prediction"]) == [*expected[::-1][:2], "", *expected[::-1][2:]]
