"""`Answer`: what the model says to a question about an image, ready for JSON."""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Answer:
    """The model's answer to a question about an image, with its probabilities (0..1).

    An item of `AttributeReader.read_many` that cannot be read has an `error` instead, and no prediction.
    """

    text: str  # as decoded
    prediction: str  # in canonical form, as in a submission: `500.0 gram`; "" if the text is not a valid answer
    # The product, over all tokens, of the token's probability among the allowed ones. Multiplied by
    # `allowed_probability`, it is the model's own probability of this answer.
    confidence: float
    number_confidence: float | None = None  # of a quantity's number, with any unit; None if it is not constrained
    unit_confidence: float | None = None  # of a quantity's unit, given the number; None if it is not constrained
    # The product, over all tokens, of the probability that the model gave to all allowed tokens before the others were
    # masked. Low if the model preferred another answer. None if the answer is not constrained.
    allowed_probability: float | None = None
    alternatives: "tuple[Answer, ...]" = ()  # the other beams, most likely first
    value: str = ""  # of the prediction, without the unit: `500.0`
    unit: str = ""  # of a quantity: `gram`
    number: float | None = None  # the value of a quantity or an integer: 500.0; None if the prediction has none
    entity_name: str = ""  # the attribute that was asked for
    # The probability that the image shows the attribute: that the answer is not empty, whichever it is. None if the
    # answer is not constrained, and about an attribute of which the schema does not say `not_shown`.
    shown: float | None = None
    # The text that supports a grounded answer: left, top, right and bottom as fractions of the image. None without
    # OCR, and if OCR did not read the answer.
    box: tuple[float, float, float, float] | None = None
    error: str | None = None  # why there is no answer: which item, and what is wrong with it

    @classmethod
    def of_error(cls, error: str, *, entity_name: str = "") -> "Answer":
        """In place of an answer to an item that cannot be read."""
        return cls("", "", 0.0, entity_name=entity_name, error=error)

    def as_dict(self) -> dict[str, Any]:
        """All fields as a dictionary of JSON's types. Of an alternative: its prediction and confidence."""
        alternatives = [
            {name: getattr(other, name) for name in ("prediction", "value", "number", "unit", "confidence")}
            for other in self.alternatives
        ]
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return own | {"alternatives": alternatives}
