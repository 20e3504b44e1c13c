"""`training.sft`, but each question ends with what OCR suggests: `What is the item weight? 34.0 gram, 1.2 ounce`.

    accelerate launch --config_file FILE -m benchmarks.hinted_sft --config FILE --dataset_name FOLDER ...

The folder has the texts of the images in its configuration `ocr`. For `benchmarks.grounding --hint`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inference.candidate_finder import CandidateFinder
from inference.dataloader import RowBatch, RowBatches
from inference.text_source import TextSource
from product_vqa.cli import parse_options, run
from product_vqa.distributed import process_group
from product_vqa.hub import Location
from product_vqa.modeling.collator import Batch, Row, TrainingCollator, tokenize_questions
from product_vqa.ocr.candidates import CandidateRules
from product_vqa.ocr.stored_texts import load_texts
from product_vqa.ocr.unit_shares import load_shares
from product_vqa.task.attributes import Schema
from training import sft
from training.options import DatasetOptions, ModelOptions, TrainingOptions

NUM_HINTS = 3  # the best candidates; fewer where OCR found fewer


@dataclass(frozen=True)
class Hints:
    """What OCR suggests for the rows of a split, as a part of their questions."""

    schema: Schema
    finder: CandidateFinder

    @classmethod
    def of(cls, dataset: Path, split: str, *, schema: Schema) -> "Hints":
        """The hints from the texts of a dataset's split."""
        location = Location(str(dataset))
        rules = CandidateRules(schema, load_shares(location, schema))
        return cls(schema, CandidateFinder(TextSource(load_texts(location, split)), rules))

    def add(self, rows: Sequence[Row]) -> tuple[list[Row], Schema]:
        """The rows of a batch with an attribute for each of them, and the schema of these attributes."""
        named: list[Row] = []
        attributes = {}
        found = self.finder.find(rows, [row.get("image") for row in rows])  # type: ignore[misc]  # none is read
        for number, (row, candidates) in enumerate(zip(rows, found, strict=True)):
            attribute, name = self.schema[row["entity_name"]], f"row_{number}"
            answers = list(dict.fromkeys(candidate.answer for candidate in candidates or ()))[:NUM_HINTS]
            question = f"{attribute.question} {', '.join(answers)}".rstrip()
            attributes[name] = replace(attribute, name=name, question=question)
            named.append({**row, "entity_name": name})
        return named, Schema(attributes, self.schema.dimensions)


@dataclass(frozen=True)
class HintedCollator(TrainingCollator):
    """`TrainingCollator` with hints."""

    hints: Hints

    def __call__(self, rows: Sequence[Row]) -> Batch:
        named, schema = self.hints.add(rows)
        return TrainingCollator(self.processor, schema)(named)


class HintedBatches(RowBatches):
    """`RowBatches` with hints."""

    def __init__(self, *arguments: Any, hints: Hints, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._hints = hints

    def __getitem__(self, number: int) -> RowBatch:
        batch = super().__getitem__(number)
        readable = [row for row, failure in zip(batch.rows, batch.failures, strict=True) if failure is None]
        if not readable:
            return batch
        named, schema = self._hints.add(readable)
        questions = tokenize_questions([row["entity_name"] for row in named], processor=self.processor, schema=schema)
        return replace(batch, inputs=batch.inputs | questions)


def main() -> None:
    dataset_options, model_options, options = parse_options(
        DatasetOptions, ModelOptions, TrainingOptions, description=__doc__
    )
    output_dir = Path(options.output_dir)
    with process_group():
        found = sft.resolve_run(dataset_options, model_options, options, output_dir)
        data = sft.load_rows(found, dataset_options, options)
        arguments = sft.resolve_arguments(found, data, options)
        trainer = sft.make_trainer(found, data, model_options, arguments, None)
        hints = Hints.of(
            Path(dataset_options.dataset_name), dataset_options.dataset_train_split, schema=found.sources.schema
        )
        trainer.data_collator = HintedCollator(trainer.processing_class, found.sources.schema, hints)
        if trainer.train_unless_stopped():
            sft.finish(found, trainer, data, None)


if __name__ == "__main__":
    run(main)
