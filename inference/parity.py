"""Compare another engine (vLLM, for instance) with the adapter, and refuse it if its attention mask is wrong.

    python -m inference.parity --server http://127.0.0.1:8000 --adapter user/adapter --dataset user/dataset \\
        --split validation

The engine is asked the questions of some rows through OpenAI's chat form, with log probabilities. Exit code 0 if the
probabilities of the first token are those of the adapter, 1 if not: then the engine masks or prompts otherwise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument

if TYPE_CHECKING:
    from product_vqa.modeling.attribute_reader import AttributeReader

BATCH_SIZE = 16


@dataclass
class ParityOptions:
    """The engine, the adapter that it serves, and the rows to ask about."""

    server: str = field(metadata={"help": "URL of the engine: http://127.0.0.1:8000"})
    dataset: str = field(metadata={"help": "Dataset: a repo (user/name[@revision]) or a folder."})
    adapter: str | None = field(
        default=None,
        metadata={
            "help": "Adapter: a repo (user/name[@revision]) or a folder. Without one, --base_model alone answers."
        },
    )
    base_model: str | None = field(
        default=None, metadata={"help": "Base model, if not the one that the adapter names: a repo or a folder."}
    )
    split: str = field(default="validation", metadata={"help": "The split whose rows are asked about."})
    rows: int = field(default=200, metadata={"help": "Number of rows, spread evenly over the split."})
    model: str | None = field(
        default=None, metadata={"help": "The name of the model at the engine; default: the first one that it lists."}
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto", metadata={"help": "As in inference.predict, for the adapter here."}
    )

    def __post_init__(self) -> None:
        if not self.server.startswith(("http://", "https://")):
            raise InputError(f"--server {self.server} must begin with http:// or https://")
        if self.rows < 1:
            raise InputError(f"--rows must be at least 1, got {self.rows}")


def main() -> int:
    (options,) = parse_options(ParityOptions, description=__doc__)

    from inference.sources import find_sources
    from inference.token_parity import Engine, compare_rows
    from product_vqa.modeling.attribute_reader import AttributeReader

    sources = find_sources(options.dataset, adapter=options.adapter, base_model=options.base_model)
    with argument("dataset"):
        rows = find_rows(sources.dataset, options.split, number=options.rows)
    engine = Engine(options.server, model=options.model)  # before the model is loaded here
    reader = AttributeReader.from_pretrained(
        sources.adapter, base_model=sources.base_model, dtype=options.dtype,
        schema=None if sources.adapter else sources.schema,
    )  # fmt: skip
    for row in rows:
        if row["entity_name"] not in reader.schema.attributes:
            raise InputError(f"the adapter does not know the attribute {row['entity_name']!r} of the dataset")
    questions = [reader.schema[row["entity_name"]].question for row in rows]
    parity = compare_rows(engine, rows, questions, first_tokens(reader, rows))
    ours = sources.adapter.location if sources.adapter else sources.base_model
    print(f"{options.server}, model {engine.model}, compared with {ours}")
    print(parity.table())
    if parity.is_right:
        print("right: the engine answers as the adapter does")
        return 0
    print(
        "WRONG: the engine does not answer as the adapter does. Its attention mask over image and question may be "
        "causal, or its prompt or its weights may differ. Do not use it"
    )
    return 1


def find_rows(dataset: Any, split: str, *, number: int) -> list[dict[str, Any]]:
    """Rows with a readable image, spread evenly over the split. Raises InputError if there are none."""
    from datasets import Image

    from product_vqa.dataset import load_split
    from product_vqa.images import ImageError, as_image

    stored = load_split(dataset, split).cast_column("image", Image(decode=False))
    step = max(1, len(stored) // number)
    rows: list[dict[str, Any]] = []
    for row in stored.select(range(0, len(stored), step)):
        if len(rows) == number:
            break
        try:
            rows.append({"image": as_image(row["image"]), "entity_name": row["entity_name"]})
        except ImageError:
            continue
    if not rows:
        raise InputError(f"{dataset}: split {split} has no row with an image that can be read")
    return rows


def first_tokens(reader: "AttributeReader", rows: list[dict[str, Any]]) -> Iterator[Mapping[str, float]]:
    """Our probability of each token, as the first one of each row's answer."""
    from tqdm import tqdm

    from product_vqa.modeling.token_probabilities import first_token_log_p, token_texts

    texts: list[str] = []
    for start in tqdm(range(0, len(rows), BATCH_SIZE), desc="batches"):
        batch = reader.make_batch(rows[start : start + BATCH_SIZE])
        log_p = first_token_log_p(reader.model, batch, processor=reader.processor)
        texts = texts or list(token_texts(reader.processor.tokenizer, log_p.shape[1]))
        for row in log_p.double().exp():
            found: dict[str, float] = {}
            for text, p in zip(texts, row.tolist(), strict=True):
                found[text] = found.get(text, 0.0) + p
            yield found


if __name__ == "__main__":
    run(main)
