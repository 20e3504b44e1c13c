"""Confidences that mean what they say: of answers given with 0.9, nine in ten are right.

Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks") of the question whether an answer is
right: its log-odds are divided by a temperature. That keeps the order of all answers, and what is answered.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from product_vqa.command import InputError
from product_vqa.generation import Answer

CALIBRATION_FILE = "calibration.json"  # beside the adapter


@dataclass(frozen=True)
class Calibration:
    """Temperatures: above 1 a model was too sure of itself, below 1 not sure enough."""

    temperature: float = 1.0  # of the whole answer's confidence
    number_temperature: float = 1.0
    unit_temperature: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value!r}")

    def apply(self, answer: Answer) -> Answer:
        """The same answer, with calibrated confidences; those of an unconstrained answer stay as they are."""
        if answer.number_confidence is None or answer.unit_confidence is None:
            return answer
        return replace(
            answer,
            confidence=scale(answer.confidence, self.temperature),
            number_confidence=scale(answer.number_confidence, self.number_temperature),
            unit_confidence=scale(answer.unit_confidence, self.unit_temperature),
            alternatives=tuple(self.apply(other) for other in answer.alternatives),
        )


def scale(probability: float, temperature: float) -> float:
    """The probability whose log-odds are those of `probability` divided by `temperature`."""
    if not 0 < probability < 1:
        return probability
    return 1 / (1 + math.exp(min(700.0, math.log((1 - probability) / probability) / temperature)))


def load_calibration(file: Path) -> Calibration:
    """What `inference.calibrate` wrote. Raises InputError, naming the file, if it is something else."""
    names = asdict(Calibration())
    try:
        content = json.loads(file.read_text())
        return Calibration(**{name: content[name] for name in names})
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise InputError(
            f"{file} is no calibration ({type(error).__name__}: {error}): it should hold {', '.join(names)}; "
            "`python -m inference.calibrate` writes it"
        ) from error
