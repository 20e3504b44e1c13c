"""Reports what is in train.csv and test.csv, or in a dataset: counts, suspicious labels, and what its splits share.

python -m dataset_builder.inspect --train_csv train.csv --test_csv test.csv --image_store images
python -m dataset_builder.inspect --dataset user/name
python -m dataset_builder.inspect --train_csv products.csv --wide --suggest_schema schema.yaml
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builder.options import SCHEMA_HELP, TEST_CSV_HELP, TRAIN_CSV_HELP
from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.quoting import one_line
from product_vqa.tables.layout import COLUMNS_HELP, WIDE_HELP

if TYPE_CHECKING:
    import pandas as pd

    from dataset_builder.leakage import Leak
    from dataset_builder.placeholders import Placeholder
    from dataset_builder.schema_suggestion import Suggestion
    from product_vqa.tables.rows import Table
    from product_vqa.task.attributes import Schema

NUM_EXAMPLES = 3  # of each kind of suspicious label


@dataclass
class InspectOptions:
    train_csv: str | None = field(default=None, metadata={"help": TRAIN_CSV_HELP})
    test_csv: str | None = field(default=None, metadata={"help": TEST_CSV_HELP})
    schema: str | None = field(default=None, metadata={"help": SCHEMA_HELP})
    wide: bool = field(default=False, metadata={"help": WIDE_HELP})
    columns: str | None = field(default=None, metadata={"help": COLUMNS_HELP})
    unit_spellings: bool = field(default=False, metadata={"help": "Read labels as build does with --unit_spellings."})
    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Dataset to check for rows that its splits share and for images that show no product: a folder or "
            "a repo (user/name[@revision])."
        },
    )
    image_store: str | None = field(
        default=None,
        metadata={"help": "Store with images of the CSVs, to check for images that show no product."},
    )
    suspicious_csv: str | None = field(
        default=None,
        metadata={"help": "File to write: every suspicious label of --train_csv with the reason."},
    )
    suggest_schema: str | None = field(
        default=None,
        metadata={
            "help": "File to write: a schema proposed for the labels of --train_csv, with counts as comments. Nothing "
            "else is inspected."
        },
    )
    json: bool = field(default=False, metadata={"help": "Print the counts as JSON."})

    def __post_init__(self) -> None:
        if self.suggest_schema is not None:
            self._check_suggestion()
        if self.train_csv is None and self.test_csv is None and self.dataset is None:
            raise InputError("no rows: give --train_csv FILE, --test_csv FILE or both, or --dataset user/name")
        if self.schema is not None and self.train_csv is None and self.test_csv is None:
            raise InputError(
                "--schema is for CSVs: a dataset brings its own; give --train_csv FILE, --test_csv FILE or both"
            )
        if self.suspicious_csv is not None and self.train_csv is None:
            raise InputError("--suspicious_csv needs labels: give --train_csv FILE")
        if self.unit_spellings and self.train_csv is None:
            raise InputError("--unit_spellings needs labels: give --train_csv FILE")
        if self.image_store is not None:
            if self.train_csv is None and self.test_csv is None:
                raise InputError("--image_store needs the URLs: give --train_csv FILE, --test_csv FILE, or both")
            if not Path(self.image_store, "state.sqlite").is_file():
                raise InputError(f"--image_store {self.image_store}: not a store that download or build made")

    def _check_suggestion(self) -> None:
        if self.train_csv is None:
            raise InputError("--suggest_schema needs labels: give --train_csv FILE")
        others = ("test_csv", "schema", "dataset", "image_store", "suspicious_csv")
        given = [f"--{name}" for name in others if getattr(self, name) is not None]
        if given := given + ["--unit_spellings"] * self.unit_spellings:
            raise InputError(f"--suggest_schema reads --train_csv only: drop {', '.join(given)}")


@dataclass
class Report:
    counts: dict[str, Any] = field(default_factory=dict)
    leaks: "list[Leak] | None" = None  # None: not asked for
    placeholders: "list[Placeholder] | None" = None

    def add_placeholders(self, found: "list[Placeholder]") -> None:
        self.placeholders = [*(self.placeholders or ()), *found]

    def as_json(self) -> str:
        content = dict(self.counts)
        for name, records in (("leaks", self.leaks), ("placeholders", self.placeholders)):
            if records is not None:
                content[name] = [asdict(record) for record in records]
        return json.dumps(content, indent=2)

    def as_text(self) -> str:
        findings = (*(self.leaks or ()), *(self.placeholders or ()))
        return "\n".join([*_lines(self.counts, depth=0), *map(str, findings)])


def main() -> None:
    (options,) = parse_options(InspectOptions, description=__doc__)
    report = suggest(options) if options.suggest_schema is not None else inspect(options)
    print(report.as_json() if options.json else report.as_text())


def suggest(options: InspectOptions) -> "Suggestion":
    """Write a schema for the labels of a table whose attributes are not known."""
    from dataset_builder.label_table import read_label_table
    from dataset_builder.schema_suggestion import check_absent, suggest_schema, write_suggestion
    from product_vqa.tables.layout import Layout

    assert options.train_csv is not None and options.suggest_schema is not None
    file = Path(options.suggest_schema)
    check_absent(file)
    layout = Layout.of(wide=options.wide, columns=options.columns)
    suggestion = suggest_schema(read_label_table(options.train_csv, layout=layout))
    write_suggestion(suggestion, file)
    return suggestion


def inspect(options: InspectOptions) -> Report:
    from dataset_builder.csv_reader import read_test_csv, read_train_csv
    from dataset_builder.unit_spellings import check_unit_spellings
    from product_vqa.schemas import choose_schema
    from product_vqa.tables.layout import Layout

    with argument("schema"):
        schema = choose_schema(options.schema)
    layout = Layout.of(wide=options.wide, columns=options.columns)
    layout.check(schema)
    check_unit_spellings(schema, unit_spellings=options.unit_spellings)
    report = Report()
    urls: list[str] = []
    if options.train_csv is not None:  # one table after the other, so that only one is in memory
        train = read_train_csv(options.train_csv, schema=schema, layout=layout)
        report.counts["train"] = (
            count_rows(train)
            | count_labels(train, schema=schema, unit_spellings=options.unit_spellings)
            | count_suspicious(train, options.suspicious_csv, schema=schema, unit_spellings=options.unit_spellings)
        )
        urls += [row.image_link for row in train.rows]
        del train
    if options.test_csv is not None:
        test = read_test_csv(options.test_csv, schema=schema, layout=layout)
        report.counts["test"] = count_rows(test)
        urls += [row.image_link for row in test.rows]
    if options.image_store is not None:
        report.add_placeholders(find_in_store(urls, options.image_store))
    if options.dataset is not None:
        from dataset_builder.leakage import find_leaks, read_rows
        from dataset_builder.placeholders import find_placeholders
        from product_vqa.hub import locate

        with argument("dataset"):
            rows = read_rows(locate(options.dataset, repo_type="dataset"))
        report.counts["dataset"] = count_splits(rows)
        report.leaks = find_leaks(rows)
        report.add_placeholders(find_placeholders(rows))
    return report


def count_rows(table: "Table") -> dict[str, Any]:
    return {
        "rows": len(table.rows),
        "images": len({row.image_link for row in table.rows}),
        "groups": len({row.group_id for row in table.rows}),
        "rows_by_entity": dict(Counter(row.entity_name for row in table.rows).most_common()),
    }


def count_labels(table: "Table", *, schema: "Schema", unit_spellings: bool = False) -> dict[str, Any]:
    """Count rows by the form of their label. Rows of `unit_unsuitable` are counted in `plain` too.

    The labels of any schema have the forms of their kinds: for each attribute, how many fit it, and why others do not.
    Warns of labels that cannot be read, as `build` does.
    """
    from dataset_builder.labels import UNIT_UNSUITABLE, LabelForm, label_judge
    from dataset_builder.unit_spellings import NUMBER_AMBIGUOUS, UNIT_AMBIGUOUS
    from dataset_builder.unreadable_labels import warn_of_unreadable
    from product_vqa.task.schema import CHALLENGE

    judge = label_judge(schema, unit_spellings=unit_spellings)
    judged = ((row, judge(row.entity_name, row.entity_value)[1]) for row in table.rows)
    unreadable = [(row, reason) for row, reason in judged if reason]
    warn_of_unreadable(table, unreadable, schema=schema, ranges="leave_out", unit_spellings=unit_spellings)
    if schema != CHALLENGE:
        forms: dict[str, dict[str, Counter[str]]] = {}
        for row in table.rows:
            label, reason = judge(row.entity_name, row.entity_value)
            of_kind = forms.setdefault(schema[row.entity_name].kind.name, {})
            of_kind.setdefault(row.entity_name, Counter())[reason or ("fit" if label else "not_shown")] += 1
        shown = {kind: {name: dict(count.most_common()) for name, count in of_kind.items()}
                 for kind, of_kind in forms.items()}  # fmt: skip
        return {"label_forms": shown}
    reasons = Counter(reason for _, reason in unreadable)
    unsuitable = reasons[UNIT_UNSUITABLE]
    reasons[LabelForm.PLAIN] = len(table.rows) - len(unreadable) + unsuitable
    forms_shown = [form.value for form in LabelForm] + [UNIT_AMBIGUOUS, NUMBER_AMBIGUOUS] * unit_spellings
    return {"label_forms": {form: reasons[form] for form in forms_shown}, "unit_unsuitable": unsuitable}


def count_suspicious(
    table: "Table", file: str | None, *, schema: "Schema", unit_spellings: bool = False
) -> dict[str, Any]:
    from dataset_builder.label_quality import find_suspicious, write_suspicious

    found = list(find_suspicious(table, schema=schema, unit_spellings=unit_spellings))
    if file is not None:
        try:
            write_suspicious(found, Path(file))
        except OSError as error:
            raise InputError(f"--suspicious_csv {file}: could not be written ({error.strerror})") from error
    examples: dict[str, list[str]] = {}
    for row, reason in found:
        of_reason = examples.setdefault(reason, [])
        if len(of_reason) < NUM_EXAMPLES:
            of_reason.append(f"row {row.position}: {row.entity_name} {one_line(row.entity_value)}")
    return {
        "suspicious": dict(Counter(reason for _, reason in found).most_common()),
        "suspicious_examples": examples,
    }


def find_in_store(urls: list[str], folder: str) -> "list[Placeholder]":
    """The images that show no product among those of `urls` that are in the store. One URL per row."""
    import pandas as pd

    from dataset_builder.image_store import ImageStore
    from dataset_builder.placeholders import COLUMNS, find_placeholders

    images, _ = ImageStore(folder).find(set(urls))
    stored = [(url, *(getattr(images[url], name) for name in COLUMNS)) for url in urls if url in images]
    return find_placeholders(pd.DataFrame(stored, columns=["image_link", *COLUMNS]))


def count_splits(rows: "pd.DataFrame") -> dict[str, Any]:
    return {
        str(split): {"rows": len(part), "rows_by_entity": part["entity_name"].value_counts().to_dict()}
        for split, part in rows.groupby("split", sort=False)
    }


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
