"""Check the format of a submission. Exit code 0: accepted, 1: refused, 2: could not be checked.

    python -m inference.check --submission submission.csv --test_csv test.csv
    python -m inference.check --submission submission.csv --test_csv test.csv --schema schema.yaml
    python -m inference.check --submission submission.csv --test_csv products.csv --schema schema.yaml --wide

With --schema, the attributes and their answers are those of that file. A prediction is accepted in canonical form
only, and with at most as many digits as the attribute may have.

With --official, exactly what the challenge's own checker refuses is refused. That checker accepts more than can be
evaluated: missing, extra and duplicate indexes, and units that do not suit their attribute. Without --official, those
are refused too.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from product_vqa.cli import parse_options, run
from product_vqa.csv_files import parse_index
from product_vqa.errors import InputError, argument
from product_vqa.quoting import one_line
from product_vqa.tables.layout import COLUMNS_HELP, WIDE_HELP, Layout
from product_vqa.task.attributes import Attribute, Schema
from product_vqa.task.kinds import LabelError, QuantityKind
from product_vqa.task.schema import CHALLENGE, UNITS, UNITS_BY_ENTITY, is_challenge, is_suitable

# As in the official checker: \d and \s match the digits and spaces of any script.
_MISSING = ("", "nan")  # which the official checker reads as no prediction
# Its own pattern has `\s+` for the one `\s`, which matches the same, but takes quadratic time for many spaces.
_OFFICIAL_FORMAT = re.compile(r"-?\d+(\.\d+)?\s[a-zA-Z\s]+")


@dataclass
class CheckOptions:
    """The submission, and the test.csv that it belongs to."""

    submission: str = field(metadata={"help": "Submission to check: a CSV with the columns index, prediction."})
    test_csv: str = field(
        metadata={"help": "The test.csv that was predicted, plain or compressed (.gz, .bz2, .xz, .zip)."}
    )
    official: bool = field(
        default=False, metadata={"help": "Refuse exactly what the challenge's own checker refuses."}
    )
    schema: str | None = field(
        default=None, metadata={"help": "Your own attributes: a schema.yaml. Default: those of the challenge."}
    )
    wide: bool = field(default=False, metadata={"help": WIDE_HELP})
    columns: str | None = field(default=None, metadata={"help": COLUMNS_HELP})
    json: bool = field(default=False, metadata={"help": "Print the result as JSON."})

    def __post_init__(self) -> None:
        given = {"--schema": self.schema is not None, "--wide": self.wide, "--columns": self.columns is not None}
        for flag in (flag for flag, is_given in given.items() if is_given and self.official):
            raise InputError(f"--official is the challenge's own checker, which knows no {flag}: pass one of them")


@dataclass(frozen=True)
class Problem:
    """One reason to refuse the submission; `index` is None if it has no row in test.csv."""

    index: int | None
    kind: str  # format, unit, unit_unsuitable, missing_index, extra_index, repeated_index, column
    value: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """The result of a check."""

    ok: bool
    rows: int
    answered: int
    empty: int
    problems: list[Problem]


def check_prediction(text: str) -> tuple[str, str] | None:
    """None if the official checker accepts `text` or reads it as missing; else (kind, message)."""
    stripped = text.strip()
    if stripped in _MISSING:
        return None
    if not _OFFICIAL_FORMAT.fullmatch(stripped):
        return "format", f"{text!r} is not a number and a unit, such as '34.0 gram'"
    unit = stripped.split(maxsplit=1)[1]
    if unit not in CHALLENGE.unit_by_spelling:
        return "unit", f"unit {unit!r} in {text!r} is not one of the {len(UNITS)} allowed units"
    return None


def check_answer(text: str, attribute: Attribute) -> tuple[str, str] | None:
    """None if `text` is empty, or a canonical answer about the attribute within its limits; else (kind, message)."""
    if not text:
        return None
    shown = one_line(repr(text), max_length=100)
    try:
        canonical = attribute.normalize(text)
    except LabelError as error:
        if error.reason == "unit_unsuitable":
            return error.reason, f"{shown} is not in a unit of {attribute.name}"
        if error.reason == "unit_unknown":
            assert isinstance(attribute.kind, QuantityKind)
            units = one_line(", ".join(attribute.kind.units), max_length=200)
            return "unit", f"the unit in {shown} is not one of those of {attribute.name}: {units}"
        return "format", f"{attribute.name}: {one_line(str(error))}"
    if canonical != text:
        remedy = f"is written {canonical!r}" if canonical else "is left empty"
        return "format", f"{shown} {remedy} as an answer about {attribute.name}"
    if excess := attribute.excess(text):
        return "format", f"{shown} has {excess} of {attribute.name}: round it, or raise the limit in the schema"
    return None


def check_submission(
    submission: str | Path,
    test_csv: str | Path,
    *,
    official: bool = False,
    schema: Schema,
    layout: Layout,
) -> Verdict:
    """Find all problems of a submission. Raises InputError if it cannot be checked at all.

    The challenge's predictions may have any form that its own checker accepts; those for another schema must be
    canonical. With `official`, which is for the challenge only, exactly that checker's verdicts are returned.
    """
    from inference.tables import read_attribute_rows, read_table

    of_challenge = is_challenge(schema)
    assert of_challenge or not official
    entities: dict[int, str] = {}
    with argument("test_csv"):
        if official:
            read_table(test_csv, columns=("index",))
        else:
            test = read_attribute_rows(test_csv, schema=schema, layout=layout, columns=("index", "entity_name"))
            entities = dict(zip(test["index"].tolist(), test["entity_name"], strict=True))
    if not str(submission).lower().endswith(".csv"):
        raise InputError(f"`submission` {submission} must end in .csv: the challenge accepts no other file")
    with argument("submission"):
        table = read_table(submission, optional=("index", "prediction"), as_written=not of_challenge)
    if missing := [column for column in ("index", "prediction") if column not in table.columns]:
        problem = Problem(None, "column", ", ".join(missing), f"no column {' or '.join(missing)}")
        return Verdict(False, len(table), 0, len(table), [problem])

    problems: list[Problem] = []
    if not official:
        problems += _index_problems(table["index"], list(entities))
    if of_challenge:
        problems += _prediction_problems(table["index"], table["prediction"], entities)
    else:
        problems += _answer_problems(table["index"], table["prediction"], entities, schema)
    empty = int((table["prediction"].str.strip() == "").sum())
    return Verdict(not problems, len(table), len(table) - empty, empty, problems)


def _index_problems(texts: Iterable[str], test_indexes: list[int]) -> Iterator[Problem]:
    expected = set(test_indexes)
    seen: set[int] = set()
    for text in texts:
        index = parse_index(text)
        if index is None or index not in expected:
            yield Problem(index, "extra_index", text, f"index {text or '(empty)'} is not in test.csv")
        elif index in seen:
            yield Problem(index, "repeated_index", text, f"index {index} occurs more than once")
        if index is not None:
            seen.add(index)
    for index in test_indexes:
        if index not in seen:
            yield Problem(index, "missing_index", "", f"index {index} of test.csv has no row")


def _prediction_problems(
    indexes: Iterable[str], predictions: Iterable[str], entities: dict[int, str]
) -> Iterator[Problem]:
    """`entities` has the attribute of each index; units are not compared with those of an index that it lacks."""
    verdicts: dict[str, tuple[str, str] | None] = {}  # predictions repeat: a few thousand different in 131,187 rows
    for index_text, prediction in zip(indexes, predictions, strict=True):
        if prediction not in verdicts:
            verdicts[prediction] = check_prediction(prediction)
        index = parse_index(index_text)
        if problem := verdicts[prediction]:
            kind, message = problem
            yield Problem(index, kind, prediction, f"index {index_text}: {message}")
        elif prediction.strip() not in _MISSING and index in entities and not _suits(prediction, entities[index]):
            message = f"index {index}: {prediction!r} is not in a unit of {entities[index]}"
            yield Problem(index, "unit_unsuitable", prediction, message)


def _answer_problems(
    indexes: Iterable[str], predictions: Iterable[str], entities: dict[int, str], schema: Schema
) -> Iterator[Problem]:
    """A prediction of an index that `entities` lacks is not judged: the index is a problem itself."""
    verdicts: dict[tuple[str, str], tuple[str, str] | None] = {}
    for text, prediction in zip(indexes, predictions, strict=True):
        index = parse_index(text)
        if index is None or index not in entities:
            continue
        key = (entities[index], prediction)
        if key not in verdicts:
            verdicts[key] = check_answer(prediction, schema[entities[index]])
        if problem := verdicts[key]:
            kind, message = problem
            yield Problem(index, kind, prediction, f"index {index}: {message}")


def _suits(prediction: str, entity_name: str) -> bool:
    """Whether the unit of a well-formed prediction is one of the attribute's; any unit suits an unknown attribute."""
    unit = CHALLENGE.unit_by_spelling.get(prediction.split(maxsplit=1)[1].strip())
    return entity_name not in UNITS_BY_ENTITY or unit is None or is_suitable(unit, entity_name)


def main() -> int:
    (options,) = parse_options(CheckOptions, description="Check the format of a submission.")

    from product_vqa.schemas import choose_schema

    with argument("schema"):
        schema = choose_schema(options.schema)
    layout = Layout.of(wide=options.wide, columns=options.columns)
    layout.check(schema)
    verdict = check_submission(
        options.submission, options.test_csv, official=options.official, schema=schema, layout=layout
    )
    if options.json:
        print(json.dumps(asdict(verdict)))
    else:
        print(f"{verdict.rows} rows: {verdict.answered} answered, {verdict.empty} empty")
        for problem in verdict.problems[:20]:
            print(f"  {problem.kind}: {problem.message}")
        if len(verdict.problems) > 20:
            print(f"  ... and {len(verdict.problems) - 20} more; --json lists all of them")
        print("accepted" if verdict.ok else f"refused: {len(verdict.problems)} problems")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    run(main)
