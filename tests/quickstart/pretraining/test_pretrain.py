from pathlib import Path

import pytest
import torch

from product_vqa.hub import Location
from product_vqa.modeling.loading import load_base_model, load_processor
from quickstart.pretraining.accuracy import measure_accuracy
from quickstart.pretraining.tasks import KINDS
from quickstart.rendering.levels import STANDARD
from tests.commands import CPU_2, launch
from tests.quickstart.pretraining.runs import TINY, make_pretrainer

pytestmark = pytest.mark.slow


@pytest.mark.faults
def test_two_processes_train_together_and_save_a_base_model_that_loads(tmp_path: Path) -> None:
    sizes = [f"--{name}={value}" for name, value in TINY.items()]
    done = launch(
        "quickstart.pretraining.pretrain",
        *("--minutes", "0.01", "--eval_rows", "1", "--output_dir", tmp_path, *sizes),
        config_file=CPU_2,
    )
    assert "images in 0.0 minutes" in done.stdout
    header, row = (tmp_path / "curve.csv").read_text().splitlines()
    steps, images = (int(row.split(",")[header.split(",").index(name)]) for name in ("step", "images"))
    assert images == 2 * TINY["batch_size"] * steps > 0
    base = Location(str(tmp_path / "base"))
    model = load_base_model(base, dtype=torch.float32)
    accuracy = measure_accuracy(model, processor=load_processor(base), rows=2, level=STANDARD)
    assert accuracy.keys() == set(KINDS)
    resumed = make_pretrainer()
    resumed.load(tmp_path / "checkpoint.pt")
    assert resumed.step == steps
