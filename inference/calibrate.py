"""Fit confidences that mean what they say: a labelled split -> calibration.json, next to the adapter.

    python -m inference.calibrate --adapter user/adapter --dataset user/dataset --split validation --push_to_hub
    python -m inference.calibrate --adapter user/adapter --dataset user/dataset --at_most_wrong 0.05 --push_to_hub
    python -m inference.calibrate --adapter user/adapter --dataset user/dataset --ground ocr --push_to_hub

From then on `AttributeReader` applies it, and so do predict and the page. Use a split that was not trained on.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.paths import writable_folder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from datasets import Dataset

    from inference.candidate_finder import CandidateFinder
    from inference.grounding_fit import FittedGrounding
    from inference.predicted_rows import PredictedRows
    from inference.text_source import TextSource
    from inference.threshold import Threshold
    from product_vqa.hub import Location
    from product_vqa.modeling.attribute_reader import AttributeReader
    from product_vqa.modeling.calibration import Calibration


@dataclass
class CalibrateOptions:
    """The adapter, and labelled rows that it was not trained on."""

    adapter: str = field(metadata={"help": "Adapter: a repo (user/name[@revision]) or a folder."})
    dataset: str = field(metadata={"help": "Dataset: a repo (user/name[@revision]) or a folder."})
    split: str = field(default="validation", metadata={"help": "The labelled split to predict."})
    base_model: str | None = field(
        default=None, metadata={"help": "Base model, if not the one that the adapter names: a repo or a folder."}
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder for calibration.json; default: the adapter's folder."}
    )
    push_to_hub: bool = field(default=False, metadata={"help": "Upload calibration.json to the adapter's repo."})
    max_samples: int = field(default=2000, metadata={"help": "Maximum number of rows, drawn at random; 0: all."})
    seed: int = field(default=0, metadata={"help": "Seed of the random draw."})
    batch_size: int = field(default=32, metadata={"help": "Rows per batch."})
    dataloader_num_workers: int | None = field(default=None, metadata={"help": "As in inference.predict."})
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = field(
        default="auto", metadata={"help": "As in inference.predict."}
    )
    load_in_4bit: bool | None = field(
        default=None, metadata={"help": "As in inference.predict.", "nargs": "?", "const": True}
    )
    ground: Literal["none", "ocr"] | None = field(
        default=None,
        metadata={
            "help": "ocr: also find out how far to trust what OCR reads in an image, and whether predictions gain "
            "from it (--ground of inference.predict). The texts are the dataset's, or read now. Default: ocr if the "
            "dataset has them."
        },
    )
    at_most_wrong: float | None = field(
        default=None,
        metadata={
            "help": "Also find the lowest --min_confidence of inference.predict at which at most this share of the "
            "given answers is wrong, with a guarantee. Half of the images are kept for that."
        },
    )

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"--batch_size must be at least 1, got {self.batch_size}")
        if self.dataloader_num_workers is not None and self.dataloader_num_workers < 0:
            raise InputError(f"--dataloader_num_workers must not be negative, got {self.dataloader_num_workers}")
        if self.max_samples < 0:
            raise InputError(f"--max_samples must not be negative, got {self.max_samples}")
        if self.at_most_wrong is not None and not 0 < self.at_most_wrong < 1:
            raise InputError(f"--at_most_wrong must be between 0 and 1, got {self.at_most_wrong}")


def cross_fit(answers: "pd.DataFrame", *, column: str = "confidence", folds: int = 5, seed: int = 0) -> "np.ndarray":
    """Calibrate each value of a column, `confidence` or `shown`, without its row and others of the same image."""
    import numpy as np

    from product_vqa.modeling.calibration import fit_calibration

    fold = draw_images(answers, folds, seed=seed)
    calibrated = np.array(answers[column])
    for number in range(folds):
        is_held_out = fold == number
        calibration = fit_calibration(answers[~is_held_out])
        calibrated[is_held_out] = apply_calibration(answers[is_held_out], calibration)[column]
    return calibrated


def draw_images(answers: "pd.DataFrame", parts: int, *, seed: int) -> "np.ndarray":
    """The number of each row's part: images are drawn at random, and all rows of one are in the same part."""
    import numpy as np

    images = answers["image_link"].astype("category").cat.codes.to_numpy()
    return np.random.default_rng(seed).permutation(images.max(initial=0) + 1)[images] % parts


def apply_calibration(answers: "pd.DataFrame", calibration: "Calibration") -> "pd.DataFrame":
    """The answers with the `confidence`, and `shown`, that a reader with this calibration gives them."""
    is_quantity = answers["number_confidence"].notna()
    scaled = answers["confidence"].map(calibration.value)
    answers = answers.assign(confidence=scaled.mask(is_quantity, answers["confidence"].map(calibration.answer)))
    return answers.assign(shown=answers["shown"].map(calibration.shown)) if "shown" in answers else answers


def measure(
    answers: "pd.DataFrame", calibrated: "np.ndarray", *, column: str = "confidence", outcome: str = "is_right"
) -> dict[str, Any]:
    """Log loss and calibration error of the answers' own probabilities and of the `calibrated` ones."""
    from inference.metrics import calibration_error
    from product_vqa.modeling.calibration import log_loss

    outcomes, before = answers[outcome].to_numpy(bool), answers[column].to_numpy()
    return {
        "rows": len(answers),
        f"share_{outcome.removeprefix('is_')}": float(outcomes.mean()),
        "log_loss": {"before": log_loss(before, outcomes), "after": log_loss(calibrated, outcomes)},
        "calibration_error": {
            "before": calibration_error(before, outcomes),
            "after": calibration_error(calibrated, outcomes),
        },
    }


def measure_all(answers: "pd.DataFrame", *, seed: int) -> dict[str, Any]:
    """`measure` of the confidences of all given answers, each calibrated without its image; and of `shown`.

    The latter, `shown_measured`, has the AUROC too. It is missing for an adapter that was not trained to be silent.
    """
    from inference.metrics import auroc

    is_given = (answers["prediction"] != "").to_numpy()
    metrics = measure(answers[is_given], cross_fit(answers, seed=seed)[is_given])
    is_known = answers["shown"].notna().to_numpy()
    if not is_known.any():
        return metrics
    known, calibrated = answers[is_known], cross_fit(answers, column="shown", seed=seed)[is_known]
    outcomes = known["is_shown"].to_numpy(bool)
    aurocs = {"before": auroc(known["shown"].to_numpy(), outcomes), "after": auroc(calibrated, outcomes)}
    measured = measure(known, calibrated, column="shown", outcome="is_shown")
    return metrics | {"shown_measured": {**measured, "auroc": aurocs}}


def find_threshold(answers: "pd.DataFrame", calibration: "Calibration", at_most_wrong: float) -> "Threshold | None":
    """The threshold for the given ones of these answers, which did not fit the calibration."""
    from inference.threshold import certainty
    from inference.threshold import find_threshold as find

    given = apply_calibration(answers[answers["prediction"] != ""], calibration)
    return find(certainty(given).to_numpy(), ~given["is_right"].to_numpy(bool), at_most_wrong=at_most_wrong)


def describe_none(at_most_wrong: float, *, rows: int) -> str:
    from inference.threshold import rows_needed

    return (
        f"no threshold: of the answers to these {rows} rows, too many are wrong to guarantee {at_most_wrong:.1%} at "
        f"any confidence. At least {rows_needed(at_most_wrong)} right answers above a threshold are necessary: use "
        "more rows (--max_samples), or allow more errors"
    )


def main() -> None:
    (options,) = parse_options(CalibrateOptions, description="Calibrate an adapter's confidences on a labelled split.")

    from inference.candidate_finder import find_texts
    from inference.metrics import mark_right
    from inference.sources import check_schema
    from product_vqa.dataset import load_split
    from product_vqa.hub import locate
    from product_vqa.modeling.adapter import download_adapter
    from product_vqa.modeling.attribute_reader import AttributeReader
    from product_vqa.modeling.calibration import fit_calibration
    from product_vqa.schemas import load_schema

    with argument("adapter"):
        adapter = locate(options.adapter)
    folder = find_folder(options, adapter)
    with argument("dataset"):
        location = locate(options.dataset, repo_type="dataset")
        dataset = load_split(location, options.split)
        own = load_schema(location)
    if options.max_samples:
        dataset = dataset.shuffle(seed=options.seed).select(range(min(options.max_samples, len(dataset))))
    reader = AttributeReader.from_pretrained(
        options.adapter,
        base_model=options.base_model,
        dtype=options.dtype,
        load_in_4bit=options.load_in_4bit,
        calibrated=False,
    )

    check_schema(reader.schema, own, dataset, dataset=location, adapter=adapter)
    source = find_texts(options.ground, dataset=location, split=options.split, rows=dataset)
    labels = dataset["entity_value"][:]
    answers = mark_right(predict(dataset, reader, options).table(), labels, schema=reader.schema)
    if len(answers) < 20:
        raise InputError(
            f"--dataset {options.dataset}, split {options.split}: {len(answers)} labelled rows, at least 20 are needed"
        )
    # A threshold is tested on images that fitted nothing; otherwise the fit has them too.
    is_tested = draw_images(answers, 2, seed=options.seed) == 0
    fitted = answers if options.at_most_wrong is None else answers[~is_tested]
    if (fitted["prediction"] == "").all():
        raise InputError(f"--adapter {options.adapter}: all of its {len(fitted)} answers to --split {options.split} "
                         "are empty, so that there is no confidence to calibrate")  # fmt: skip
    calibration = fit_calibration(fitted)
    metrics = measure_all(fitted, seed=options.seed)  # on rows that each fit did not see
    threshold = None
    if options.at_most_wrong is not None:
        threshold = find_threshold(answers[is_tested], calibration, options.at_most_wrong)
        metrics["threshold"] = None if threshold is None else asdict(threshold)
    grounding: dict[str, Any] = {}
    if source is not None:
        found = ground(dataset, reader, options, source=source, location=location, alone=fitted)
        grounding = {"grounding": found.as_dict()}
        if options.at_most_wrong is not None:
            tested = found.answers[~found.answers.index.isin(fitted.index)]
            grounded_threshold = find_threshold(tested, found.grounding.scalings, options.at_most_wrong)
            grounding["grounding"]["threshold"] = grounded_threshold and asdict(grounded_threshold)

    content = {
        **{name: asdict(scaling) for name, scaling in calibration.parts().items()},
        **metrics,
        **grounding,
        # The reader ignores the calibration of another adapter, which may replace this one in the repo or folder.
        "adapter_sha256": reader.provenance["adapter_sha256"],
        "made_with": {
            "dataset": str(location),
            "split": options.split,
            **reader.provenance,
            **(source.describe() if source is not None else {}),
        },
    }
    if source is None:
        before = find_grounding(folder or download_adapter(adapter).folder, content["adapter_sha256"])
        if before is not None:
            reason = "--ground none" if options.ground == "none" else f"{location} has no texts of the images"
            print(f"OCR: calibration.json had weights for it, and now has none ({reason}); they were: {before}")
    save(json.dumps(content, indent=2) + "\n", options=options, folder=folder, adapter=adapter)
    print(
        f"temperature {calibration.answer.temperature:.3f}, bias {calibration.answer.bias:+.3f}, fitted on "
        f"{metrics['rows']} rows, {metrics['share_right']:.1%} of them right; cross-validated: "
        f"log loss {metrics['log_loss']['before']:.4f} -> {metrics['log_loss']['after']:.4f}, calibration error "
        f"{metrics['calibration_error']['before']:.4f} -> {metrics['calibration_error']['after']:.4f}"
    )
    if shown := metrics.get("shown_measured"):
        error, area = shown["calibration_error"], shown["auroc"]
        areas = "" if area["before"] is None else f", AUROC {area['before']:.4f} -> {area['after']:.4f}"
        print(
            f"shown: fitted on {shown['rows']} rows, {shown['share_shown']:.1%} of them with a value; "
            f"cross-validated: calibration error {error['before']:.4f} -> {error['after']:.4f}{areas}"
        )
    if options.at_most_wrong is not None:
        print(threshold or describe_none(options.at_most_wrong, rows=int(is_tested.sum())))
    if source is not None:
        print(found)
        if options.at_most_wrong is not None:
            print(f"grounded: {grounded_threshold or describe_none(options.at_most_wrong, rows=len(tested))}")


def ground(
    dataset: "Dataset",
    reader: "AttributeReader",
    options: CalibrateOptions,
    *,
    source: "TextSource",
    location: "Location",
    alone: "pd.DataFrame",
) -> "FittedGrounding":
    """Answer the rows again with OCR, and fit how far to trust it, on the rows of `alone`."""
    import numpy as np

    from inference.candidate_finder import make_finder
    from inference.grounding_fit import fit_grounding
    from product_vqa.modeling.calibration import Calibration, Grounding
    from product_vqa.ocr.unit_shares import load_shares

    unit_shares = load_shares(location, reader.schema)
    reader.calibration = Calibration(
        grounding=Grounding(unit_shares=unit_shares)
    )  # candidates are scored, not weighed
    scored = predict(dataset, reader, options, finder=make_finder(source, reader))
    images = dataset.select_columns("image_link").to_pandas()
    return fit_grounding(
        scored,
        dataset["entity_value"][:],
        alone=alone,
        parts=draw_images(images, 5, seed=options.seed),
        is_fitted=np.isin(np.arange(len(dataset)), alone.index),
        unit_shares=unit_shares,
        schema=reader.schema,
    )


def find_folder(options: CalibrateOptions, adapter: "Location") -> Path | None:
    """The folder for calibration.json; None if it is only pushed."""
    if options.push_to_hub and adapter.folder is not None:
        raise InputError(f"--push_to_hub: --adapter {options.adapter} is a folder, not a repo of the Hub")
    if options.output_dir:
        with argument("output_dir"):
            return writable_folder(options.output_dir)
    if adapter.folder is not None:
        with argument("adapter"):
            return writable_folder(adapter.folder)
    if not options.push_to_hub:
        raise InputError(
            f"--adapter {options.adapter} is a repo: pass --push_to_hub to push calibration.json there, or "
            "--output_dir to write it to a folder"
        )
    return None


def predict(
    dataset: "Dataset",
    reader: "AttributeReader",
    options: CalibrateOptions,
    *,
    finder: "CandidateFinder | None" = None,
) -> "PredictedRows":
    """The answers to all rows, with the confidences of the model itself."""
    from inference.predicted_rows import predict_rows

    return predict_rows(
        dataset, reader, batch_size=options.batch_size, num_workers=options.dataloader_num_workers, finder=finder
    )


def find_grounding(folder: Path, adapter_sha256: str) -> str | None:
    """What the calibration.json of this very adapter that will be replaced has about OCR; None if nothing."""
    from product_vqa.modeling.calibration import load_calibration
    from product_vqa.provenance import CALIBRATION_FILE

    file = folder / CALIBRATION_FILE
    try:
        found = load_calibration(file, adapter_sha256=adapter_sha256) if file.is_file() else None
    except InputError:
        return None  # it is damaged
    return None if found is None or found.grounding is None else str(found.grounding)


def save(text: str, *, options: CalibrateOptions, folder: Path | None, adapter: "Location") -> None:
    """Write calibration.json to `folder`, if there is one, and push it to the adapter's repo, if asked."""
    from product_vqa.atomic_io import atomic_write
    from product_vqa.hub import commit_files, hub_errors
    from product_vqa.provenance import CALIBRATION_FILE

    if folder is not None:
        with atomic_write(folder / CALIBRATION_FILE) as temporary:
            temporary.write_text(text)
        print(f"written: {folder / CALIBRATION_FILE}")
    if options.push_to_hub:
        with argument("adapter"), hub_errors(adapter.name):
            commit = commit_files(
                adapter.name, {CALIBRATION_FILE: text.encode()}, message=f"Calibrate on {options.split}"
            )
        print(f"pushed: {commit.commit_url}")


if __name__ == "__main__":
    run(main)
