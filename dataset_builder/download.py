"""Downloads the images of the URLs in CSVs into a store. Rerun the same command to resume.

python -m dataset_builder.download --train_csv train.csv --test_csv test.csv --image_store store
"""

from dataclasses import dataclass, field
from functools import partial

from dataset_builder.options import FetchOptions, ImageOptions, TableOptions
from product_vqa.cli import parse_options, run
from product_vqa.errors import InputError
from product_vqa.sharding import ShardOptions


@dataclass
class DownloadOptions:
    image_store: str = field(metadata={"help": "Folder for the images and the outcome for every URL."})


def main() -> None:
    table_options, download_options, shard_options, image_options, fetch_options = parse_options(
        TableOptions, DownloadOptions, ShardOptions, ImageOptions, FetchOptions, description=__doc__
    )

    from dataset_builder.csv_reader import read_tables
    from dataset_builder.disk_space import check_download
    from dataset_builder.downloader import download
    from dataset_builder.image_store import FAILURES_FILE, ImageStore

    urls = read_tables(table_options).urls()
    if shard := shard_options.chosen:
        urls = [url for url in urls if shard.owns_url(url)]
        fetch_options = fetch_options.of_one_shard(shard.count)
    store = ImageStore(download_options.image_store, image_size=image_options.image_size)
    reasons = download(store, urls, fetch_options, check_space=partial(check_download, store))
    if urls and reasons.total() == len(urls):
        raise InputError(
            f"none of the {len(urls)} URLs gave an image; check the network and {store.folder}/{FAILURES_FILE}"
        )


if __name__ == "__main__":
    run(main)
