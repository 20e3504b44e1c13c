"""Links in CSVs -> image store. Start it again to continue where it was.

python -m dataset_builder.download --train_csv train.csv --test_csv test.csv --image_store store
"""

from dataclasses import dataclass, field
from functools import partial

from dataset_builder.options import FetchOptions, PictureOptions, TableOptions
from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError


@dataclass
class DownloadOptions:
    image_store: str = field(metadata={"help": "folder for the pictures and the state of every link"})


def main() -> None:
    table_options, download_options, picture_options, fetch_options = parse_options(
        TableOptions, DownloadOptions, PictureOptions, FetchOptions, description=__doc__
    )

    from dataset_builder.csv_reader import links_of, read_tables
    from dataset_builder.disk_space import check_download
    from dataset_builder.downloader import fill
    from dataset_builder.image_store import ImageStore

    links = links_of(*read_tables(table_options))
    store = ImageStore(download_options.image_store, image_size=picture_options.image_size)
    reasons = fill(store, links, fetch_options, check_space=partial(check_download, store))
    if reasons.total() == len(links):
        raise InputError(
            f"none of the {len(links)} links gave a picture; check the network and {store.folder}/failed.csv"
        )


if __name__ == "__main__":
    run(main)
