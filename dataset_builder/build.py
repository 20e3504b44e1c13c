"""Builds a dataset from CSVs and images, and with --push_to_hub publishes it as a dataset repo on the Hub.

python -m dataset_builder.build --train_csv train.csv --test_csv test.csv --image_dir images --output_dir dataset
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_builder.options import (
    BuildOptions,
    BuildSourceOptions,
    FetchOptions,
    ImageOptions,
    SelectionOptions,
    TableOptions,
    check_machines,
)
from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError, argument
from product_vqa.row_selection import RowSelectionOptions
from product_vqa.sharding import MergeOptions, Shard

if TYPE_CHECKING:
    from dataset_builder.build_shards import Inputs
    from dataset_builder.csv_reader import Tables
    from dataset_builder.image_dir import ImageDir
    from dataset_builder.image_store import ImageStore
    from dataset_builder.image_texts import ImageTexts
    from dataset_builder.shard_images import StoredImages
    from product_vqa.row_selection import RowSelection


def main() -> None:
    table_options, row_options, source, options, shards, image_options, selection, fetch_options = parse_options(
        TableOptions, RowSelectionOptions, BuildSourceOptions, BuildOptions, MergeOptions, ImageOptions,
        SelectionOptions, FetchOptions,
        description=__doc__,
    )  # fmt: skip

    check_machines(options, source, shards, fetch_options)
    if not source.is_ray and source.image_store is None and (shards.shard is not None or shards.merge is not None):
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
    source: BuildSourceOptions,
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
    from dataset_builder.unanswered_sources import check_unanswered
    from product_vqa.atomic_io import restore_folder
    from product_vqa.row_selection import read_selection

    if options.ocr:
        from dataset_builder.image_texts import open_texts, read_stored  # and not the engine in other builds

    # Everything that can be refused is refused before the long work begins.
    if shards.chosen is not None:
        restore_folder(shard_folder(folder, shards.chosen))
    read_earlier_manifest(folder)
    if shards.chosen is None and shards.merge is None and not source.is_ray:
        check_no_shards(folder)
    location = options.hub_dataset_id or folder.name
    if options.push_to_hub:
        location = check_target(location, private=options.hub_private_repo)

    # Read and download.
    tables = read_tables(table_options)
    row_selection = read_selection(row_options, seed=selection.seed, schema=tables.schema)
    if shards.chosen is None:
        from dataset_builder.row_filter import select_labels  # and not pandas in a shard

        tables = select_labels(tables, selection, row_selection)
    else:  # a shard has no labels: the merge may read them in another way
        tables = select_rows(tables, row_selection)
    check_unanswered(selection, tables)
    urls = tables.urls()
    image_size = image_options.image_size
    inputs = Inputs.of(tables, row_selection, image_size=image_size)
    write = partial(
        write_build,
        write=partial(write_folder, folder, tables, location=location, options=options, image_size=image_size,
                      selection=selection, row_selection=row_selection),
        push=partial(push_build, folder, location, options),
    )  # fmt: skip
    is_merged_before = partial(is_merged, folder, tables, row_selection, inputs=inputs, options=options,
                               location=location, selection=selection)  # fmt: skip
    if source.is_ray:
        build_on_ray(folder, urls, source=source, inputs=inputs, options=options, location=location,
                     fetch_options=fetch_options, is_merged_before=is_merged_before, write=write)  # fmt: skip
        return
    if shards.merge is not None:
        if not is_merged_before(has_shards=partial(has_shards, folder, options, location)):
            merge(folder, urls, shards.merge, inputs=inputs, options=options, location=location, write=write)
        return
    images = open_images(source, image_size=image_size)
    if shards.chosen is not None:
        assert isinstance(images, ImageStore)
        build_shard(folder, images, urls, shards.chosen, inputs=inputs, options=options, location=location,
                    fetch_options=fetch_options)  # fmt: skip
        return
    with open_texts(images, folder) if options.ocr else nullcontext() as texts:
        if isinstance(images, ImageStore):
            if options.download:
                check_space = partial(check_download, images, num_rows=tables.num_rows, output_dir=folder)
                download(images, urls, fetch_options, check_space=check_space, texts=texts)
            if texts is not None:
                read_stored(images, urls, texts)
        write(images, texts=texts)


def write_build(
    images: "ImageDir | StoredImages",
    *,
    write: Callable[..., None],
    push: Callable[[], None],
    texts: "ImageTexts | None" = None,
    remove_shards: Callable[[], None] = lambda: None,
) -> None:
    """Write the dataset, and push it if asked for. The shards are removed last."""
    write(images, texts=texts)
    push()  # without what `write` made of the tables of rows, half a gigabyte for a million of them
    remove_shards()


def write_folder(
    folder: Path,
    tables: "Tables",
    images: "ImageDir | StoredImages",
    *,
    texts: "ImageTexts | None",
    location: str,
    options: BuildOptions,
    image_size: int,
    selection: SelectionOptions,
    row_selection: "RowSelection",
) -> None:
    """Filter and split the rows, and write the dataset, unless the folder has it already."""
    import datasets

    from dataset_builder.dataset_card import license_of, save_card
    from dataset_builder.disk_space import check_build
    from dataset_builder.downloader import import_images
    from dataset_builder.fingerprint import compute_fingerprint
    from dataset_builder.image_dir import ImageDir
    from dataset_builder.image_store import ImageStore
    from dataset_builder.leakage import check_split, find_leaks
    from dataset_builder.manifest import find_earlier_build, make_manifest, save_manifest
    from dataset_builder.ocr_files import find_small_print, warn_of_removal, write_ocr_files
    from dataset_builder.output_folder import check_own_files, temporary_folder, write_errors_explained
    from dataset_builder.placeholders import find_placeholders
    from dataset_builder.unanswered import choose_rows, schema_with
    from dataset_builder.verification import hash_files, is_intact
    from dataset_builder.writer import WRITE_ERRORS, write_dataset
    from product_vqa.atomic_io import replace_folder
    from product_vqa.schemas import save_schema

    urls = tables.urls()
    earlier, license = find_earlier_build(folder, schema=tables.schema), license_of(options)
    fingerprint = compute_fingerprint(
        tables, images, image_size=image_size, selection=selection, row_selection=row_selection,
        texts=texts.fingerprint(() if isinstance(images, ImageDir) else urls) if texts is not None else "",
    )  # fmt: skip

    with write_errors_explained(folder, also=WRITE_ERRORS), temporary_folder(folder) as temporary:
        if earlier and earlier.fingerprint == fingerprint and is_intact(folder, earlier):
            save_card(earlier, folder, location=location, license=license, schema=tables.schema)
            print(f"unchanged: {options.output_dir}")
        else:
            warn_of_removal(folder, is_read_again=texts is not None)
            cache = Path(datasets.config.HF_DATASETS_CACHE)
            check_build(tables, images, folder, image_size=image_size, cache=cache)
            store: StoredImages
            if isinstance(images, ImageDir):
                store = ImageStore(temporary / "images", image_size=image_size)
                import_images(store, urls, images, texts=texts)
            else:
                store = images

            # Filter and split.
            found, failures = store.find(urls)
            filtered, splits, unanswered = choose_rows(tables, found, failures, selection=selection)

            # Check for leakage.
            frame = splits.as_frame()
            leaks = find_leaks(frame)
            check_split(leaks)
            placeholders = find_placeholders(frame)
            del frame  # some hundred bytes per row, while the images are written

            # Write, with the card last.
            complete = temporary / "dataset"
            dataset_info = write_dataset(splits, store, filtered.dropped, complete)
            ocr = write_ocr_files(splits.images(), texts, complete) if texts is not None else {}
            save_schema(schema_with(tables.schema, unanswered), complete)
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
                unanswered=unanswered,
                ocr=ocr,
            )
            save_manifest(manifest, complete)
            save_card(manifest, complete, location=location, license=license, schema=tables.schema, earlier=folder)
            if folder.exists():
                check_own_files(folder)  # again: somebody may have put a file there
            replace_folder(complete, folder)

            for split, rows in splits.rows.items():
                print(f"{split}: {len(rows)} rows")
            for finding in (*leaks, *placeholders, *find_small_print(ocr)):
                print(finding)
            print(f"written: {options.output_dir}")


def push_build(folder: Path, location: str, options: BuildOptions) -> None:
    """Push the dataset if asked for."""
    from dataset_builder.push import push
    from product_vqa.hub import page_url

    if options.push_to_hub:
        commit = push(folder, location, private=options.hub_private_repo)
        print(f"pushed: {page_url(location, repo_type='dataset')} (commit {commit.oid})")


def is_merged(
    folder: Path,
    tables: "Tables",
    row_selection: "RowSelection",
    *,
    inputs: "Inputs",
    options: BuildOptions,
    location: str,
    selection: SelectionOptions,
    has_shards: Callable[[], bool],
) -> bool:
    """Whether this merge was run before and its shards are gone. Then the card is written and the dataset pushed."""
    from dataset_builder.dataset_card import license_of, save_card
    from dataset_builder.manifest import find_earlier_build, is_made_from
    from dataset_builder.output_folder import remove_temporary
    from dataset_builder.verification import is_intact

    earlier = find_earlier_build(folder, schema=tables.schema)
    if (
        earlier is None
        or not is_made_from(earlier, tables, row_selection, image_size=inputs.image_size, selection=selection)
        or not is_intact(folder, earlier)
        or has_shards()
    ):
        return False
    remove_temporary(folder)
    save_card(earlier, folder, location=location, license=license_of(options), schema=tables.schema)
    print(f"unchanged: {options.output_dir}")
    push_build(folder, location, options)
    return True


def has_shards(folder: Path, options: BuildOptions, location: str) -> bool:
    """Whether shards are waiting for a merge."""
    from dataset_builder.build_shards import SHARDS_FOLDER
    from dataset_builder.shards_branch import has_branch

    return has_branch(location) if options.push_to_hub else (folder / SHARDS_FOLDER).is_dir()


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
    from dataset_builder.shards_branch import download_shards, remove_branch

    if not options.push_to_hub:
        with argument("merge"):
            images = open_shards(folder, urls, count=count, inputs=inputs, where=str(folder))
        write(images)
        return
    source, merged = download_shards(location, count=count, inputs=inputs)
    with argument("merge"):
        images = open_shards(source, urls, count=count, inputs=inputs, where=location)
    write(images, remove_shards=partial(remove_branch, merged))


def build_on_ray(
    folder: Path,
    urls: list[str],
    *,
    source: BuildSourceOptions,
    inputs: "Inputs",
    options: BuildOptions,
    location: str,
    fetch_options: FetchOptions,
    is_merged_before: Callable[..., bool],
    write: Callable[..., None],
) -> None:
    """Have Ray's workers make the shards that are missing, and write the dataset from the images of all of them."""
    from dataset_builder.ray_build import build_shards, collect_shards, count_shards, find_target

    target = find_target(folder, source, options, location=location)
    if is_merged_before(has_shards=target.has_any):
        return
    count = count_shards(source, target, num_urls=len(urls))
    build_shards(source, target, urls, count=count, inputs=inputs, fetch_options=fetch_options)
    images, remove_shards = collect_shards(target, urls, count=count, inputs=inputs)
    write(images, remove_shards=remove_shards)


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
