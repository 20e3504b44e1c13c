"""Would this submission be accepted? Exit 0 accepted, 1 refused, 2 could not be checked.

    python -m inference.check --submission submission.csv --test_csv test.csv

With --official it refuses exactly what the challenge's own checker refuses. That one lets through what would not be
evaluated: missing, extra and repeated indexes, a unit that does not suit its entity. Without it those are refused too.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from product_vqa.cli import parse_options, run
from product_vqa.csv_files import parse_index
from product_vqa.errors import InputError, argument
from product_vqa.task.schema import UNITS, UNITS_BY_ENTITY, canonical_unit, is_suitable

# Copied in behaviour from the official checker: \d and \s take any script's digits and blanks.
_OFFICIAL_FORMAT = re.compile(r"-?\d+(\.\d+)?\s+[a-zA-Z\s]+")


@dataclass
class CheckOptions:
    """What to check."""

    submission: str = field(metadata={"help": "CSV with the columns index, prediction."})
    test_csv: str = field(metadata={"help": "The challenge's test.csv (or .gz, .bz2, .xz, .zip of it)."})
    official: bool = field(default=False, metadata={"help": "Refuse exactly what the official checker refuses."})
    json: bool = field(default=False, metadata={"help": "Print the result as JSON."})


@dataclass(frozen=True)
class Problem:
    """One reason to refuse; `index` is None where it belongs to no row of test.csv."""

    index: int | None
    kind: str  # format, unit, unit_unsuitable, missing_index, extra_index, repeated_index, column
    value: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """What was found in a submission."""

    ok: bool
    rows: int
    answered: int
    empty: int
    problems: list[Problem]


def check_prediction(text: str) -> tuple[str, str] | None:
    """None where the official checker takes `text` (or reads it as no answer); else (kind, message)."""
    stripped = text.strip()
    if stripped in ("", "nan"):
        return None
    if not _OFFICIAL_FORMAT.fullmatch(stripped):
        return "format", f"{text!r} is not `number unit`, like '34.0 gram'"
    unit = stripped.split(maxsplit=1)[1]
    if canonical_unit(unit) is None:
        return "unit", f"unit {unit!r} in {text!r} is none of the {len(UNITS)} allowed"
    return None


def check_submission(submission: str | Path, test_csv: str | Path, *, official: bool = False) -> Verdict:
    """Every problem of `submission`, not only the first. Raises InputError if it cannot be checked at all."""
    from inference.tables import read_indexes, read_table

    with argument("test_csv"):
        test = read_table(test_csv, columns=("index",) if official else ("index", "entity_name"))
    with argument("test_csv"):
        test_indexes = [] if official else read_indexes(test, path=test_csv)
    if not str(submission).lower().endswith(".csv"):
        raise InputError(f"--submission {submission}: only files that end in .csv are taken")
    with argument("submission"):
        table = read_table(submission)
    if missing := [column for column in ("index", "prediction") if column not in table.columns]:
        problem = Problem(None, "column", ", ".join(missing), f"there is no column {' or '.join(missing)}")
        return Verdict(False, len(table), 0, len(table), [problem])

    problems = list(_index_problems(table["index"], test_indexes)) if not official else []
    entities = None if official else dict(zip(test_indexes, test["entity_name"], strict=True))
    problems += _prediction_problems(table["index"], table["prediction"], entities)
    empty = int((table["prediction"].str.strip() == "").sum())
    return Verdict(not problems, len(table), len(table) - empty, empty, problems)


def _index_problems(texts: Iterable[str], test_indexes: list[int]) -> Iterator[Problem]:
    owed, seen = set(test_indexes), set()
    for text in texts:
        index = parse_index(text)
        if index is None or index not in owed:
            yield Problem(index, "extra_index", text, f"index {text or '(empty)'} does not stand in test.csv")
        elif index in seen:
            yield Problem(index, "repeated_index", text, f"index {index} is answered more than once")
        if index is not None:
            seen.add(index)
    for index in test_indexes:
        if index not in seen:
            yield Problem(index, "missing_index", "", f"index {index} of test.csv is not answered")


def _prediction_problems(
    indexes: Iterable[str], predictions: Iterable[str], entities: dict[int, str] | None
) -> Iterator[Problem]:
    verdicts: dict[str, tuple[str, str] | None] = {}  # answers repeat: 131,187 rows hold some thousand different ones
    for index_text, prediction in zip(indexes, predictions, strict=True):
        if prediction not in verdicts:
            verdicts[prediction] = check_prediction(prediction)
        index = parse_index(index_text)
        if problem := verdicts[prediction]:
            yield Problem(index, problem[0], prediction, f"index {index_text}: {problem[1]}")
        elif entities is not None and prediction.strip() and index in entities:
            entity, unit = entities[index], canonical_unit(prediction.split(maxsplit=1)[1].strip())
            if entity in UNITS_BY_ENTITY and unit is not None and not is_suitable(unit, entity):
                yield Problem(
                    index, "unit_unsuitable", prediction, f"index {index}: {entity} is not answered in {unit}"
                )


def main() -> int:
    (options,) = parse_options(CheckOptions, description="Check the format of a submission.")
    verdict = check_submission(options.submission, options.test_csv, official=options.official)
    if options.json:
        print(json.dumps(asdict(verdict)))
    else:
        print(f"{verdict.rows} rows: {verdict.answered} answered, {verdict.empty} empty")
        for problem in verdict.problems[:20]:
            print(f"  {problem.kind}: {problem.message}")
        if len(verdict.problems) > 20:
            print(f"  ... and {len(verdict.problems) - 20} more; --json lists them all")
        print("accepted" if verdict.ok else f"refused: {len(verdict.problems)} problems")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    run(main)
