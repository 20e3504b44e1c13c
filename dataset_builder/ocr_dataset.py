"""Reads the images of a dataset that is there already, perhaps a stranger's, and adds the texts to it."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import HfApi

from dataset_builder.image_texts import ImageTexts, read_images
from dataset_builder.manifest import parse_manifest, save_manifest
from dataset_builder.ocr_files import describe_texts, ocr_config, ocr_file, write_ocr_files
from dataset_builder.output_folder import MANIFEST_FILE, OCR_FOLDER, is_written
from dataset_builder.verification import hash_files
from product_vqa.atomic_io import atomic_write
from product_vqa.cards import CARD_FILE, add_section, config_entries
from product_vqa.dataset import DAMAGED, MAX_CARD_BYTES, ROWS_CONFIG, dataset_error, find_splits, load_split
from product_vqa.documents import DocumentError, parse_front_matter, read_bytes, read_json
from product_vqa.errors import InputError, argument, first_line
from product_vqa.hub import Location, commit_files, download, find_file, hub_errors, page_url, retry
from product_vqa.ocr.stored_texts import StoredTexts
from product_vqa.ocr.text_files import ENGINE_KEY, hash_image
from product_vqa.schemas import load_schema
from product_vqa.task.columns import SPLITS

_NEEDED = ("configs",)  # of the card's metadata
_FOLLOWING_SECTION = "Dropped rows"
_MESSAGE = "Texts of the images, by product-vqa"  # of the commit


def check_texts_dir(folder: Path, location: Location) -> None:
    """Raise InputError if the folder has a card, a manifest or texts that neither this command nor a build wrote.

    They would be replaced. The dataset's own folder may have any.
    """
    if location.folder is not None and location.folder.resolve() == folder:
        return
    for name, is_own in (
        (MANIFEST_FILE, _is_manifest),
        (CARD_FILE, lambda card: _names_texts(card) or _is_manifest(folder / MANIFEST_FILE)),
        *((f"{OCR_FOLDER}/{file.name}", _is_of_an_engine) for file in sorted((folder / OCR_FOLDER).glob("*"))),
    ):
        file = folder / name
        if is_written(name) and (file.is_symlink() or file.exists()) and not is_own(file):
            raise InputError(
                f"`output_dir` {folder}: contains {name}, which is not of an earlier run of this command and would be "
                "replaced; choose another folder, or move it elsewhere"
            )


def _is_manifest(file: Path) -> bool:
    try:
        content = read_json(file)
    except (OSError, DocumentError):
        return False
    return isinstance(content, dict) and isinstance(content.get("fingerprint"), str)


def _names_texts(card: Path) -> bool:
    """Whether a card has the configuration of the texts."""
    try:
        metadata = parse_front_matter(read_bytes(card, max_bytes=MAX_CARD_BYTES).decode("utf-8", "replace"))
    except (OSError, DocumentError):
        return False
    return any(entry.get("config_name") == OCR_FOLDER for entry in config_entries(metadata))


def _is_of_an_engine(file: Path) -> bool:
    try:
        return ENGINE_KEY in (pq.read_schema(file).metadata or {})
    except DAMAGED:
        return False


def read_splits(
    location: Location, texts: ImageTexts, *, chosen: Collection[str] | None = None, folder: Path
) -> dict[str, dict[str, str]]:
    """Read the images of the chosen splits, or of all; returns the images of each, URL -> sha256.

    Those that the engine has read before, according to the texts in `folder`, are not read again. Other splits are
    among them if `folder` has a file of their texts; no image is read for them.
    """
    images: dict[str, dict[str, str]] = {}
    with argument("dataset"):
        names = [split for split in find_splits(location) if split in SPLITS]
        if not names:
            raise InputError(f"{location}: has none of the splits {', '.join(SPLITS)}")
        if missing := [split for split in chosen or () if split not in names]:
            raise InputError(f"{location}: has no split {missing[0]}; it has {', '.join(names)}")
        is_chosen = {split: chosen is None or split in chosen for split in names}
        for split in sorted(names, key=is_chosen.__getitem__):  # what may be refused comes before images are read
            if is_chosen[split]:
                with suppress(InputError):  # files or texts that are damaged: the images are read again
                    _keep_texts(folder, split, texts)
                images[split] = _read_split(location, split, texts)
            elif (folder / ocr_file(split)).is_file():
                images[split] = _read_split(location, split, None)
                _keep_texts(folder, split, texts, images[split])
    return {split: images[split] for split in names if split in images}


def _keep_texts(folder: Path, split: str, texts: ImageTexts, images: Mapping[str, str] | None = None) -> None:
    """Keep the texts of a split that the engine read earlier, each for the image in which it was read.

    `images`, URL -> sha256, are given for a split that is not read now: then raises InputError for another engine.
    """
    name = ocr_file(split)
    if not (folder / name).is_file():
        return
    found = StoredTexts(Location(str(folder)), [name], [folder / name])
    if found.description != texts.description:
        if images is None:
            return
        raise InputError(
            f"`splits`: the texts of split {split} in {folder} are of another engine ({found.description}, not "
            f"{texts.description}); read all splits with the same one"
        )
    newer = texts.urls() if images is None else set()  # read before an interruption, perhaps in another image
    for url, sha256 in found.hashes().items():
        if sha256 is None and images is not None:
            sha256 = images.get(url)
        if sha256 is not None and url not in newer:
            text = found.find(url)
            if text is not None:
                texts.keep(url, sha256, text)


def _read_split(location: Location, split: str, texts: ImageTexts | None) -> dict[str, str]:
    """The images of a split, read into `texts`, if given."""
    dataset = load_split(location, split)
    urls = dataset.data.column("image_link").to_pylist()
    has_image = pc.is_valid(dataset.data.column("image")).to_pylist()
    rows = {url: row for row, url in reversed(list(enumerate(urls))) if has_image[row]}
    hashes: dict[str, str] = {}

    def load(url: str) -> bytes:
        content: bytes = dataset[rows[url]]["image"]["bytes"]
        return content

    def find_images() -> Iterator[tuple[str, str]]:
        for url in sorted(rows, key=rows.__getitem__):
            hashes[url] = hash_image(load(url))
            yield url, hashes[url]

    if texts is None:
        return dict(find_images())
    read_images(texts, find_images(), load, total=len(rows))
    return hashes


def add_texts(
    location: Location, images: Mapping[str, Mapping[str, str]], texts: ImageTexts, folder: Path
) -> dict[str, Any]:
    """Write the texts, the card and the manifest of a dataset to a folder, which may be the dataset's own.

    Returns the description of the texts, `Manifest.ocr`.
    """
    with argument("dataset"):
        source = download(location, patterns=[CARD_FILE, MANIFEST_FILE], repo_type="dataset")
        card = _read_card(location, source)
        schema = load_schema(location)
        file = find_file(location, source, MANIFEST_FILE)
    ocr = write_ocr_files(images, texts, folder)
    if not ocr:
        raise InputError(f"`dataset` {location}: has no image that could be read")
    for leftover in (folder / OCR_FOLDER).glob("*.parquet"):
        if is_written(f"{OCR_FOLDER}/{leftover.name}") and leftover.name not in {
            Path(ocr_file(split)).name for split in ocr["images"]
        }:
            leftover.unlink()
    if file is not None:
        try:
            manifest = parse_manifest(read_json(file), schema)
        except (OSError, DocumentError):
            manifest = None
        if manifest is not None:  # else somebody else's, or of another version
            kept = {name: digest for name, digest in manifest.files.items() if not name.startswith(f"{OCR_FOLDER}/")}
            added = {name: digest for name, digest in hash_files(folder).items() if name.startswith(f"{OCR_FOLDER}/")}
            save_manifest(replace(manifest, ocr=ocr, files=dict(sorted((kept | added).items()))), folder)
    with atomic_write(folder / CARD_FILE) as temporary:
        temporary.write_bytes(_add_to_card(location, card, ocr).encode())
    return ocr


def _read_card(location: Location, folder: Path) -> str:
    file = find_file(location, folder, CARD_FILE)
    if file is None:
        return ""
    try:
        return read_bytes(file, max_bytes=MAX_CARD_BYTES).decode("utf-8", "replace")
    except (OSError, DocumentError) as error:
        raise dataset_error(location, f"its {CARD_FILE} cannot be read: {first_line(error)}") from error


def _add_to_card(location: Location, card: str, ocr: Mapping[str, Any]) -> str:
    """The card with the configuration `ocr` and its section. Without `configs`, it gets those of the data, too."""
    metadata = parse_front_matter(card)
    entries = [entry for entry in config_entries(metadata) if entry.get("config_name") != OCR_FOLDER]
    if not entries:
        files = [{"split": split, "path": names} for split, names in find_splits(location).items()]
        entries = [{"config_name": "default", "data_files": files}]
    names = [entry.get("config_name") for entry in entries]
    if "default" not in names and not any(entry.get("default") for entry in entries):
        entries[0] = {**entries[0], "default": True}  # or `load_dataset` would ask for a name
    elif set(names) > {"default", ROWS_CONFIG}:  # `merge_cards` keeps what a person added
        entries = [entry for entry in entries if entry.get("config_name") in ("default", ROWS_CONFIG)]
    return add_section(
        card,
        describe_texts(ocr),
        before=_FOLLOWING_SECTION,
        metadata={"configs": [*entries, ocr_config(ocr["images"])]},
        needed=_NEEDED,
    )


def push_texts(folder: Path, location: Location, ocr: Mapping[str, Any]) -> str:
    """Push the texts, the card and the manifest to the dataset's repo; returns the URL and the commit."""
    names = [*map(ocr_file, ocr["images"]), CARD_FILE, MANIFEST_FILE]
    with argument("dataset"), hub_errors(location.name, repo_type="dataset"):
        commit = commit_files(
            location.name,
            {name: folder / name for name in names if (folder / name).is_file()},
            message=_MESSAGE,
            repo_type="dataset",
            is_obsolete=lambda name: is_written(name) and name.startswith(f"{OCR_FOLDER}/"),
            needed_metadata=_NEEDED,
            check_head=partial(_check_head, location),
        )
    return f"{page_url(location.name, repo_type='dataset')} (commit {commit.oid})"


def _check_head(location: Location, commit: str) -> None:
    """Raise InputError if the repo has changed since its images were read: the texts may be of others."""
    if commit == location.revision:
        return
    newest = retry(lambda: HfApi().list_repo_commits(location.name, repo_type="dataset", revision=commit))[:2]
    if newest[0].title == _MESSAGE and [one.commit_id for one in newest[1:]] == [location.revision]:
        return  # by this push, whose response was lost
    raise InputError(
        f"{location.name}: has changed since its images were read (commit {commit}, not {location.revision}); rerun "
        "the command: the texts that were read are kept, and only other images are read"
    )
