"""What is in train.csv and test.csv, or in a dataset; which labels are suspicious, and what its splits share.

python -m dataset_builder.inspect --train_csv train.csv --test_csv test.csv --image_store images
python -m dataset_builder.inspect --dataset user/name
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument

if TYPE_CHECKING:
    import pandas as pd

    from dataset_builder.csv_reader import Table

NUM_EXAMPLES = 3  # of each kind of suspicious label


@dataclass
class InspectOptions:
    train_csv: str | None = field(
        default=None, metadata={"help": "labelled rows: .csv, or that as .gz, .bz2, .xz or .zip"}
    )
    test_csv: str | None = field(
        default=None, metadata={"help": "rows to be answered: .csv, or that as .gz, .bz2, .xz or .zip"}
    )
    dataset: str | None = field(
        default=None,
        metadata={"help": "folder or user/name[@revision]: what do its splits share, and which images show nothing?"},
    )
    image_store: str | None = field(
        default=None,
        metadata={"help": "the store of the CSVs' images, as far as it is filled: which of them show nothing?"},
    )
    suspicious_csv: str | None = field(
        default=None, metadata={"help": "file to write, with every suspicious label of --train_csv and why it is one"}
    )
    json: bool = field(default=False, metadata={"help": "print the counts as JSON"})

    def __post_init__(self) -> None:
        if self.train_csv is None and self.test_csv is None and self.dataset is None:
            raise InputError("no rows: give --train_csv FILE, --test_csv FILE or both, or --dataset user/name")
        if self.suspicious_csv is not None and self.train_csv is None:
            raise InputError("--suspicious_csv needs labels: give --train_csv FILE")
        if self.image_store is not None:
            if self.train_csv is None and self.test_csv is None:
                raise InputError("--image_store needs the URLs: give --train_csv FILE, --test_csv FILE, or both")
            if not Path(self.image_store, "state.sqlite").is_file():
                raise InputError(f"--image_store {self.image_store}: not a store that download or build has filled")


def main() -> None:
    (options,) = parse_options(InspectOptions, description=__doc__)

    from dataset_builder.csv_reader import read_test_csv, read_train_csv

    counts: dict[str, Any] = {}
    urls: list[str] = []
    if options.train_csv is not None:  # one after the other: a table goes before the next one comes
        train = read_train_csv(options.train_csv)
        counts["train"] = count_rows(train) | count_labels(train) | count_suspicious(train, options.suspicious_csv)
        urls += [row.image_link for row in train.rows]
        del train
    if options.test_csv is not None:
        test = read_test_csv(options.test_csv)
        counts["test"] = count_rows(test)
        urls += [row.image_link for row in test.rows]
    if options.image_store is not None:
        counts["placeholders"] = find_in_store(urls, options.image_store)
    if options.dataset is not None:
        from dataset_builder.leakage import find_leaks, read_rows
        from dataset_builder.placeholders import find_placeholders
        from product_vqa.hub import locate

        with argument("dataset"), argument("dataset"):
            rows = read_rows(locate(options.dataset, repo_type="dataset"))
        counts["dataset"] = count_splits(rows)
        counts["leaks"] = [asdict(leak) for leak in find_leaks(rows)]
        counts.setdefault("placeholders", []).extend(asdict(found) for found in find_placeholders(rows))
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
    from product_vqa.task.quantity import LabelForm

    reasons = Counter(judge_label(row.entity_name, row.entity_value)[1] for row in table.rows)
    unsuitable = reasons[UNIT_UNSUITABLE]
    reasons[LabelForm.PLAIN] = reasons.pop("", 0) + unsuitable
    return {"label_forms": {form.value: reasons[form] for form in LabelForm}, "unit_unsuitable": unsuitable}


def count_suspicious(table: "Table", file: str | None) -> dict[str, Any]:
    from dataset_builder.suspicious import find_suspicious, write_suspicious

    found = list(find_suspicious(table))
    if file is not None:
        try:
            write_suspicious(found, Path(file))
        except OSError as error:
            raise InputError(f"--suspicious_csv {file}: cannot be written ({error.strerror})") from error
    examples: dict[str, list[str]] = {}
    for row, reason in found:
        if len(named := examples.setdefault(reason, [])) < NUM_EXAMPLES:
            named.append(f"row {row.position}: {row.entity_name} {row.entity_value}")
    return {
        "suspicious": dict(Counter(reason for _, reason in found).most_common()),
        "suspicious_examples": examples,
    }


def find_in_store(urls: list[str], folder: str) -> list[dict[str, Any]]:
    """The images of these rows' URLs that show no product, among those that the store has."""
    import pandas as pd

    from dataset_builder.image_store import ImageStore
    from dataset_builder.placeholders import COLUMNS, find_placeholders

    store = ImageStore(folder)
    states = {url: store.state(url) for url in set(urls)}
    stored = [(url, *(getattr(states[url], name) for name in COLUMNS)) for url in urls if states[url].sha256]
    return [asdict(found) for found in find_placeholders(pd.DataFrame(stored, columns=["image_link", *COLUMNS]))]


def count_splits(rows: "pd.DataFrame") -> dict[str, Any]:
    return {
        split: {"rows": len(part), "rows_by_entity": part["entity_name"].value_counts().to_dict()}
        for split, part in rows.groupby("split", sort=False)
    }


def as_text(counts: dict[str, Any]) -> str:
    from dataset_builder.leakage import Leak
    from dataset_builder.placeholders import Placeholder

    found = [Leak(**leak) for leak in counts.pop("leaks", [])]
    found += [Placeholder(**placeholder) for placeholder in counts.pop("placeholders", [])]
    return "\n".join([*_lines(counts, depth=0), *map(str, found)])


def _lines(counts: dict[str, Any], *, depth: int) -> list[str]:
    lines = []
    for name, value in counts.items():
        start = f"{'  ' * depth}{name}"
        if isinstance(value, dict):
            lines += [start, *_lines(value, depth=depth + 1)]
        elif isinstance(value, list):
            lines += [start, *(f"{'  ' * (depth + 1)}{item}" for item in value)]
        else:
            lines.append(f"{start:<34}{value:>9,}")
    return lines


if __name__ == "__main__":
    run(main)
