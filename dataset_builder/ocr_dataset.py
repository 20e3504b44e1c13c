"""Reads the images of a dataset that is there already, perhaps a stranger's, and adds the texts to it."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from dataset_builder.image_texts import ImageTexts, read_images
from dataset_builder.manifest import parse_manifest, save_manifest
from dataset_builder.ocr_files import describe_texts, ocr_config, ocr_file, write_ocr_files
from dataset_builder.output_folder import MANIFEST_FILE, OCR_FOLDER, is_written
from dataset_builder.verification import hash_files
from product_vqa.atomic_io import atomic_write
from product_vqa.cards import CARD_FILE, add_section, config_entries
from product_vqa.dataset import MAX_CARD_BYTES, ROWS_CONFIG, dataset_error, find_splits, load_split
from product_vqa.documents import DocumentError, parse_front_matter, read_bytes, read_json
from product_vqa.errors import InputError, argument, first_line
from product_vqa.hub import Location, commit_files, download, find_file, hub_errors, page_url
from product_vqa.ocr.stored_texts import load_texts
from product_vqa.schemas import load_schema
from product_vqa.task.columns import SPLITS

_NEEDED = ("configs",)  # of the card's metadata
_FOLLOWING_SECTION = "Dropped rows"


def read_splits(
    location: Location, texts: ImageTexts, *, chosen: Collection[str] | None = None, folder: Path
) -> dict[str, dict[str, str]]:
    """Read the images of the chosen splits, or of all; returns the images of each, URL -> sha256.

    Other splits are among them if `folder` has a file of their texts; no image is read for them.
    """
    images: dict[str, dict[str, str]] = {}
    with argument("dataset"):
        names = [split for split in find_splits(location) if split in SPLITS]
        if not names:
            raise InputError(f"{location}: has none of the splits {', '.join(SPLITS)}")
        if missing := [split for split in chosen or () if split not in names]:
            raise InputError(f"{location}: has no split {missing[0]}; it has {', '.join(names)}")
        for split in names:
            if chosen is None or split in chosen:
                images[split] = _read_split(location, split, texts)
            elif (folder / ocr_file(split)).is_file():
                images[split] = _read_split(location, split, None)
                _keep_texts(folder, split, images[split], texts)
    return images


def _keep_texts(folder: Path, split: str, images: Mapping[str, str], texts: ImageTexts) -> None:
    """Keep the texts of a split that were read earlier. Raises InputError for those of another engine."""
    found = load_texts(Location(str(folder)), split)
    if found is None:
        return
    if found.description != texts.description:
        raise InputError(
            f"`splits`: the texts of split {split} in {folder} are of another engine ({found.description}, not "
            f"{texts.description}); read all splits with the same one"
        )
    for url, sha256 in images.items():
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
            hashes[url] = hashlib.sha256(load(url)).hexdigest()
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
            message="Texts of the images, by product-vqa",
            repo_type="dataset",
            is_obsolete=lambda name: is_written(name) and name.startswith(f"{OCR_FOLDER}/"),
            needed_metadata=_NEEDED,
        )
    return f"{page_url(location.name, repo_type='dataset')} (commit {commit.oid})"
