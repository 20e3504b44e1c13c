"""The predictions of an ensemble, as a table like those of inference.predict."""

import numpy as np
import pyarrow as pa

from inference.submission import PREDICTIONS
from inference.vote_weights import Decision
from inference.votes import NO_VOTE, Votes
from product_vqa.task.schema import ENTITIES


def to_table(votes: Votes, decision: Decision, *, is_left_empty: np.ndarray) -> pa.Table:
    """One row of `PREDICTIONS` for each row of the votes, in order.

    `answer` is the most likely answer, also where the prediction is empty; null where nobody voted. The other answers
    are its alternatives. Confidences of numbers and units are null.
    """
    texts = np.array([*map(str, votes.quantities), ""], dtype=object)
    names = np.array([*ENTITIES, None], dtype=object)
    answers, best = decision.answers, decision.best
    has_answer = np.isin(np.arange(len(votes.rows)), answers.rows)
    spelled = np.full(len(votes.rows), NO_VOTE)
    spelled[answers.rows[best]] = decision.spellings[best]
    links = votes.rows.image_links
    columns = {
        "index": pa.array(votes.rows.indexes, pa.int64()),
        "image_link": pa.array(links, pa.string(), mask=links == ""),
        "entity_name": pa.array(names[votes.rows.entities], pa.string()),
        "prediction": pa.array(texts[np.where(is_left_empty, NO_VOTE, decision.choices)], pa.string()),
        "answer": pa.array(texts[spelled], pa.string(), mask=~has_answer),
        "confidence": pa.array(decision.confidences, pa.float64(), mask=~has_answer),
        "alternatives": _alternatives(votes, decision, texts, has_answer=has_answer),
    }
    nothing = {field.name: pa.nulls(len(votes.rows), field.type) for field in PREDICTIONS}
    return pa.table(nothing | columns, schema=PREDICTIONS)


def _alternatives(votes: Votes, decision: Decision, texts: np.ndarray, *, has_answer: np.ndarray) -> pa.Array:
    """Of each row the answers that are not the best, the most likely first; null where nobody voted."""
    rows = decision.answers.rows
    is_other = np.ones(len(rows), dtype=bool)
    is_other[decision.best] = False
    order = np.lexsort((decision.answers.amounts, -decision.probabilities, rows))
    others = order[is_other[order]]
    counts = np.bincount(rows[others], minlength=len(votes.rows))
    values = pa.StructArray.from_arrays(
        [pa.array(texts[decision.spellings[others]], pa.string()), pa.array(decision.probabilities[others])],
        fields=list(PREDICTIONS.field("alternatives").type.value_type),
    )
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    return pa.ListArray.from_arrays(
        offsets, values, type=PREDICTIONS.field("alternatives").type, mask=pa.array(~has_answer)
    )
