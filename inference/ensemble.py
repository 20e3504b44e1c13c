"""Combine the predictions of several models into one: each row gets the answer with the most weighted votes.

    python -m inference.ensemble --predictions a/validation.parquet b/validation.parquet c/validation.csv \\
        --references user/dataset:validation --output validation.csv --save_weights weights.json
    python -m inference.ensemble --predictions a/test.parquet b/test.parquet c/test.csv \\
        --weights weights.json --test_csv test.csv --output submission.csv

The first command fits how much each file's vote counts for each attribute, on a labelled split; the second one applies
that to the test split. Without --references and --weights, all files count the same.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.tables.layout import COLUMNS_HELP, WIDE_HELP, Layout

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from inference.rows import Rows
    from inference.vote_scores import VoteScore
    from inference.vote_weights import Source, VoteWeights
    from inference.votes import Count, Votes
    from product_vqa.task.attributes import Schema


logger = logging.getLogger(__name__)

MAX_FILES = 32  # of 131,187 rows on which most of them disagree, they take 4 GB


@dataclass
class EnsembleOptions:
    """The predictions, what is known about them, and the output."""

    predictions: list[str] = field(
        metadata={
            "help": "Predictions by several models of the same rows, or of parts of them: X.parquet of "
            "inference.predict, with confidences, or CSVs of any tool with the columns index, prediction (and "
            "confidence)."
        }
    )
    output: str = field(metadata={"help": "The submission to write, X.csv; X.parquet is written next to it."})
    references: str | None = field(
        default=None,
        metadata={
            "help": "Labels of the rows, or of some of them, to fit the weights of the files on: a CSV with "
            "entity_name, entity_value (and index), or a split of a dataset (user/name[@revision]:validation)."
        },
    )
    save_weights: str | None = field(
        default=None, metadata={"help": "JSON file to write the fitted weights to, for --weights."}
    )
    weights: str | None = field(
        default=None,
        metadata={"help": "Weights that --save_weights wrote, for predictions of the same models in the same order."},
    )
    test_csv: str | None = field(
        default=None,
        metadata={
            "help": "The table that was predicted: the rows of the output, their order and their attributes. Default: "
            "all rows of the predictions, by index."
        },
    )
    leave_empty: list[str] | None = field(
        default=None, metadata={"help": "Attributes whose predictions are left empty, for example depth."}
    )
    schema: str | None = field(
        default=None,
        metadata={
            "help": "Your own attributes: a schema.yaml. A dataset of --references brings its own. Default: those of "
            "the challenge."
        },
    )
    wide: bool = field(default=False, metadata={"help": WIDE_HELP})
    columns: str | None = field(default=None, metadata={"help": COLUMNS_HELP})
    ranges: Literal["leave_out", "first", "last"] = field(
        default="leave_out",
        metadata={
            "help": "A range among the predictions or labels, such as [100.0, 240.0] volt, which a submission cannot "
            "hold: no vote, or its first or last number."
        },
    )

    def __post_init__(self) -> None:
        if not self.output.endswith(".csv"):
            raise InputError(f"--output {self.output} must end in .csv: the challenge accepts no other file")
        if len(self.predictions) > MAX_FILES:
            raise InputError(f"--predictions: {len(self.predictions)} files, more than {MAX_FILES}")
        if self.weights is not None and self.references is not None:
            raise InputError("--weights applies weights and --references fits new ones: pass one of them")
        if self.save_weights is not None and self.references is None:
            raise InputError("--save_weights needs --references, on which the weights are fitted")
        names = {name.strip() for text in self.leave_empty or () for name in text.split(",")}
        self.leave_empty = sorted(names)


def main() -> None:
    (options,) = parse_options(
        EnsembleOptions, description="Combine the predictions of several models into one submission."
    )

    from inference.batch_files import check_output
    from inference.submission import write_submission
    from product_vqa.atomic_io import one_writer

    with argument("output"):
        output = check_output(options.output)
    check_written(options, output)
    with one_writer(output, argument="output"):
        table, made_with = combine(options)
        write_submission(table, output, run=made_with)
    answered = len(table) - table["prediction"].to_pylist().count("")
    print(f"{output}: {len(table)} rows, {answered} answered, {len(table) - answered} empty")


def check_written(options: EnsembleOptions, output: Path) -> None:
    """Raises InputError if a file to write is also an input or another one, or if the weights cannot be written."""
    from product_vqa.paths import writable_folder

    written = [("output", output), ("output", output.with_suffix(".parquet"))]
    if options.save_weights is not None:
        weights = Path(options.save_weights)
        with argument("save_weights"):
            writable_folder(weights.parent)
            if weights.is_dir():
                raise InputError(f"{weights} is a folder; choose the name of a file")
        written.append(("save_weights", weights))
    inputs = [*options.predictions, *filter(None, (options.references, options.test_csv, options.weights))]
    taken = {Path(name).resolve(): "an input" for name in inputs}
    for name, file in written:
        if other := taken.get(file.resolve()):
            raise InputError(f"`{name}` would write {file}, which is also {other}; choose another name")
        taken[file.resolve()] = f"`{name}`"


def combine(options: EnsembleOptions) -> tuple["pa.Table", dict[str, Any]]:
    """The rows of the output, and what they were made from. Prints the files and what their votes count."""
    from inference.references import read_references
    from inference.rows import join_rows
    from inference.vote_decision import decide, to_table
    from inference.vote_weights import identify
    from inference.votes import count_votes, read_files

    schema = find_schema(options)
    layout = Layout.of(wide=options.wide, columns=options.columns)
    layout.check(schema)
    if unknown := sorted(set(options.leave_empty or ()) - set(schema.names)):
        raise InputError(f"--leave_empty: unknown {unknown[0]!r}; choose from {', '.join(schema.names)}")
    references = (
        None if options.references is None else read_references(options.references, schema=schema, layout=layout)
    )
    with argument("predictions"):
        tables = read_files(options.predictions, schema=schema)
    rows = join_rows(tables, test_csv=options.test_csv, labels=references, schema=schema, layout=layout)
    with argument("predictions"):
        votes, counts = count_votes(tables, rows, ranges=options.ranges)
        sources = [identify(name, has_confidences=count.has_confidences) for name, count in counts.items()]
    is_left_empty = find_left_empty(options, rows)
    print_counts(counts, num_rows=len(rows))
    warn_of_mistakes(votes, list(counts))
    weights, fitted_on = find_weights(options, votes, references, sources)
    table = to_table(votes, decide(votes, weights), is_left_empty=is_left_empty)
    made_with = {
        "ensemble": [asdict(source) for source in sources],
        "weights": fitted_on,
        "leave_empty": options.leave_empty,
        "ranges": options.ranges,
    }
    return table, made_with


def find_schema(options: EnsembleOptions) -> "Schema":
    """The schema of the dataset that the references are of, or of --schema, or the challenge's."""
    from inference import references
    from product_vqa.schemas import choose_schema

    if options.references is not None:
        return references.find_schema(options.references, file=options.schema)
    with argument("schema"):
        return choose_schema(options.schema)


def find_weights(
    options: EnsembleOptions, votes: "Votes", references: "pd.DataFrame | None", sources: list["Source"]
) -> tuple["VoteWeights", str]:
    """Fit the weights of the files, read them or take the default, and print how; returns the latter in words too."""
    from inference.vote_fitting import choose_prior, cross_fit, fit_weights, match_labels
    from inference.vote_scores import score_votes
    from inference.vote_weights import FittedOn, default_weights, load_weights, save_weights
    from inference.votes import NO_VOTE

    if options.weights is not None:
        with argument("weights"):
            weights, fitted_on = load_weights(options.weights, sources, schema=votes.rows.schema)
        print(f"weights of {options.weights}, which were fitted on {fitted_on}")
        return weights, str(fitted_on)
    if references is None:
        print("no --references and no --weights: all files count the same, and confidences are taken as they are")
        return default_weights(len(sources), schema=votes.rows.schema), "not fitted"
    labelled, labels = match_labels(votes, references, ranges=options.ranges)
    prior = choose_prior(labelled, labels)
    weights = fit_weights(labelled, labels, prior=prior)
    choices = cross_fit(labelled, labels, prior=prior)  # only the prior has seen the rows that are scored
    choices[find_left_empty(options, labelled.rows)] = NO_VOTE
    print_scores(score_votes(labelled, labels, choices, weights))
    fitted_on = FittedOn(tuple(sources), str(options.references), len(labelled.rows))
    if options.save_weights is not None:
        save_weights(Path(options.save_weights), weights, fitted_on, schema=votes.rows.schema)
        print(f"written: {options.save_weights}")
    return weights, str(fitted_on)


def find_left_empty(options: EnsembleOptions, rows: "Rows") -> "np.ndarray":
    """Which rows are about an attribute of --leave_empty: (rows,)."""
    import numpy as np

    names = options.leave_empty or []
    is_unknown = rows.entities == rows.unknown
    if names and is_unknown.any():
        raise InputError(
            f"--leave_empty {' '.join(names)}: no file has the attribute of {int(is_unknown.sum())} rows, for example "
            f"of index {rows.indexes[is_unknown][0]}; pass --test_csv"
        )
    return np.isin(rows.entities, [rows.schema.names.index(name) for name in names])


def print_counts(counts: "dict[str, Count]", *, num_rows: int) -> None:
    """Print what the rows of each file are, and examples of its predictions that do not vote."""
    print(f"{num_rows} rows; of each file:\n{'':4}{'rows':>8}{'votes':>8}{'invalid':>9}{'unsuitable':>12}")
    for number, (name, count) in enumerate(counts.items(), start=1):
        example = f" (for example {'; '.join(count.examples)})" if count.examples else ""
        print(f"{number:<4}{count.rows:>8}{count.votes:>8}{count.invalid:>9}{count.unsuitable:>12}  {name}{example}")


def warn_of_mistakes(votes: "Votes", names: Sequence[str]) -> None:
    """Warn of what `names` may be by mistake: predictions of one model, or of other rows."""
    from inference.votes import find_copies

    for one, other in find_copies(votes):
        logger.warning(
            "%s and %s have the same predictions: if they are of one model, it votes twice.", names[one], names[other]
        )
    warn_of_missing_rows(votes, names)
    if unknown := int((votes.rows.entities == votes.rows.unknown).sum()):
        logger.warning(
            "No file has the attribute of %s rows, so units of another one are not noticed there; pass `test_csv`.",
            unknown,
        )


def warn_of_missing_rows(votes: "Votes", names: Sequence[str]) -> None:
    """Count the rows that some files lack, or all of them, and name the files that share no row with the others."""
    files_per_row = votes.has_row.sum(axis=1)
    lacking = (~votes.has_row[files_per_row > 0]).sum(axis=0)
    if num_rows := int(((files_per_row > 0) & (files_per_row < len(names))).sum()):
        logger.warning(
            "%s of %s rows are not in all files; those that have a row decide on it. Not in %s.",
            num_rows,
            len(votes.rows),
            ", ".join(f"{name}: {count}" for name, count in zip(names, lacking, strict=True) if count),
        )
    is_alone = votes.has_row.any(axis=0) & ~votes.has_row[files_per_row > 1].any(axis=0)
    if len(names) > 1 and is_alone.any():
        logger.warning(
            "No index in common with another file, which is right for parts of one split only: %s.",
            ", ".join(name for name, alone in zip(names, is_alone, strict=True) if alone),
        )
    if len(absent := votes.rows.indexes[files_per_row == 0]):
        logger.warning(
            "%s rows of `test_csv` are in no file, for example index %s: their predictions are empty.",
            len(absent),
            absent[0],
        )


def print_scores(scores: "dict[str, VoteScore]") -> None:
    """Print the share of right answers and the weight of each file, and what the ensemble gains."""
    files = "".join(f"{f'file {number}':>14}" for number in range(1, len(scores["all"].weights) + 1))
    print("\nright answers on a file's rows with labels, and what a vote counts (of the ensemble: cross-validated)")
    print(f"{'':30}{'rows':>8}{files}{'ensemble':>10}  F1 over the best file (95 % interval)")
    for name, score in scores.items():
        pairs = zip(score.shares_right, score.weights, strict=True)
        cells = "".join(f"{'-' if isnan(share) else f'{share:.1%} {weight:+.2f}':>14}" for share, weight in pairs)
        low, high = score.gain_interval
        gain = f"{score.gain:+.4f} ({low:+.4f} to {high:+.4f})"
        print(f"{name:30}{score.rows:>8}{cells}{score.ensemble_right:>10.1%}  {gain}")


if __name__ == "__main__":
    run(main)
