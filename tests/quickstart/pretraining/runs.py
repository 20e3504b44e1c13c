"""Pretraining in miniature, for the tests of a run."""

from typing import Any

from quickstart.pretraining.options import PretrainOptions
from quickstart.pretraining.trainer import Pretrainer

TINY = {"hidden_size": 64, "layers": 1, "image_size": 56, "batch_size": 4}


def make_pretrainer(**changes: int) -> Pretrainer:
    options: dict[str, Any] = {**TINY, **changes}
    return Pretrainer(PretrainOptions(**options))
