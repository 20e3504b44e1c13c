import pytest

from inference.predict_options import PredictOptions
from product_vqa.errors import InputError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"push_to_hub": True}, "`push_to_hub` needs `hub_predictions_id` user/name"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"num_beams": 9}, "`num_beams` must be 1 to 8, got 9"),
        ({"min_confidence": 1.5}, "`min_confidence` must be 0 to 1, got 1.5"),
        ({"dataloader_num_workers": -1}, "`dataloader_num_workers` must not be negative, got -1"),
        ({"output": "s.txt"}, "`output` s.txt must end in .csv: the challenge accepts no other file"),
    ],
)
def test_a_value_that_no_prediction_can_have_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        PredictOptions(**{"output": "s.csv", "dataset": "user/name", **given})  # type: ignore[arg-type]
    assert str(error.value) == message


def test_a_model_answers_unless_another_reader_is_asked_for() -> None:
    assert PredictOptions(output="s.csv").reader == "model"
