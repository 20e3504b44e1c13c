"""How much the votes of each file count: the default, and the JSON file of fitted weights.

One run of inference.ensemble writes the file, and others apply it.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference.submission import read_run
from product_vqa.atomic_io import atomic_write
from product_vqa.documents import read_json
from product_vqa.errors import InputError, first_line
from product_vqa.paths import open_regular, readable_file
from product_vqa.quoting import one_line
from product_vqa.task.attributes import Schema

DEFAULT_INTERCEPT, DEFAULT_VOTE, DEFAULT_SLOPE = -1.0, 1.0, 1.0  # one vote alone is as likely right as its confidence
_UNKNOWN = "unknown"  # after the attributes: the parameters of rows whose attribute is not known
_MAX_NUMBER = 1e9
_REMEDY = "fit the weights again with `references` and `save_weights`"


@dataclass(frozen=True)
class VoteWeights:
    """The parameters, by attribute: position in the schema's names; the last ones are for unknown ones."""

    intercept: np.ndarray  # (attributes,)
    vote: np.ndarray  # (attributes, files)
    slope: np.ndarray  # (attributes, files)
    share_empty: np.ndarray  # (attributes,): of the rows whose answers are all wrong, how many have an empty label
    f1: float  # on the labelled rows; with `share_empty` it decides which rows are better left empty

    @property
    def coefficients(self) -> np.ndarray:
        """(attributes, 1 + 2 files), in the order of `Answers.features`."""
        return np.hstack([self.intercept[:, None], self.vote, self.slope])


@dataclass(frozen=True)
class Source:
    """A file of predictions, identified by its content and by the adapter that made it."""

    name: str
    sha256: str
    adapter_sha256: str | None  # None if inference.predict did not write the file
    has_confidences: bool


@dataclass(frozen=True)
class FittedOn:
    """What weights were fitted on."""

    files: tuple[Source, ...]
    references: str
    rows: int  # with a label

    def __str__(self) -> str:
        return f"{self.rows} rows of {one_line(self.references)}"


def default_weights(num_files: int, *, schema: Schema) -> VoteWeights:
    """The weights without any labels: all files count the same, and confidences are taken as they are."""
    num_entities = len(schema.names) + 1
    shape = (num_entities, num_files)
    return VoteWeights(
        intercept=np.full(num_entities, DEFAULT_INTERCEPT),
        vote=np.full(shape, DEFAULT_VOTE),
        slope=np.full(shape, DEFAULT_SLOPE),
        share_empty=np.zeros(num_entities),
        f1=0.0,
    )


def identify(predictions: str | Path, *, has_confidences: bool) -> Source:
    """Hash a file of predictions, and read which adapter made it."""
    with open_regular(predictions) as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # a binary file
    adapter = read_run(predictions).get("adapter_sha256")
    return Source(str(predictions), sha256, adapter if isinstance(adapter, str) else None, has_confidences)


def save_weights(file: Path, weights: VoteWeights, fitted_on: FittedOn, *, schema: Schema) -> None:
    """Write the weights of files, and what they were fitted on."""
    content = {
        **asdict(fitted_on),
        "f1": weights.f1,
        "entities": {
            name: {
                "intercept": float(weights.intercept[number]),
                "vote": weights.vote[number].tolist(),
                "slope": weights.slope[number].tolist(),
                "share_empty": float(weights.share_empty[number]),
            }
            for number, name in enumerate((*schema.names, _UNKNOWN))
        },
    }
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def load_weights(path: str | Path, sources: Sequence[Source], *, schema: Schema) -> tuple[VoteWeights, FittedOn]:
    """Read the weights of these files, and what they were fitted on.

    A file belongs to the one that the weights were fitted on by its place in the list. Raises InputError for a file
    that `save_weights` did not write, and for predictions that are known to be of another model, or have confidences
    where the others had none, or the reverse.
    """
    file = readable_file(path)
    try:
        content = read_json(file)
        files = tuple(_parse_source(**source) for source in content["files"])
        fitted_on = FittedOn(files, _text(content["references"]), rows=int(_number(content["rows"])))
        weights = _parse(content, num_files=len(files), names=(*schema.names, _UNKNOWN))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {first_line(error)[:200]}"
        raise InputError(f"{file} was not written by inference.ensemble ({reason}); {_REMEDY}") from error
    _check_sources(sources, files, file=file)
    return weights, fitted_on


def _parse_source(*, name: Any, sha256: Any, adapter_sha256: Any, has_confidences: Any) -> Source:
    if not isinstance(has_confidences, bool):
        raise ValueError(f"has_confidences is {one_line(repr(has_confidences), max_length=50)}")
    adapter = None if adapter_sha256 is None else _text(adapter_sha256)
    return Source(_text(name), _text(sha256), adapter, has_confidences)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{one_line(repr(value), max_length=50)} is not text")
    return value


def _parse(content: dict[str, Any], *, num_files: int, names: Sequence[str]) -> VoteWeights:
    entities = content["entities"]
    if entities.keys() != set(names):
        raise ValueError(f"entities are {one_line(', '.join(map(str, entities)))}")
    rows = [entities[name] for name in names]
    return VoteWeights(
        intercept=np.array([_number(row["intercept"]) for row in rows]),
        vote=np.array([_numbers(row["vote"], num_files) for row in rows]),
        slope=np.array([_numbers(row["slope"], num_files) for row in rows]),
        share_empty=np.array([_share(row["share_empty"]) for row in rows]),
        f1=_share(content["f1"]),
    )


def _numbers(values: Any, length: int) -> list[float]:
    if not isinstance(values, list) or len(values) != length:
        raise ValueError(f"expected a list of {length} numbers, one per file")
    return [_number(value) for value in values]


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > _MAX_NUMBER:
        raise ValueError(f"{one_line(repr(value), max_length=50)} is not a number up to {_MAX_NUMBER:g}")
    return float(value)


def _share(value: Any) -> float:
    if not 0 <= _number(value) <= 1:
        raise ValueError(f"{value} is not from 0 to 1")
    return float(value)


def _check_sources(sources: Sequence[Source], fitted_on: Sequence[Source], *, file: Path) -> None:
    order = ", ".join(one_line(source.name) for source in fitted_on)
    if len(sources) != len(fitted_on):
        raise InputError(
            f"{file} has weights of {len(fitted_on)} files, not {len(sources)}; give the predictions of the same "
            f"models, in the order of {order}"
        )
    for number, (source, known) in enumerate(zip(sources, fitted_on, strict=True), start=1):
        if None not in (source.adapter_sha256, known.adapter_sha256) and source.adapter_sha256 != known.adapter_sha256:
            raise InputError(
                f"{source.name} is of another adapter than {one_line(known.name)}, file {number} of {file}; give the "
                f"predictions of the same models, in the order of {order}"
            )
        if source.has_confidences != known.has_confidences:
            has, had = ("has", "had none") if source.has_confidences else ("has no", "had some")
            raise InputError(
                f"{source.name} {has} confidences, but {one_line(known.name)}, file {number} of {file}, {had}; give "
                "the .parquet or the .csv file of both"
            )
