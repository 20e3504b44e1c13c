"""Reads the text of images with an OCR engine: those of a store, or of a dataset, to which it adds the texts.

python -m dataset_builder.ocr --image_store images
python -m dataset_builder.ocr --dataset user/dataset --output_dir texts --push_to_hub

What was read is kept: rerun the same command to resume. `build --ocr` reads images while they have their full size.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument

if TYPE_CHECKING:
    from product_vqa.hub import Location

_FULL_SIZE = "`build --ocr` reads an image at full size when it downloads it, or has it in --image_dir"

_READ_AGAIN = "Remove texts.sqlite* there to read all again"


@dataclass
class OcrOptions:
    image_store: str | None = field(
        default=None,
        metadata={"help": "Folder of downloaded images. The texts are kept there, for `build --ocr`."},
    )
    dataset: str | None = field(
        default=None, metadata={"help": "Dataset whose images are read: a folder, or user/name[@revision]."}
    )
    splits: str | None = field(
        default=None,
        metadata={
            "help": "With --dataset: the splits to read, separated by commas; default: all. Grounded predictions need "
            "validation and test alone. Texts of other splits that the folder has are kept."
        },
    )
    output_dir: str | None = field(
        default=None,
        metadata={
            "help": "With --dataset: folder for ocr/, the card and build.json. Default: the dataset's own folder."
        },
    )
    push_to_hub: bool = field(
        default=False, metadata={"help": "Publish the texts in the repo of --dataset, as its configuration ocr."}
    )

    def __post_init__(self) -> None:
        if (self.image_store is None) == (self.dataset is None):
            raise InputError("give exactly one source of images: `image_store` or `dataset`")
        if self.dataset is None and (self.output_dir or self.push_to_hub or self.splits):
            raise InputError(
                "`output_dir`, `push_to_hub` and `splits` are for a `dataset`; `build` publishes a store's texts"
            )
        if self.push_to_hub and "@" in (self.dataset or ""):
            raise InputError("`push_to_hub` adds texts to the images that the repo has now: drop the @ in `dataset`")


def main() -> None:
    (options,) = parse_options(OcrOptions, description=__doc__)
    if options.image_store is not None:
        read_store(options.image_store)
    else:
        read_dataset(options)


def read_store(folder: str) -> None:
    """Read the images of a store that have no text yet."""
    from dataset_builder.image_store import ImageStore
    from dataset_builder.image_texts import open_texts, read_stored
    from dataset_builder.ocr_files import describe_sides, find_small_print
    from dataset_builder.state_database import STATE_FILE

    if not (Path(folder) / STATE_FILE).is_file():
        raise InputError(f"`image_store` {folder}: is not a folder that download or build made")
    store = ImageStore(folder)
    with open_texts(store, Path(folder)) as texts:
        before = len(texts)
        read_stored(store, sorted(store.sizes()), texts)
        print(f"{folder}: {len(texts)} images have their texts, {len(texts) - before} of them since now")
        if texts.num_failed:
            print(f"{texts.num_failed} other images could not be read: the engine failed. {_READ_AGAIN}")
        sides = texts.longer_sides()
        for finding in find_small_print({"longer_side": describe_sides(sides)} if sides else {}):
            print(f"{finding}. {_FULL_SIZE}")


def read_dataset(options: OcrOptions) -> None:
    """Read the images of a dataset, write its configuration `ocr`, and push it if asked for."""
    from dataset_builder.image_texts import ImageTexts
    from dataset_builder.ocr_dataset import add_texts, check_texts_dir, push_texts, read_splits
    from dataset_builder.ocr_files import find_small_print
    from dataset_builder.output_folder import texts_folder, write_errors_explained
    from product_vqa.atomic_io import one_writer
    from product_vqa.hub import locate
    from product_vqa.ocr.engine import load_engine
    from product_vqa.paths import writable_folder

    assert options.dataset is not None
    engine = load_engine()
    with argument("dataset"):
        location = locate(options.dataset, repo_type="dataset")
    if options.push_to_hub:
        check_push(location)
    if options.output_dir is None and location.folder is None:
        raise InputError("`output_dir` is needed for a repo: texts are kept there, so that a rerun resumes")
    with argument("output_dir"):
        folder = writable_folder(options.output_dir or str(location.folder)).resolve()
    check_texts_dir(folder, location)
    with (
        one_writer(folder, argument="output_dir"),
        write_errors_explained(folder),
        texts_folder(folder) as kept,
    ):
        texts = ImageTexts(kept, engine, argument="output_dir")
        chosen = None if options.splits is None else [name.strip() for name in options.splits.split(",")]
        images = read_splits(location, texts, chosen=chosen, folder=folder)
        ocr = add_texts(location, images, texts, folder)
        for split, count in ocr["images"].items():
            found = images[split].items()
            failed = sum(texts.is_done(url, sha256) and not texts.has(url, sha256) for url, sha256 in found)
            print(f"{split}: texts of {count} images" + (f"; {failed} could not be read" if failed else ""))
        for finding in find_small_print(ocr):
            print(f"{finding}. {_FULL_SIZE}")
        print(f"written: {folder}")
        if options.push_to_hub:
            print(f"pushed: {push_texts(folder, location, ocr)}")


def check_push(location: "Location") -> None:
    """Raise InputError unless the texts can be pushed to the dataset's repo."""
    from dataset_builder.push import check_target

    if location.folder is not None:
        raise InputError(
            "`push_to_hub` needs a repo as `dataset`; of a folder, run the command without it, and then `build` with "
            "`push_to_hub`"
        )
    check_target(location.name, private=None)


if __name__ == "__main__":
    run(main)
