"""Score predictions against labels, as the challenge does.

python -m inference.evaluate --predictions submission.csv --references user/dataset:validation
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from product_vqa.command import InputError, parse_options, run

if TYPE_CHECKING:
    import pandas as pd


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
    json: bool = field(default=False, metadata={"help": "Print the scores as JSON."})


def evaluate(predictions: str | Path, references: str | Path) -> dict[str, Any]:
    """Scores over all references, and `by_entity`. A reference without a prediction counts as an empty answer.

    `f1` compares with the label as it is written in the CSV, as a string; `f1_quantity` compares number and unit.
    Raises InputError for an index that is unknown or stands twice.
    """
    from product_vqa.entity_f1.scoring import score

    labels = read_references(str(references))
    answers = _read_predictions(predictions)
    if unknown := sorted(answers.keys() - set(labels["index"])):
        raise InputError(
            f"--predictions {predictions}: index {unknown[0]} (and {len(unknown) - 1} more) does not stand in "
            f"--references {references}: are these the answers to another split?"
        )
    labels["prediction"] = [answers.get(index, "") for index in labels["index"]]
    scores: dict[str, Any] = {"rows": len(labels), "answered": int((labels["prediction"] != "").sum())}
    scores |= score(list(labels["prediction"]), list(labels["reference"]))
    scores["by_entity"] = {
        str(entity): {"rows": len(rows)} | score(list(rows["prediction"]), list(rows["reference"]))
        for entity, rows in labels.groupby("entity_name")
    }
    return scores


def read_references(name: str) -> "pd.DataFrame":
    """index, entity_name, reference (the raw label, "" for none) of a CSV or of a dataset's split."""
    import pandas as pd

    from inference.tables import read_indexes, read_table

    if name.endswith((".csv", ".csv.gz")):
        table = read_table(name, flag="--references", columns=("entity_name", "entity_value"))
        has_index = "index" in table.columns
        indexes = read_indexes(table, flag="--references", path=name) if has_index else list(range(len(table)))
        return pd.DataFrame(
            {"index": indexes, "entity_name": table["entity_name"], "reference": table["entity_value"].str.strip()}
        )
    source, colon, split = name.rpartition(":")
    if not colon:
        raise InputError(f"--references {name} is neither a .csv file nor a split of a dataset, like user/name:test")

    from product_vqa.dataset import load_split
    from product_vqa.hub import locate

    location = locate(source, flag="--references", repo_type="dataset")
    table = load_split(location, split, flag="--references").select_columns(
        ["index", "entity_name", "entity_value_raw"]
    )
    return table.to_pandas().rename(columns={"entity_value_raw": "reference"})


def _read_predictions(path: str | Path) -> dict[int, str]:
    from inference.tables import read_indexes, read_table

    table = read_table(path, flag="--predictions", columns=("index", "prediction"))
    indexes = read_indexes(table, flag="--predictions", path=path)
    return dict(zip(indexes, table["prediction"].str.strip(), strict=True))


def main() -> None:
    (options,) = parse_options(EvaluateOptions, description="Score predictions against labels.")
    scores = evaluate(options.predictions, options.references)
    if options.json:
        print(json.dumps(scores))
        return
    print(f"{scores['rows']} rows, {scores['answered']} answered")
    print(f"{'':32}{'rows':>8}{'F1 exact':>10}{'F1 number and unit':>20}")
    for name, part in (("all", scores), *scores["by_entity"].items()):
        print(f"{name:32}{part['rows']:>8}{part['f1']:>10.4f}{part['f1_quantity']:>20.4f}")


if __name__ == "__main__":
    run(main)
