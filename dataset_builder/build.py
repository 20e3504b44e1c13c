"""Builds a dataset from CSVs and images, and with --push_to_hub publishes it as a dataset repo on the Hub.

python -m dataset_builder.build --train_csv train.csv --test_csv test.csv --image_dir images --output_dir dataset
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_builder.options import FetchOptions, ImageOptions, ImageSourceOptions, SelectionOptions, TableOptions
from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.row_selection import RowSelectionOptions
from product_vqa.sharding import MergeOptions, Shard

if TYPE_CHECKING:
    from dataset_builder.build_shards import Inputs
    from dataset_builder.csv_reader import Tables
    from dataset_builder.dataset_card import License
    from dataset_builder.image_dir import ImageDir
    from dataset_builder.image_store import ImageStore
    from dataset_builder.shard_images import StoredImages
    from product_vqa.hub import Location
    from product_vqa.row_selection import RowSelection


@dataclass
class BuildOptions:
    output_dir: str = field(metadata={"help": "Folder to create, or an earlier build to replace."})
    download: bool = field(
        default=True,
        metadata={"help": "Download missing images. If false, rows whose image is not in the store are dropped."},
    )
    push_to_hub: bool = field(default=False, metadata={"help": "Publish the dataset as --hub_dataset_id."})
    hub_dataset_id: str | None = field(default=None, metadata={"help": "Dataset repo to push to (user/name)."})
    hub_private_repo: bool = field(
        default=True, metadata={"help": "Create the repo as private. If false, everyone can see it."}
    )
    license: str | None = field(
        default=None,
        metadata={
            "help": "License of the images, for the card: an identifier like cc-by-4.0 or mit, or other together with "
            "--license_name."
        },
    )
    license_name: str | None = field(
        default=None, metadata={"help": "Name of a license without an identifier. Requires --license other."}
    )

    def __post_init__(self) -> None:
        if self.push_to_hub and not self.hub_dataset_id:
            raise InputError("--push_to_hub needs --hub_dataset_id user/name")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise InputError(
                f"--license {self.license} is not a license identifier of the Hub. Identifiers look like cc-by-4.0 "
                "(lower-case letters, digits, and - . + only). For a license without an identifier, pass --license "
                "other and --license_name NAME"
            )
        if (self.license == "other") != bool(self.license_name):
            raise InputError("--license other and --license_name NAME must be used together")


def main() -> None:
    table_options, row_options, source, options, shards, image_options, selection, fetch_options = parse_options(
        TableOptions, RowSelectionOptions, ImageSourceOptions, BuildOptions, MergeOptions, ImageOptions,
        SelectionOptions, FetchOptions,
        description=__doc__,
    )  # fmt: skip

    if source.image_store is None and (shards.shard is not None or shards.merge is not None):
        raise InputError("--shard and --merge need --image_store, the folder of this machine's images")

    from dataset_builder.output_folder import check_output_dir
    from product_vqa.atomic_io import one_writer, restore_folder

    folder = check_output_dir(options.output_dir)
    # Shards may share the folder: each has a lock, and a temporary folder, of its own.
    own = folder if shards.chosen is None else folder.with_name(f"{folder.name}-{shards.chosen.suffix}")
    with one_writer(own, argument="output_dir"):  # until it is pushed, too
        restore_folder(own)
        build(
            folder,
            options=options,
            table_options=table_options,
            row_options=row_options,
            source=source,
            shards=shards,
            image_options=image_options,
            selection=selection,
            fetch_options=fetch_options,
        )


def build(
    folder: Path,
    *,
    options: BuildOptions,
    table_options: TableOptions,
    row_options: RowSelectionOptions,
    source: ImageSourceOptions,
    shards: MergeOptions,
    image_options: ImageOptions,
    selection: SelectionOptions,
    fetch_options: FetchOptions,
) -> None:
    from dataset_builder.build_shards import Inputs, shard_folder
    from dataset_builder.csv_reader import read_tables, select_rows
    from dataset_builder.disk_space import check_download
    from dataset_builder.downloader import download, open_images
    from dataset_builder.image_store import ImageStore
    from dataset_builder.output_folder import check_no_shards, read_earlier_manifest
    from dataset_builder.push import check_target
    from product_vqa.atomic_io import restore_folder
    from product_vqa.row_selection import read_selection

    # Everything that can be refused is refused before the long work begins.
    if shards.chosen is not None:
        restore_folder(shard_folder(folder, shards.chosen))
    read_earlier_manifest(folder)
    if shards.chosen is None and shards.merge is None:
        check_no_shards(folder)
    location = options.hub_dataset_id or folder.name
    if options.push_to_hub:
        location = check_target(location, private=options.hub_private_repo)

    # Read and download.
    row_selection = read_selection(row_options, seed=selection.seed)
    tables = select_rows(read_tables(table_options), row_selection)
    urls = tables.urls()
    image_size = image_options.image_size
    inputs = Inputs.of(tables, row_selection, image_size=image_size)
    write = partial(
        write_build, folder, tables, location=location, options=options, image_size=image_size, selection=selection,
        row_selection=row_selection,
    )  # fmt: skip
    if shards.merge is not None:
        if is_merged(folder, tables, row_selection, inputs=inputs, options=options, location=location,
                     selection=selection):  # fmt: skip
            return
        merge(folder, urls, shards.merge, inputs=inputs, options=options, location=location, write=write)
        return
    images = open_images(source, image_size=image_size)
    if shards.chosen is not None:
        assert isinstance(images, ImageStore)
        build_shard(folder, images, urls, shards.chosen, inputs=inputs, options=options, location=location,
                    fetch_options=fetch_options)  # fmt: skip
        return
    if isinstance(images, ImageStore) and options.download:
        check_space = partial(check_download, images, num_rows=tables.num_rows, output_dir=folder)
        download(images, urls, fetch_options, check_space=check_space)
    write(images, merged=None)


def write_build(
    folder: Path,
    tables: "Tables",
    images: "ImageDir | StoredImages",
    *,
    location: str,
    options: BuildOptions,
    image_size: int,
    selection: SelectionOptions,
    row_selection: "RowSelection",
    merged: "Location | None",
) -> None:
    """Filter and split the rows, write the dataset, and push it if asked for."""
    import datasets

    from dataset_builder.dataset_card import save_card
    from dataset_builder.disk_space import check_build
    from dataset_builder.downloader import import_images
    from dataset_builder.fingerprint import compute_fingerprint
    from dataset_builder.image_dir import ImageDir
    from dataset_builder.image_store import ImageStore
    from dataset_builder.leakage import check_split, find_leaks
    from dataset_builder.manifest import find_earlier_build, make_manifest, save_manifest
    from dataset_builder.output_folder import check_own_files, temporary_folder, write_errors_explained
    from dataset_builder.placeholders import find_placeholders
    from dataset_builder.row_filter import filter_rows
    from dataset_builder.shards_branch import remove_branch
    from dataset_builder.split import split_rows
    from dataset_builder.verification import hash_files, is_intact
    from dataset_builder.writer import WRITE_ERRORS, write_dataset
    from product_vqa.atomic_io import replace_folder

    urls = tables.urls()
    earlier, license = find_earlier_build(folder), license_of(options)
    fingerprint = compute_fingerprint(
        tables, images, image_size=image_size, selection=selection, row_selection=row_selection
    )

    with write_errors_explained(folder, also=WRITE_ERRORS), temporary_folder(folder) as temporary:
        if earlier and earlier.fingerprint == fingerprint and is_intact(folder, earlier):
            save_card(earlier, folder, location=location, license=license)
            print(f"unchanged: {options.output_dir}")
        else:
            cache = Path(datasets.config.HF_DATASETS_CACHE)
            check_build(tables, images, folder, image_size=image_size, cache=cache)
            store: StoredImages
            if isinstance(images, ImageDir):
                store = ImageStore(temporary / "images", image_size=image_size)
                import_images(store, urls, images)
            else:
                store = images

            # Filter and split.
            found, failures = store.find(urls)
            filtered = filter_rows(tables, found, failures, ranges=selection.ranges)
            splits = split_rows(filtered, validation_size=selection.validation_size, seed=selection.seed)

            # Check for leakage.
            frame = splits.as_frame()
            leaks = find_leaks(frame)
            check_split(leaks)
            placeholders = find_placeholders(frame)

            # Write, with the card last.
            complete = temporary / "dataset"
            dataset_info = write_dataset(splits, store, filtered.dropped, complete)
            manifest = make_manifest(
                fingerprint=fingerprint,
                tables=tables,
                image_source="image_dir" if isinstance(images, ImageDir) else "image_store",
                image_size=image_size,
                selection=selection,
                row_selection=row_selection,
                filtered=filtered,
                splits=splits,
                leaks=leaks,
                placeholders=placeholders,
                files=hash_files(complete),
                dataset_info=dataset_info,
            )
            save_manifest(manifest, complete)
            save_card(manifest, complete, location=location, license=license, earlier=folder)
            if folder.exists():
                check_own_files(folder)  # again: somebody may have put a file there
            replace_folder(complete, folder)

            for split, rows in splits.rows.items():
                print(f"{split}: {len(rows)} rows")
            for finding in (*leaks, *placeholders):
                print(finding)
            print(f"written: {options.output_dir}")

    push_build(folder, location, options)
    if merged is not None:
        remove_branch(merged)


def push_build(folder: Path, location: str, options: BuildOptions) -> None:
    """Push the dataset if asked for."""
    from dataset_builder.push import push
    from product_vqa.hub import page_url

    if options.push_to_hub:
        commit = push(folder, location, private=options.hub_private_repo)
        print(f"pushed: {page_url(location, repo_type='dataset')} (commit {commit.oid})")


def license_of(options: BuildOptions) -> "License | None":
    from dataset_builder.dataset_card import License

    return License(options.license, options.license_name) if options.license else None


def is_merged(
    folder: Path,
    tables: "Tables",
    row_selection: "RowSelection",
    *,
    inputs: "Inputs",
    options: BuildOptions,
    location: str,
    selection: SelectionOptions,
) -> bool:
    """Whether this merge was run before and its shards are gone. Then the card is written and the dataset pushed."""
    from dataset_builder.build_shards import SHARDS_FOLDER
    from dataset_builder.dataset_card import save_card
    from dataset_builder.manifest import find_earlier_build, is_made_from
    from dataset_builder.output_folder import remove_temporary
    from dataset_builder.shards_branch import has_branch
    from dataset_builder.verification import is_intact

    earlier = find_earlier_build(folder)
    if (
        earlier is None
        or not is_made_from(earlier, tables, row_selection, image_size=inputs.image_size, selection=selection)
        or not is_intact(folder, earlier)
        or (has_branch(location) if options.push_to_hub else (folder / SHARDS_FOLDER).is_dir())
    ):
        return False
    remove_temporary(folder)
    save_card(earlier, folder, location=location, license=license_of(options))
    print(f"unchanged: {options.output_dir}")
    push_build(folder, location, options)
    return True


def merge(
    folder: Path,
    urls: list[str],
    count: int,
    *,
    inputs: "Inputs",
    options: BuildOptions,
    location: str,
    write: Callable[..., None],
) -> None:
    """Write the dataset from the images of all shards, which are in the repo or in the folder."""
    from dataset_builder.shard_images import open_shards
    from dataset_builder.shards_branch import download_shards

    source, merged, where = folder, None, str(folder)
    if options.push_to_hub:
        source, merged = download_shards(location, count=count, inputs=inputs)
        where = location
    with argument("merge"):
        images = open_shards(source, urls, count=count, inputs=inputs, where=where)
    write(images, merged=merged)


def build_shard(
    folder: Path,
    store: "ImageStore",
    urls: list[str],
    shard: Shard,
    *,
    inputs: "Inputs",
    options: BuildOptions,
    location: str,
    fetch_options: FetchOptions,
) -> None:
    """Download the images of a shard and write it to `folder`, and to the Hub if asked for."""
    from dataset_builder.build_shards import is_done, shard_folder, write_shard
    from dataset_builder.disk_space import check_download
    from dataset_builder.downloader import download
    from dataset_builder.output_folder import temporary_folder, write_errors_explained
    from dataset_builder.shards_branch import push_shard
    from product_vqa.atomic_io import replace_folder

    own = [url for url in urls if shard.owns_url(url)]
    if options.download and own:
        download(store, own, fetch_options.of_one_shard(shard.count), check_space=partial(check_download, store))
    target = shard_folder(folder, shard)
    if is_done(target, store, own, shard=shard, inputs=inputs):
        print(f"unchanged: {target}")
    else:
        own_name = folder.with_name(f"{folder.name}-{shard.suffix}")
        with write_errors_explained(folder), temporary_folder(own_name) as temporary:
            write_shard(temporary / "shard", store, own, shard=shard, inputs=inputs)
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_folder(temporary / "shard", target)
        print(f"written: {target}")
    if options.push_to_hub:
        push_shard(target, location, shard=shard, private=options.hub_private_repo)
        print(f"pushed: shard {shard} of {location}")


if __name__ == "__main__":
    run(main)
