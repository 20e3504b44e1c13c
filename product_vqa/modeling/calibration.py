"""Calibrate confidences: of the answers with a confidence of 0.9, nine in ten are then right.

Platt scaling (1999, "Probabilistic Outputs for Support Vector Machines") of the probability that an answer is right:
its log-odds are divided by a temperature, and a bias is added. Neither the answers nor their order change. A
temperature alone (Guo et al. 2017) would keep 0.5 at 0.5, for which there is no reason here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from product_vqa.documents import read_json
from product_vqa.errors import InputError, first_line
from product_vqa.modeling.answer import Answer

if TYPE_CHECKING:
    import pandas as pd

MAX_WEIGHT = 15.0  # of a feature of an OCR candidate, absolute: the logarithm of 3.3 million

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scaling:
    """A correction of probabilities; the default changes nothing."""

    temperature: float = 1.0  # above 1 if the model's probabilities were too extreme
    bias: float = 0.0  # below 0 if they were too high

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} must be a number, got {value!r}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def __call__(self, probability: float) -> float:
        """Divide the log-odds of `probability` by the temperature, and add the bias."""
        if not 0 < probability < 1:
            return probability
        log_odds = math.log(probability / (1 - probability)) / self.temperature + self.bias
        return 1 / (1 + math.exp(min(700.0, -log_odds)))


@dataclass(frozen=True)
class Calibration:
    """The scalings of the confidence of a quantity, of its number, and of its unit given the number.

    And that of the confidence of other answers, which have no unit, and of the probability that an image shows an
    attribute. An empty answer says that it does not: its confidence follows from that probability.
    """

    answer: Scaling = Scaling()
    number: Scaling = Scaling()
    unit: Scaling = Scaling()
    value: Scaling = Scaling()
    shown: Scaling = Scaling()
    grounding: Grounding | None = None  # how far to trust OCR; None if that was not fitted

    def apply(self, answer: Answer) -> Answer:
        """Calibrate the confidences of an answer and its alternatives, but not of an unconstrained answer."""
        if answer.allowed_probability is None:
            return answer
        alternatives = tuple(self.apply(other) for other in answer.alternatives)
        shown = None if answer.shown is None else self.shown(answer.shown)
        answer = replace(answer, shown=shown)
        if shown is not None and not answer.prediction:
            return replace(answer, confidence=1 - shown, alternatives=alternatives)
        if answer.number_confidence is None or answer.unit_confidence is None:
            return replace(answer, confidence=self.value(answer.confidence), alternatives=alternatives)
        confidence = self.answer(answer.confidence)
        return replace(
            answer,
            confidence=confidence,
            # A right answer has a right number and unit. The scalings are fitted one by one, some on few mistakes.
            number_confidence=max(confidence, self.number(answer.number_confidence)),
            unit_confidence=max(confidence, self.unit(answer.unit_confidence)),
            alternatives=alternatives,
        )

    def parts(self) -> dict[str, Scaling]:
        """The scalings by name, without those of answers without a unit and of `shown` where they change nothing."""
        parts = {"answer": self.answer, "number": self.number, "unit": self.unit}
        more = {"value": self.value, "shown": self.shown}
        return parts | {name: part for name, part in more.items() if part != Scaling()}

    def __str__(self) -> str:
        """Format each scaling as temperature and bias: `answer 1.2 -0.1, number 1 +0, unit 1 +0`."""
        return ", ".join(f"{name} {part.temperature:.4g} {part.bias:+.4g}" for name, part in self.parts().items())


@dataclass(frozen=True)
class Grounding:
    """How candidates of an OCR engine weigh against the model, see `product_vqa.modeling.grounding`."""

    weights: Mapping[str, float] = field(default_factory=dict)  # of features; 0 for one that is missing
    # With which candidates are ranked: attribute -> unit -> its share of the labels.
    unit_shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scalings: Calibration = field(default_factory=Calibration)  # of grounded confidences
    is_better: bool = False  # whether the labelled split showed a gain

    def __str__(self) -> str:
        """The weights, the scalings and a hash of the shares: what predictions record."""
        weights = ", ".join(f"{name} {value:+.4g}" for name, value in sorted(self.weights.items()))
        shares = hashlib.sha256(json.dumps(self.as_dict()["unit_shares"], sort_keys=True).encode()).hexdigest()
        return f"{weights}; {self.scalings}; unit shares {shares[:12]}"

    def as_dict(self) -> dict[str, Any]:
        """As calibration.json has it."""
        return {
            "is_better": self.is_better,
            "weights": dict(self.weights),
            **{name: asdict(scaling) for name, scaling in self.scalings.parts().items()},
            "unit_shares": {name: dict(shares) for name, shares in self.unit_shares.items()},
        }


def fit_calibration(answers: pd.DataFrame) -> Calibration:
    """Fit the scalings on answers whose label is known.

    Columns: `confidence`, `number_confidence` and `unit_confidence` (NaN for an answer without a unit), and the
    booleans `is_right` and, of quantities, `is_number_right`. The unit's scaling is fitted where the number is right,
    for its confidence is that of the unit given the number. With a column `shown` (NaN where an answer cannot be
    empty), there is `is_shown` too, whether the label has a value; answers that are empty (`prediction`) count for
    `shown` alone.
    """
    shown = Scaling()
    if "shown" in answers:
        shown = _fit_column(answers[answers["shown"].notna()], "shown", "is_shown")
        answers = answers[answers["prediction"] != ""]
    is_quantity = answers["number_confidence"].notna()
    quantities = answers[is_quantity]
    number_right = quantities[quantities["is_number_right"].astype(bool)]
    return Calibration(
        answer=_fit_column(quantities, "confidence", "is_right"),
        number=_fit_column(quantities, "number_confidence", "is_number_right"),
        unit=_fit_column(number_right, "unit_confidence", "is_right"),
        value=_fit_column(answers[~is_quantity], "confidence", "is_right"),
        shown=shown,
    )


def _fit_column(answers: pd.DataFrame, confidence: str, outcome: str) -> Scaling:
    return fit_scaling(answers[confidence].to_numpy(), answers[outcome].to_numpy(bool))


def fit_scaling(probabilities: np.ndarray, outcomes: np.ndarray) -> Scaling:
    """Fit the scaling under which `outcomes` (bool) are most likely, with a temperature from 0.05 to 20.

    The default scaling if all outcomes are equal: the most likely bias would be infinite. Raises ValueError for arrays
    of unequal length.
    """
    from scipy.optimize import minimize  # an adapter is read without it

    if len(probabilities) != len(outcomes):
        raise ValueError(f"{len(probabilities)} probabilities and {len(outcomes)} outcomes")
    if len(outcomes) == 0 or outcomes.all() or not outcomes.any():
        return Scaling()

    def loss(parameters: np.ndarray) -> float:
        log_temperature, bias = parameters
        return log_loss(probabilities, outcomes, Scaling(temperature=np.exp(log_temperature), bias=bias))

    bounds = ((np.log(0.05), np.log(20)), (-10, 10))
    log_temperature, bias = minimize(loss, x0=(0.0, 0.0), bounds=bounds).x
    return Scaling(temperature=float(np.exp(log_temperature)), bias=float(bias))


def log_loss(probabilities: np.ndarray, outcomes: np.ndarray, scaling: Scaling | None = None) -> float:
    """Return the mean negative log likelihood of the outcomes, in nats."""
    clipped = np.clip(probabilities, 1e-9, 1 - 1e-9)
    log_odds = np.log(clipped / (1 - clipped))
    if scaling is not None:
        log_odds = log_odds / scaling.temperature + scaling.bias
    return float(np.logaddexp(0, np.where(outcomes, -log_odds, log_odds)).mean())


def load_calibration(file: Path, *, adapter_sha256: str | None = None) -> Calibration | None:
    """Load the file that `inference.calibrate` wrote. Raises InputError, which names the file, if it is malformed.

    `adapter_sha256` is the hash of an adapter (`provenance.adapter_sha256`). If the file was fitted on the answers of
    another adapter, or does not record which one, this logs a warning and returns None: retraining an adapter changes
    its confidences.
    """
    names = Calibration().parts()
    try:
        content = read_json(file)
        calibration = _parse_scalings(content)
        if "grounding" in content:
            calibration = replace(calibration, grounding=_parse_grounding(content["grounding"]))
        fitted_on = content.get("adapter_sha256")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError) as error:
        raise InputError(
            f"{file} is malformed ({type(error).__name__}: {first_line(error)[:200]}): "
            f"expected {', '.join(names)} and, if OCR was calibrated, grounding, as written by "
            "`python -m inference.calibrate`"
        ) from error
    if adapter_sha256 is None or fitted_on == adapter_sha256:
        return calibration
    logger.warning(
        "%s is ignored: it %s. Confidences are not calibrated; `python -m inference.calibrate` calibrates them",
        file,
        "was fitted on another adapter" if fitted_on else "does not record which adapter it was fitted on",
    )
    return None


def _parse_scalings(content: Mapping[str, Any]) -> Calibration:
    names = Calibration().parts()
    more = [name for name in ("value", "shown") if name in content]  # only what was fitted is written
    scalings: dict[str, Any] = {name: Scaling(**content[name]) for name in (*names, *more)}
    for name, scaling in scalings.items():
        if not (1e-3 <= scaling.temperature <= 1e3 and abs(scaling.bias) <= 1e3):
            raise ValueError(f"the scaling of {name} is {str(scaling)[:100]}")
    return Calibration(**scalings)


def _parse_grounding(content: Mapping[str, Any]) -> Grounding:
    if not all(isinstance(content.get(name), dict) for name in ("weights", "unit_shares")):
        raise ValueError("grounding has no weights and unit_shares, by name")
    weights = {str(name): float(value) for name, value in content["weights"].items()}
    if wrong := [name for name, value in weights.items() if not abs(value) <= MAX_WEIGHT]:
        raise ValueError(f"the weight of {wrong[0][:50]} is not a number from -{MAX_WEIGHT} to {MAX_WEIGHT}")
    shares = {
        str(name): {str(unit): float(share) for unit, share in units.items()}
        for name, units in content["unit_shares"].items()
    }
    if not all(0 <= share <= 1 for units in shares.values() for share in units.values()):
        raise ValueError("unit_shares are not shares")
    return Grounding(weights, shares, _parse_scalings(content), is_better=content["is_better"] is True)
