"""Ranks the labels of a dataset by how little they agree with what OCR and predictions find in the images.

python -m dataset_builder.audit --dataset user/name --predictions fold1.parquet fold2.parquet --output audit.html

The page shows the most suspicious labels with their images. What is decided there is saved as a CSV, which
`dataset_builder.build --corrections` applies.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument

if TYPE_CHECKING:
    from product_vqa.ocr.candidate import Candidate


@dataclass
class AuditOptions:
    """The labels, what they are compared with, and the files to write."""

    dataset: str = field(metadata={"help": "Dataset: a repo (user/name[@revision]) or a folder."})
    split: str = field(default="train", metadata={"help": "The split whose labels are audited."})
    predictions: list[str] = field(
        default_factory=list,
        metadata={
            "help": "X.parquet of inference.predict about rows of the split, by models that did not have these rows "
            "in training. Several files may be about the same rows, or each about a part of them."
        },
    )
    reader: Literal["ocr", "none"] = field(
        default="ocr",
        metadata={
            "help": "ocr: compare labels with the texts of the images, too: those of the dataset's configuration "
            "`ocr`, or else an OCR engine reads them (extra `ocr`). none: with the predictions only."
        },
    )
    output: str = field(default="audit.html", metadata={"help": "The page to write."})
    ranking: str | None = field(
        default=None, metadata={"help": "CSV to write: every label with its score, the most suspicious first."}
    )
    max_rows: int = field(
        default=200,
        metadata={"help": "Rows on the page, the most suspicious ones; each takes about 40 kB. All rows are ranked."},
    )

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise InputError(f"--max_rows must be at least 1, got {self.max_rows}")
        if self.reader == "none" and not self.predictions:
            raise InputError("--reader none compares labels with predictions only: give --predictions FILE")


def main() -> None:
    (options,) = parse_options(AuditOptions, description=__doc__)

    from dataset_builder.audit_page import render_audit
    from dataset_builder.audit_rows import find_labels, rank_rows, write_ranking
    from dataset_builder.fold_predictions import read_predictions
    from dataset_builder.image_candidates import find_in_images, stored_reader, text_reader
    from product_vqa.atomic_io import atomic_write
    from product_vqa.dataset import load_split
    from product_vqa.hub import locate
    from product_vqa.ocr.engine import load_engine
    from product_vqa.ocr.stored_texts import load_texts
    from product_vqa.paths import writable_folder
    from product_vqa.schemas import load_schema

    # Everything that can be refused is refused before the images are read.
    for name in ("output", "ranking"):
        if (file := getattr(options, name)) is not None:
            with argument(name):
                writable_folder(Path(file).parent)
                if Path(file).is_dir():
                    raise InputError(f"{file}: is a folder; name a file")
                if Path(file).resolve() in map(Path.resolve, map(Path, options.predictions)):
                    raise InputError(
                        f"{file}: is a file of `predictions`, which it would replace; choose another name"
                    )
    if options.ranking is not None and Path(options.ranking).resolve() == Path(options.output).resolve():
        raise InputError(f"`ranking` {options.ranking}: is the file of `output`, too; choose another name")
    with argument("dataset"):
        location = locate(options.dataset, repo_type="dataset")
        dataset = load_split(location, options.split)
        schema = load_schema(location)
        rows = find_labels(dataset, location=location, split=options.split)
    predictions = read_predictions(options.predictions, {row.key.index: row.key for row in rows}, schema=schema)
    if predictions.num_unknown:
        print(
            f"{predictions.num_unknown} predictions are about rows that are not in {options.split}, or have no label"
        )

    candidates: Iterable[tuple[int, list[Candidate]]] = ()
    reader = "none"
    if options.reader == "ocr":
        with argument("dataset"):
            texts = load_texts(location, options.split)
        if texts is not None:
            reader, read_text = f"{texts.description}, stored in the dataset", stored_reader(dataset, texts)
        else:
            engine = load_engine()
            reader, read_text = engine.description, text_reader(dataset, engine)
        positions = [row.position for row in rows]
        candidates = find_in_images(positions, dataset, schema=schema, read_text=read_text)
    ranked = rank_rows(rows, schema=schema, predictions=predictions.answers, candidates=candidates)
    if options.ranking is not None:
        with atomic_write(Path(options.ranking)) as temporary:
            write_ranking(ranked, temporary)
    sources = [("predictions", ", ".join(Path(name).name for name in options.predictions) or "none")]
    sources.append(("reader", reader))
    page = render_audit(
        ranked[: options.max_rows],
        dataset,
        schema=schema,
        location=location,
        split=options.split,
        num_rows=len(ranked),
        sources=sources,
    )
    with atomic_write(Path(options.output)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"{options.output}: {min(len(ranked), options.max_rows)} of {len(ranked)} labels, {len(page) / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
