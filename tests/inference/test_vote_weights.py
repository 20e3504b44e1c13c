"""The file of vote weights: written and read back, and refused where it is malformed or for other predictions."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.submission import PREDICTIONS, write_submission
from inference.vote_weights import FittedOn, Source, VoteWeights, identify
from product_vqa.errors import InputError
from tests.inference.challenge import load_weights, save_weights

A = Source("a.parquet", sha256="1" * 64, adapter_sha256="2" * 64, has_confidences=True)
B = Source("b.csv", sha256="3" * 64, adapter_sha256=None, has_confidences=False)


def make_weights() -> VoteWeights:
    numbers = np.random.default_rng(0).normal(size=(9, 5))
    return VoteWeights(numbers[:, 0], numbers[:, 1:3], numbers[:, 3:], share_empty=np.linspace(0, 1, 9), f1=0.75)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_weights(tmp_path / "w.json", make_weights(), FittedOn((A, B), "labels.csv", 12))
    return tmp_path / "w.json"


def test_weights_are_read_as_they_were_written(file: Path) -> None:
    weights, fitted_on = load_weights(file, (A, B))
    assert weights.coefficients.tolist() == make_weights().coefficients.tolist()
    assert weights.share_empty.tolist() == make_weights().share_empty.tolist()
    assert weights.f1 == 0.75
    assert fitted_on == FittedOn((A, B), "labels.csv", 12)
    assert str(fitted_on) == "12 rows of labels.csv"
    content = json.loads(file.read_text())
    assert content["files"] == [asdict(A), asdict(B)]
    assert next(iter(content["entities"])) == "width"
    assert content["entities"]["unknown"].keys() == {"intercept", "vote", "slope", "share_empty"}


def test_a_file_is_known_by_its_content_and_its_adapter(tmp_path: Path) -> None:
    file = tmp_path / "b.csv"
    file.write_text("index,prediction\n")
    sha256 = "c21a9e6460c7f68175c2fd7808276ed043ea2d4f61be077e6be22ad5affaacbb"
    assert identify(file, has_confidences=False) == Source(str(file), sha256, None, False)
    write_submission(PREDICTIONS.empty_table(), tmp_path / "a.csv", run={"adapter_sha256": "2" * 64})
    assert identify(tmp_path / "a.parquet", has_confidences=True).adapter_sha256 == "2" * 64
    write_submission(PREDICTIONS.empty_table(), tmp_path / "a.csv", run={"adapter_sha256": 7})
    assert identify(tmp_path / "a.parquet", has_confidences=True).adapter_sha256 is None


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ((A,), r"w.json has weights of 2 files, not 1; give .* in the order of a.parquet, b.csv"),
        ((Source("x", "", "4" * 64, True), B), "x is of another adapter than a.parquet, file 1 of .*w.json; give the"),
        ((Source("x", "", None, False), B), "x has no confidences, but a.parquet, file 1 of .*, had some"),
        ((A, Source("x", "", None, True)), "x has confidences, but b.csv, file 2 of .*, had none"),
    ],
)
def test_predictions_of_other_models_are_refused(file: Path, sources: tuple[Source, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_weights(file, sources)


def test_predictions_of_the_same_adapter_about_other_rows_are_accepted(file: Path) -> None:
    load_weights(
        file, (Source("c.parquet", "5" * 64, A.adapter_sha256, True), Source("d.csv", "6" * 64, "7" * 64, False))
    )
    load_weights(file, (Source("c.parquet", "5" * 64, None, True), B))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("files",), {}),
        (("files",), [1]),
        (("files", 0), {"name": "a"}),
        (("files", 0, "name"), 1),
        (("files", 0, "sha256"), None),
        (("files", 0, "adapter_sha256"), 1),
        (("files", 0, "has_confidences"), 1),
        (("files", 0, "more"), 1),
        (("references",), None),
        (("rows",), "1"),
        (("f1",), 1.5),
        (("f1",), -0.5),
        (("f1",), True),
        (("entities",), []),
        (("entities", "colour"), {}),
        (("entities", "width"), []),
        (("entities", "width", "intercept"), 1e10),
        (("entities", "width", "intercept"), 10**400),
        (("entities", "width", "vote"), [1.0]),
        (("entities", "width", "vote"), [1.0, "1"]),
        (("entities", "width", "slope"), 1.0),
        (("entities", "width", "share_empty"), 2),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(file: Path, path: tuple[str | int, ...], value: Any) -> None:
    content = json.loads(file.read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"w.json was not written by inference.ensemble \(.*; fit .* again") as error:
        load_weights(file, (A, B))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "1", "{", "[" * 5000, '{"f1": NaN}', "\x00"])
def test_any_other_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(InputError, match=r"w.json was not written by inference.ensemble") as error:
        load_weights(tmp_path / "w.json", (A, B))
    assert "\n" not in str(error.value)
