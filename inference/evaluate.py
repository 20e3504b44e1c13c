"""Score predictions against labels, as the challenge does, and say where the mistakes are.

python -m inference.evaluate --predictions submission.csv --references user/dataset:validation
python -m inference.evaluate --predictions new.csv --compare old.csv --references train.csv
python -m inference.evaluate --predictions new.parquet --references train.csv --sweep
python -m inference.evaluate --predictions validation.csv --references user/dataset:validation --weights test.csv
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset


@dataclass
class EvaluateOptions:
    """What to compare."""

    predictions: str = field(metadata={"help": "CSV or Parquet with the columns index, prediction."})
    references: str = field(
        metadata={
            "help": "A CSV with entity_name, entity_value (and index; else rows count from 0), or a split of a "
            "dataset: user/name[@revision]:validation, folder:validation."
        }
    )
    compare: str | None = field(default=None, metadata={"help": "Another run's predictions, to set beside these."})
    sweep: bool = field(
        default=False,
        metadata={"help": "What becomes of the scores if only answers above a confidence go out (Parquet only)."},
    )
    weights: str | None = field(
        default=None,
        metadata={
            "help": "Give the F1 scores at the attribute mix of another split too: a CSV with entity_name, like "
            "test.csv, or a split of a dataset."
        },
    )
    bootstrap: int = field(
        default=1000, metadata={"help": "Pictures are drawn anew so often for the 95 percent interval; 0: none."}
    )
    json: bool = field(default=False, metadata={"help": "Print the scores as JSON."})

    def __post_init__(self) -> None:
        if self.bootstrap < 0:
            raise InputError(f"--bootstrap must not be negative, got {self.bootstrap}")


def evaluate(predictions: str | Path, references: str | Path, *, bootstrap: int = 0) -> dict[str, Any]:
    """Scores over all references, `by_entity`, `by_group`, and `mistakes` by kind.

    A reference without a prediction counts as an empty answer. `f1` compares with the label as it is written in the
    CSV, as a string; `f1_quantity` compares number and unit; `f1_converted` amounts, whatever the unit;
    `f1_within_2_percent` forgives what packs round. With `bootstrap` resamples of the pictures, `f1_interval` and
    `f1_quantity_interval` hold 95 % of them. Raises InputError for an index that is unknown or stands twice.
    """
    from inference.metrics import score_parts

    return score_parts(join(predictions, references), resamples=bootstrap)


def join(predictions: str | Path, references: str | Path) -> "pd.DataFrame":
    """A row a reference: index, entity_name, group_id, image_link, reference, prediction, confidence (may be NaN).

    Raises InputError for an index that is unknown or stands twice.
    """
    from inference.tables import read_predictions

    labels = read_references(str(references))
    answers = read_predictions(predictions)
    if unknown := sorted(set(answers["index"]) - set(labels["index"])):
        raise InputError(
            f"{predictions}: index {unknown[0]} (and {len(unknown) - 1} more) is not in "
            f"`references` {references}: are these the answers to another split?"
        )
    table = labels.merge(answers, on="index", how="left")
    return table.fillna({"prediction": ""})


def read_references(name: str) -> "pd.DataFrame":
    """index, entity_name, image_link, group_id, reference (the raw label, "" for none) of a CSV or a dataset's split.

    A CSV need have neither links nor groups: then each row is a picture of its own, and of no group.
    """
    import pandas as pd

    from inference.tables import read_indexes, read_table

    if _is_csv(name):
        with argument("references"):
            table = read_table(name, columns=("entity_name", "entity_value"))
        has_index = "index" in table.columns
        with argument("references"):
            indexes = read_indexes(table, path=name) if has_index else list(range(len(table)))
        return pd.DataFrame(
            {
                "index": indexes,
                "entity_name": table["entity_name"],
                "image_link": table["image_link"].str.strip()
                if "image_link" in table.columns
                else list(map(str, indexes)),
                "group_id": table["group_id"] if "group_id" in table.columns else "",
                "reference": table["entity_value"].str.strip(),
            }
        )
    with argument("references"):
        table = _load_split(name).select_columns(
            ["index", "entity_name", "image_link", "group_id", "entity_value_raw"]
        )
    return table.to_pandas().rename(columns={"entity_value_raw": "reference"})


def _is_csv(name: str) -> bool:
    return Path(name).is_file() or name.endswith((".csv", ".csv.gz"))


def _load_split(name: str) -> "Dataset":
    """A split of a dataset, as `user/name[@revision]:split` or `folder:split`."""
    from product_vqa.dataset import load_split
    from product_vqa.hub import locate

    source, colon, split = name.rpartition(":")
    if not colon:
        raise InputError(f"{name} is neither a .csv file nor a split of a dataset, like user/name:test")
    return load_split(locate(source, repo_type="dataset"), split)


def read_entities(name: str) -> "pd.Series":
    """The column entity_name of a CSV or of a dataset's split. Raises InputError for an unknown attribute."""
    from inference.tables import read_table
    from product_vqa.task.schema import ENTITIES

    if _is_csv(name):
        with argument("weights"):
            entities = read_table(name, columns=("entity_name",))["entity_name"]
    else:
        with argument("weights"):
            entities = _load_split(name).select_columns("entity_name").to_pandas()["entity_name"]
    if unknown := sorted(set(entities) - set(ENTITIES)):
        raise InputError(
            f"`weights` {name}: unknown entity_name {unknown[0]!r}; expected one of {', '.join(ENTITIES)}"
        )
    if entities.empty:
        raise InputError(f"`weights` {name} has no rows")
    return entities


def main() -> None:
    (options,) = parse_options(EvaluateOptions, description="Score predictions against labels.")

    from inference.metrics import compare, score_parts, score_weighted, sweep

    entities = read_entities(options.weights) if options.weights else None
    table = join(options.predictions, options.references)
    scores = score_parts(table, resamples=options.bootstrap)
    if entities is not None:
        scores["weighted"] = score_weighted(table, entities, resamples=options.bootstrap)
    if options.compare:
        with argument("compare"):
            other = join(options.compare, options.references)
        scores["compare"] = compare(table, other, resamples=options.bootstrap or 1000)
        scores["compare"]["scores"] = score_parts(other, resamples=options.bootstrap)
    if options.sweep:
        if table["confidence"].isna().all():
            raise InputError(f"--predictions {options.predictions} holds no confidence: give the .parquet beside it")
        scores["sweep"] = sweep(table)
    if options.json:
        print(json.dumps(scores))
    else:
        print_scores(scores)


def print_scores(scores: dict[str, Any]) -> None:
    """The tables of a person's console."""
    from inference.error_analysis import KINDS

    print(f"{scores['rows']} rows, {scores['answered']} answered")
    measures = {"f1": "F1 exact", "f1_quantity": "quantity", "f1_converted": "converted", "f1_within_2_percent": "2 %"}
    parts = {"all": scores, **scores["by_entity"]}
    if "compare" in scores:
        parts = {"these": scores, "compared with": scores["compare"]["scores"], **scores["by_entity"]}
    print(f"{'':32}{'rows':>8}" + "".join(f"{title:>11}" for title in measures.values()))
    for name, part in parts.items():
        print(f"{name:32}{part['rows']:>8}" + "".join(f"{part[measure]:>11.4f}" for measure in measures))
    for measure, title in (("f1", "F1 exact"), ("f1_quantity", "F1 quantity")):
        if interval := scores.get(f"{measure}_interval"):
            print(f"95 % of resampled pictures have {title} {interval[0]:.4f} to {interval[1]:.4f}")
    if "weighted" in scores:
        _print_weighted(scores["weighted"])
    if "compare" in scores:
        difference = scores["compare"]
        low, high = difference["difference_interval"]
        print(
            f"F1 exact is {difference['difference']:+.4f} beside the other ({low:+.4f} to {high:+.4f}): "
            f"{difference['only_these_right']} right that it has wrong, {difference['only_other_right']} the reverse"
        )
    print("\nmistakes")
    for kind, number in scores["mistakes"].items():
        print(f"{number:>8}  {kind.replace('_', ' '):18}{KINDS[kind]}")
    if "sweep" in scores:
        print("\nif only answers of at least this confidence go out")
        print(f"{'confidence':>12}{'answered':>10}{'precision':>11}{'F1 exact':>10}")
        best = scores["sweep"]["best"]
        for point in scores["sweep"]["points"]:
            mark = "  best" if point["confidence"] == best["confidence"] else ""
            print(
                f"{point['confidence']:>12.2f}{point['coverage']:>10.1%}{point['precision']:>11.4f}{point['f1']:>10.4f}{mark}"
            )


def _print_weighted(weighted: dict[str, Any]) -> None:
    text = f"at the mix of --weights: F1 exact {weighted['f1']:.4f}, quantity {weighted['f1_quantity']:.4f}"
    if interval := weighted.get("f1_quantity_interval"):
        text += f" (95 % of resampled images: {interval[0]:.4f} to {interval[1]:.4f})"
    print(text)
    if weighted["unknown"]:
        unknown = ", ".join(weighted["unknown"])
        print(f"  without {unknown}: {weighted['share_unknown']:.1%} of --weights, but no reference asks for them")


if __name__ == "__main__":
    run(main)
