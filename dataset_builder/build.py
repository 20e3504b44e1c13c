"""CSVs and pictures -> a dataset folder and, with --push_to_hub, a dataset repo on the Hub.

python -m dataset_builder.build --train_csv train.csv --test_csv test.csv --image_dir images --output_dir dataset
"""

import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dataset_builder.options import FetchOptions, PictureOptions, TableOptions
from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError


@dataclass
class BuildOptions:
    output_dir: str = field(metadata={"help": "folder to make, or an earlier build to replace"})
    image_dir: str | None = field(
        default=None, metadata={"help": "folder of pictures, each named as the last part of its link"}
    )
    image_store: str | None = field(
        default=None, metadata={"help": "folder of fetched pictures; what it lacks is fetched first"}
    )
    download: bool = field(
        default=True, metadata={"help": "false: fetch nothing, and leave out what --image_store lacks"}
    )
    ranges: str = field(
        default="leave_out",
        metadata={"help": "a label like `[100.0, 240.0] volt`: leave_out its row, or read its first or last number"},
    )
    validation_size: float = field(default=0.05, metadata={"help": "share of the labelled rows to hold out; 0: none"})
    seed: int = field(default=0, metadata={"help": "which rows are held out"})
    push_to_hub: bool = field(default=False, metadata={"help": "publish the folder as --hub_dataset_id"})
    hub_dataset_id: str | None = field(default=None, metadata={"help": "user/name of the dataset repo"})
    hub_private_repo: bool = field(default=True, metadata={"help": "false: let everyone see the repo"})
    license: str | None = field(
        default=None,
        metadata={"help": "licence of the images, for the card: an id like cc-by-4.0 or mit; other: see license_name"},
    )
    license_name: str | None = field(default=None, metadata={"help": "with --license other: what it is called"})

    def __post_init__(self) -> None:
        if (self.image_dir is None) == (self.image_store is None):
            raise InputError("where are the pictures? give --image_dir FOLDER or --image_store FOLDER, one of the two")
        if self.push_to_hub and not self.hub_dataset_id:
            raise InputError("--push_to_hub needs to know where: --hub_dataset_id user/name")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise InputError(
                f"--license {self.license} is not an id of the Hub's list of licences: small letters, digits and - . "
                "+, like cc-by-4.0; other, with --license_name, is for one that has none"
            )
        if (self.license == "other") != bool(self.license_name):
            raise InputError("--license other and --license_name NAME go together")


def main() -> None:
    table_options, options, picture_options, fetch_options = parse_options(
        TableOptions, BuildOptions, PictureOptions, FetchOptions, description=__doc__
    )

    from dataset_builder.builder import ProductVqa
    from dataset_builder.csv_reader import links_of, read_tables
    from dataset_builder.dataset_card import License, save_card
    from dataset_builder.disk_space import check_build, check_download
    from dataset_builder.downloader import fill
    from dataset_builder.image_store import ImageStore
    from dataset_builder.leakage import Leak
    from dataset_builder.placeholders import Placeholder
    from dataset_builder.push import check_target, push
    from dataset_builder.writer import check_output, temporary_beside, write_dataset
    from product_vqa.atomic_io import replace_folder
    from product_vqa.hub import page_url

    folder = Path(options.output_dir).resolve()
    licence = License(options.license, options.license_name) if options.license else None
    earlier = check_output(folder)
    repo_id = options.hub_dataset_id
    if options.push_to_hub:
        repo_id = check_target(repo_id, private=options.hub_private_repo)
    if options.image_store:
        store = ImageStore(options.image_store, image_size=picture_options.image_size)
        if options.download:
            tables = read_tables(table_options)
            num_rows = sum(len(table.rows) for table in tables if table)
            check = partial(check_download, store, num_rows=num_rows, output_dir=folder)
            fill(store, links_of(*tables), fetch_options, check_space=check)
            del tables

    with temporary_beside(folder) as temporary:
        builder = ProductVqa(
            train_csv=table_options.train_csv,
            test_csv=table_options.test_csv,
            image_dir=options.image_dir,
            image_store=options.image_store,
            image_size=picture_options.image_size,
            ranges=options.ranges,
            validation_size=options.validation_size,
            seed=options.seed,
            cache_dir=temporary / "cache",
        )
        if earlier and earlier.fingerprint == builder.config.fingerprint:
            print(f"unchanged: {options.output_dir}")
            save_card(earlier, folder, location=repo_id or folder.name, license=licence)
        else:
            check_build(builder.config, folder)
            record = write_dataset(builder, temporary / "dataset")
            save_card(record, temporary / "dataset", location=repo_id or folder.name, license=licence, earlier=folder)
            replace_folder(temporary / "dataset", folder)
            for split, counts in record.rows.items():
                print(f"{split}: {sum(counts.values())} rows")
            for leak in record.leaks:
                print(Leak(**leak))
            for placeholder in record.placeholders:
                print(Placeholder(**placeholder))
            print(f"written: {options.output_dir}")

    if options.push_to_hub:
        commit = push(folder, repo_id, private=options.hub_private_repo)
        print(f"pushed: {page_url(repo_id, repo_type='dataset')} (commit {commit.oid})")


if __name__ == "__main__":
    run(main)
