"""Examples of an evaluation in the tracker."""

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.commands import call
from training import sft

pytestmark = pytest.mark.slow


def test_each_evaluation_shows_its_first_answers_in_tensorboard(
    tiny_run: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="the extra `trackers` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "tensorboard"))
    call(
        sft.main, monkeypatch, *tiny_run, "--output_dir", tmp_path / "run", "--max_steps", 4, "--eval_steps", 2,
        "--logging_steps", 1, "--report_to", "tensorboard",
    )  # fmt: skip
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    shown = events.Images("eval/examples")
    assert [image.step for image in shown] == [2, 4]
    sheet = Image.open(io.BytesIO(shown[0].encoded_image_string))
    assert sheet.size == (1024, 616)  # the eight rows of validation, four in a line
    assert len(sheet.convert("RGB").getcolors(maxcolors=2**24)) > 1000  # the images are in it
    assert [value.step for value in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert "eval/f1_quantity" in events.Tags()["scalars"]
