"""What is in train.csv and test.csv.

python -m dataset_builder.inspect --train_csv train.csv --test_csv test.csv
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dataset_builder.options import TableOptions
from product_vqa.command import parse_options, run

if TYPE_CHECKING:
    from dataset_builder.tables import Table


@dataclass
class InspectOptions:
    json: bool = field(default=False, metadata={"help": "print the counts as JSON"})


def main() -> None:
    table_options, options = parse_options(TableOptions, InspectOptions, description=__doc__)

    from dataset_builder.tables import read_test_csv, read_train_csv

    counts: dict[str, Any] = {}
    if table_options.train_csv is not None:  # one after the other: a table goes before the next one comes
        train = read_train_csv(table_options.train_csv)
        counts["train"] = count_rows(train) | count_labels(train)
        del train
    if table_options.test_csv is not None:
        counts["test"] = count_rows(read_test_csv(table_options.test_csv))
    print(json.dumps(counts, indent=2) if options.json else as_text(counts))


def count_rows(table: "Table") -> dict[str, Any]:
    return {
        "rows": len(table.rows),
        "images": len({row.image_link for row in table.rows}),
        "groups": len({row.group_id for row in table.rows}),
        "rows_by_entity": dict(Counter(row.entity_name for row in table.rows).most_common()),
    }


def count_labels(table: "Table") -> dict[str, Any]:
    """Rows by the form of their label; `unit_unsuitable` are rows among `plain`."""
    from dataset_builder.labels import UNIT_UNSUITABLE, judge_label
    from product_vqa.quantity import LabelForm

    reasons = Counter(judge_label(row.entity_name, row.entity_value)[1] for row in table.rows)
    unsuitable = reasons[UNIT_UNSUITABLE]
    reasons[LabelForm.PLAIN] = reasons.pop("", 0) + unsuitable
    return {"label_forms": {form.value: reasons[form] for form in LabelForm}, "unit_unsuitable": unsuitable}


def as_text(counts: dict[str, Any]) -> str:
    lines = []
    for split, values in counts.items():
        lines.append(split)
        for name, value in values.items():
            lines.append(f"  {name:<32}" + ("" if isinstance(value, dict) else f"{value:>9,}"))
            if isinstance(value, dict):
                lines += [f"    {key:<30}{count:>9,}" for key, count in value.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
