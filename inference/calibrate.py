"""Make an adapter's confidences honest: labelled split -> calibration.json, beside the adapter.

    python -m inference.calibrate --adapter user/adapter --dataset user/dataset --split validation --push_to_hub

`AttributeReader`, and so predict and the page, apply it from then on. Take a split that was not trained on.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass
class CalibrateOptions:
    """The adapter, and labelled rows that it never saw."""

    adapter: str = field(metadata={"help": "Adapter: a repo (user/name[@revision]) or a folder."})
    dataset: str = field(metadata={"help": "Dataset: a repo (user/name[@revision]) or a folder."})
    split: str = field(default="validation", metadata={"help": "The labelled split to answer."})
    base_model: str | None = field(
        default=None, metadata={"help": "The base, where it is not the one that the adapter names."}
    )
    output_dir: str | None = field(
        default=None,
        metadata={"help": "Where calibration.json goes; without, the adapter's folder."},
    )
    push_to_hub: bool = field(default=False, metadata={"help": "Upload calibration.json to the adapter's repo."})
    max_samples: int = field(default=2000, metadata={"help": "Rows at most, drawn at random; 0: all."})
    seed: int = field(default=0, metadata={"help": "Of that draw."})
    batch_size: int = field(default=32, metadata={"help": "Rows answered together."})
    dataloader_num_workers: int | None = field(default=None, metadata={"help": "As in inference.predict."})
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto", metadata={"help": "As in inference.predict."}
    )
    load_in_4bit: bool | None = field(
        default=None, metadata={"help": "As in inference.predict.", "nargs": "?", "const": True}
    )

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"--batch_size must be at least 1, got {self.batch_size}")
        if self.dataloader_num_workers is not None and self.dataloader_num_workers < 0:
            raise InputError(f"--dataloader_num_workers must not be negative, got {self.dataloader_num_workers}")
        if self.max_samples < 0:
            raise InputError(f"--max_samples must not be negative, got {self.max_samples}")


def right(answers: "pd.DataFrame", labels: list[str]) -> "pd.DataFrame":
    """Answers whose label is a quantity, with `is_right` (number and unit) and `is_number_right`."""
    from inference.error_analysis import quantity_or_none

    answers = answers.assign(
        said=answers["prediction"].map(quantity_or_none), meant=list(map(quantity_or_none, labels))
    )
    answers = answers[answers["said"].notna() & answers["meant"].notna()]
    pairs = list(zip(answers["said"], answers["meant"], strict=True))
    return answers.assign(
        is_right=[said == meant for said, meant in pairs],
        is_number_right=[said.number == meant.number for said, meant in pairs],
    )


def cross_fit(answers: "pd.DataFrame", *, folds: int = 5, seed: int = 0) -> "np.ndarray":
    """The answers' confidences, each calibrated by a fit that saw neither the row nor another one of its image."""
    import numpy as np

    from product_vqa.modeling.calibration import fit_calibration

    images = answers["image_link"].astype("category").cat.codes.to_numpy()
    fold = np.random.default_rng(seed).permutation(images.max() + 1)[images] % folds
    confidences = answers["confidence"].to_numpy().copy()
    for number in range(folds):
        is_held_out = fold == number
        calibration = fit_calibration(answers[~is_held_out])
        confidences[is_held_out] = answers["confidence"][is_held_out].map(calibration.answer)
    return confidences


def report(answers: "pd.DataFrame", calibrated: "np.ndarray") -> dict[str, Any]:
    """Log loss and calibration error of the answers' confidences as they are, and of their `calibrated` ones."""
    from inference.metrics import calibration_error
    from product_vqa.modeling.calibration import log_loss

    outcomes, before = answers["is_right"].to_numpy(), answers["confidence"].to_numpy()
    return {
        "rows": len(answers),
        "share_right": float(outcomes.mean()),
        "log_loss": {"before": log_loss(before, outcomes), "after": log_loss(calibrated, outcomes)},
        "calibration_error": {
            "before": calibration_error(before, outcomes),
            "after": calibration_error(calibrated, outcomes),
        },
    }


def main() -> None:
    (options,) = parse_options(CalibrateOptions, description="Make an adapter's confidences honest.")

    from tqdm import tqdm

    from inference.dataloader import RowBatches, default_workers, load_batches
    from inference.predictions import answer_rows
    from product_vqa.atomic_io import atomic_write
    from product_vqa.dataset import load_split
    from product_vqa.hub import commit_files, hub_errors, locate
    from product_vqa.modeling.attribute_reader import AttributeReader
    from product_vqa.modeling.calibration import CALIBRATION_FILE, fit_calibration
    from product_vqa.workers import worker_errors

    with argument("adapter"):
        adapter = locate(options.adapter)
    if options.push_to_hub and adapter.folder is not None:
        raise InputError(f"--push_to_hub: --adapter {options.adapter} is a folder, not a repo of the Hub")
    if not (options.output_dir or options.push_to_hub or adapter.folder):
        raise InputError("--adapter is a repo: --push_to_hub puts calibration.json there, --output_dir into a folder")
    place = options.output_dir or adapter.folder
    with argument("output_dir" if options.output_dir else "adapter"):
        folder = writable_folder(place) if place else None
    with argument("dataset"):
        location = locate(options.dataset, repo_type="dataset")
    with argument("dataset"):
        dataset = load_split(location, options.split)
    if options.max_samples:
        dataset = dataset.shuffle(seed=options.seed).select(range(min(options.max_samples, len(dataset))))
    reader = AttributeReader.from_pretrained(
        options.adapter,
        base_model=options.base_model,
        dtype=options.dtype,
        load_in_4bit=options.load_in_4bit,
        calibrated=False,
    )

    import pandas as pd

    batches = RowBatches(dataset, processor=reader.processor, batch_size=options.batch_size)
    with worker_errors():
        num_workers = options.dataloader_num_workers
        if num_workers is None:
            num_workers = default_workers(reader.model.device)
        loaded = load_batches(batches, range(len(batches)), num_workers=num_workers)
        tables = [answer_rows(reader, batch) for batch in tqdm(loaded, total=len(batches), desc="batches")]
    said = pd.concat([table.to_pandas() for table in tables], ignore_index=True)
    answers = right(said, dataset["entity_value"][:])
    if len(answers) < 20:
        raise InputError(
            f"--dataset {options.dataset}, split {options.split}: {len(answers)} labelled rows, at least 20 are needed"
        )
    calibration = fit_calibration(answers)
    figures = report(answers, cross_fit(answers, seed=options.seed))  # not on the rows that each was fitted on
    made_with = {"dataset": str(location), "split": options.split, **reader.provenance}
    # By it the reader knows whose calibration this is: a later adapter may lie in the same repo or folder.
    bound_to = {"adapter_sha256": reader.provenance["adapter_sha256"]}
    text = json.dumps(asdict(calibration) | figures | bound_to | {"made_with": made_with}, indent=2) + "\n"
    if folder is not None:
        with atomic_write(folder / CALIBRATION_FILE) as temporary:
            temporary.write_text(text)
        print(f"written: {folder / CALIBRATION_FILE}")
    if options.push_to_hub:
        with argument("adapter"), hub_errors(adapter.name):
            commit = commit_files(
                adapter.name, {CALIBRATION_FILE: text.encode()}, message=f"Calibrated on {options.split}"
            )
        print(f"pushed: {commit.commit_url}")
    print(
        f"temperature {calibration.answer.temperature:.3f}, bias {calibration.answer.bias:+.3f} over "
        f"{figures['rows']} rows, {figures['share_right']:.1%} right; "
        f"on rows that the fit did not see: log loss {figures['log_loss']['before']:.4f} -> "
        f"{figures['log_loss']['after']:.4f}, calibration error {figures['calibration_error']['before']:.4f} -> "
        f"{figures['calibration_error']['after']:.4f}"
    )


if __name__ == "__main__":
    run(main)
