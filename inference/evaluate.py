"""Score predictions against labels, as the challenge does, and count the mistakes by kind.

python -m inference.evaluate --predictions submission.csv --references user/dataset:validation
python -m inference.evaluate --predictions new.csv --compare old.csv --references train.csv
python -m inference.evaluate --predictions new.parquet --references train.csv --sweep
python -m inference.evaluate --predictions new.parquet --references user/dataset:validation --min_confidence 0.7
python -m inference.evaluate --predictions validation.csv --references user/dataset:validation --weights test.csv
python -m inference.evaluate --predictions submission.csv --references labels.csv --schema schema.yaml
python -m inference.evaluate --predictions submission.csv --references products.csv --schema schema.yaml --wide
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.tables.layout import COLUMNS_HELP, WIDE_HELP, Layout

if TYPE_CHECKING:
    from product_vqa.task.attributes import Schema


@dataclass
class EvaluateOptions:
    """Predictions, references and what to report."""

    predictions: str = field(metadata={"help": "CSV or Parquet with the columns index, prediction."})
    references: str = field(
        metadata={
            "help": "Labels: a CSV with entity_name, entity_value (and index; else rows are numbered from 0), or a "
            "split of a dataset (user/name[@revision]:validation, folder:validation)."
        }
    )
    compare: str | None = field(default=None, metadata={"help": "Predictions of another run to compare with."})
    sweep: bool = field(
        default=False,
        metadata={"help": "Report scores as a function of a minimum-confidence threshold (Parquet only)."},
    )
    min_confidence: float = field(
        default=0.0,
        metadata={
            "help": "Leave predictions empty whose confidence, or probability that the image shows the attribute, is "
            "below this (Parquet only)."
        },
    )
    weights: str | None = field(
        default=None,
        metadata={
            "help": "Also report F1 at the attribute distribution of another split: a CSV with entity_name, such as "
            "test.csv, or a split of a dataset."
        },
    )
    schema: str | None = field(
        default=None,
        metadata={
            "help": "Your own attributes, if --references is a CSV of them: a schema.yaml. A dataset brings its own. "
            "Default: those of the challenge."
        },
    )
    wide: bool = field(default=False, metadata={"help": WIDE_HELP})
    columns: str | None = field(default=None, metadata={"help": COLUMNS_HELP})
    bootstrap: int = field(
        default=1000,
        metadata={"help": "Bootstrap resamples (over images) for the 95 percent confidence intervals; 0: none."},
    )
    json: bool = field(default=False, metadata={"help": "Print the scores as JSON."})

    def __post_init__(self) -> None:
        if self.bootstrap < 0:
            raise InputError(f"--bootstrap must not be negative, got {self.bootstrap}")
        if not 0 <= self.min_confidence <= 1:
            raise InputError(f"--min_confidence must be 0 to 1, got {self.min_confidence}")


def evaluate(
    predictions: str | Path,
    references: str | Path,
    *,
    schema: str | None = None,
    wide: bool = False,
    columns: str | None = None,
    bootstrap: int = 0,
) -> dict[str, Any]:
    """The scores of all references: overall, `by_entity`, `by_group`, and the number of `mistakes` by kind.

    A reference without a prediction counts as an empty prediction. `f1` compares with the label as written in the CSV,
    as strings; `f1_quantity` compares number and unit; `f1_converted` compares amounts across units;
    `f1_within_2_percent` tolerates the rounding of printed conversions. With `bootstrap` resamples of the images,
    `f1_interval` and `f1_quantity_interval` are their 95 % confidence intervals. Raises InputError for an index that
    has no reference or occurs twice.

    `schema` is a schema.yaml, if the references are a CSV about other attributes; a dataset brings its own. For those
    the label is compared in its canonical form, and `inference.comparison.Comparison` says what equals it. There are
    `f1_meaning` and the scores `by_kind` of attribute too. `wide` and `columns` describe a CSV, as for a build. If
    some labels are empty, `silence` says how well empty predictions say so (`inference.metrics.score_silence`).
    """
    from inference.metrics import score_table
    from inference.references import find_schema, join

    found = find_schema(references, file=schema)
    layout = Layout.of(wide=wide, columns=columns)
    layout.check(found)
    table = join(predictions, references, schema=found, layout=layout)
    return score_table(table, schema=found, resamples=bootstrap)


def main() -> None:
    (options,) = parse_options(EvaluateOptions, description="Score predictions against labels.")

    from inference.metrics import apply_threshold, compare, score_table, score_weighted, sweep
    from inference.references import find_schema, join, read_entities

    schema = find_schema(options.references, file=options.schema)
    layout = Layout.of(wide=options.wide, columns=options.columns)
    layout.check(schema)
    entities = read_entities(options.weights, schema=schema, layout=layout) if options.weights else None
    table = join(options.predictions, options.references, schema=schema, layout=layout)
    if (options.sweep or options.min_confidence) and table["confidence"].isna().all():
        option = "--sweep" if options.sweep else "--min_confidence"
        raise InputError(
            f"{option} needs confidences, which --predictions {options.predictions} does not have: give the "
            ".parquet file next to it"
        )
    table = apply_threshold(table, options.min_confidence)
    scores = score_table(table, schema=schema, resamples=options.bootstrap)
    if entities is not None:
        scores["weighted"] = score_weighted(table, entities, schema=schema, resamples=options.bootstrap)
    if options.compare:
        with argument("compare"):
            other = join(options.compare, options.references, schema=schema, layout=layout)
        scores["compare"] = compare(table, other, resamples=options.bootstrap or 1000)
        scores["compare"]["scores"] = score_table(other, schema=schema, resamples=options.bootstrap)
    if options.sweep:
        scores["sweep"] = sweep(table)
    if options.json:
        print(json.dumps(scores))
    else:
        print_scores(scores, schema)


def print_scores(scores: dict[str, Any], schema: "Schema") -> None:
    """Print the scores as tables for the console."""
    from inference.metrics import describe_mistakes

    print(f"{scores['rows']} rows, {scores['answered']} answered")
    if "compare" in scores:
        lines = {"these": scores, "compared with": scores["compare"]["scores"], **scores["by_entity"]}
    else:
        lines = {"all": scores, **scores["by_entity"]}
    measures = {"f1": "F1 exact", "f1_quantity": "quantity", "f1_converted": "converted", "f1_within_2_percent": "2 %"}
    if "by_kind" in scores:
        measures |= {"f1_quantity": "canonical", "f1_converted": "meaning"}
        lines |= {f"({kind})": line for kind, line in scores["by_kind"].items()}
    print(f"{'':32}{'rows':>8}" + "".join(f"{title:>11}" for title in measures.values()))
    for name, line in lines.items():
        print(f"{name:32}{line['rows']:>8}" + "".join(f"{line[measure]:>11.4f}" for measure in measures))
    titles = {"f1": "exact", "f1_quantity": measures["f1_quantity"], "f1_meaning": "by meaning"}
    for measure, title in titles.items():
        if interval := scores.get(f"{measure}_interval"):
            print(f"F1 {title}: 95 % confidence interval {interval[0]:.4f} to {interval[1]:.4f}")
    if "weighted" in scores:
        _print_weighted(scores["weighted"])
    if "compare" in scores:
        _print_comparison(scores["compare"])
    print("\nmistakes")
    kinds = describe_mistakes(schema)
    for kind, number in scores["mistakes"].items():
        print(f"{number:>8}  {kind.replace('_', ' '):18}{kinds[kind]}")
    for attribute_kind, line in scores.get("by_kind", {}).items():
        if line["mistakes"]:
            shown = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in line["mistakes"].items())
            print(f"{'':10}{attribute_kind}: {shown}")
    if "silence" in scores:
        _print_silence(scores["silence"])
    if "sweep" in scores:
        _print_sweep(scores["sweep"])


def _print_weighted(weighted: dict[str, Any]) -> None:
    measure, title = ("f1_meaning", "by meaning") if "f1_meaning" in weighted else ("f1_quantity", "quantity")
    text = f"at the distribution of --weights: F1 exact {weighted['f1']:.4f}, {title} {weighted[measure]:.4f}"
    if interval := weighted.get(f"{measure}_interval"):
        text += f" (95 % confidence interval {interval[0]:.4f} to {interval[1]:.4f})"
    print(text)
    if weighted["unknown"]:
        unknown = ", ".join(weighted["unknown"])
        share = f"{weighted['share_unknown']:.1%} of --weights"
        print(f"  not included, because no reference has these attributes: {unknown} ({share})")


def _print_comparison(comparison: dict[str, Any]) -> None:
    low, high = comparison["difference_interval"]
    print(
        f"F1 exact {comparison['difference']:+.4f} relative to --compare (95 % confidence interval {low:+.4f} to "
        f"{high:+.4f}): {comparison['only_these_right']} rows are correct only in --predictions, "
        f"{comparison['only_other_right']} only in --compare"
    )


def _print_silence(silence: dict[str, Any]) -> None:
    answerable = silence["answerable"]
    print(
        f"\n{silence['rows']} rows whose image does not show the attribute: empty predictions have NA precision "
        f"{silence['na_precision']:.4f}, recall {silence['na_recall']:.4f}, F1 {silence['na_f1']:.4f}"
    )
    print(f"{answerable['rows']} other rows alone: F1 exact {answerable['f1']:.4f}", end="")
    print(f", quantity {answerable['f1_quantity']:.4f}" if "f1_meaning" not in answerable else
          f", by meaning {answerable['f1_meaning']:.4f}")  # fmt: skip
    for name, title in (("auroc_shown", "shown"), ("auroc_confidence", "confidence")):
        if silence[name] is not None:
            print(f"AUROC of {title} between the two: {silence[name]:.4f}")


def _print_sweep(sweep: dict[str, Any]) -> None:
    print("\nif predictions below a confidence are left empty")
    print(f"{'confidence':>12}{'answered':>10}{'precision':>11}{'F1 exact':>10}")
    for point in sweep["points"]:
        mark = "  best" if point["confidence"] == sweep["best"]["confidence"] else ""
        print(
            f"{point['confidence']:>12.2f}{point['coverage']:>10.1%}{point['precision']:>11.4f}{point['f1']:>10.4f}"
            + mark
        )


if __name__ == "__main__":
    run(main)
