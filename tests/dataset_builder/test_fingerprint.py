import os
import shutil
import subprocess
import sys

import pytest

from dataset_builder import fingerprint
from dataset_builder.csv_reader import read_tables
from dataset_builder.downloader import import_images
from dataset_builder.fingerprint import compute_fingerprint
from dataset_builder.image_dir import ImageDir
from dataset_builder.image_store import ImageStore
from dataset_builder.options import SelectionOptions, TableOptions
from tests.commands import ROOT
from tests.dataset_builder.files import Shop


def fingerprint_of(shop: Shop, images: ImageDir | ImageStore | None = None, *, image_size: int = 448) -> str:
    tables = read_tables(TableOptions(str(shop.train_csv)))
    return compute_fingerprint(
        tables, images or ImageDir(shop.image_dir), image_size=image_size, selection=SelectionOptions()
    )


@pytest.mark.slow
def test_a_comment_in_the_code_does_not_change_the_fingerprint_and_a_format_version_does(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a build of an earlier checkout counts as unchanged, or does not."""
    for package in ("dataset_builder", "product_vqa"):
        copied = shutil.copytree(ROOT / package, shop.folder / "checkout" / package)
        for file in copied.rglob("*.py"):
            file.write_text(f"{file.read_text()}\n# a comment\n")
    program = (
        "import sys\n"
        "from dataset_builder import ProductVqa\n"
        "print(ProductVqa(train_csv=sys.argv[1], image_dir=sys.argv[2]).config.fingerprint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, shop.train_csv, shop.image_dir],
        env=os.environ | {"PYTHONPATH": str(shop.folder / "checkout")},
        cwd=shop.folder / "checkout",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    before = fingerprint_of(shop)
    assert done.stdout.strip() == before
    monkeypatch.setattr(fingerprint, "FORMAT_VERSION", fingerprint.FORMAT_VERSION + 1)
    after = fingerprint_of(shop)
    monkeypatch.setattr(fingerprint, "library_version", lambda name: f"{name} of tomorrow")
    assert len({before, after, fingerprint_of(shop)}) == 3


def test_the_fingerprint_of_a_given_input_is_that_of_earlier_versions(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a rerun builds every existing dataset again: increase FORMAT_VERSION only for other rows."""
    monkeypatch.setattr(fingerprint, "library_version", lambda name: "1.0")
    monkeypatch.setattr(ImageDir, "fingerprint", lambda self, urls: "that of the folder")
    monkeypatch.setattr(ImageStore, "fingerprint", lambda self, urls: "that of the store")
    assert fingerprint_of(shop) == "0437a865b0698367"
    assert (
        fingerprint_of(shop, ImageStore(shop.folder / "store", image_size=224), image_size=224) == "5c5911cffce33578"
    )


def test_the_libraries_count_for_a_folder_and_not_for_a_store_whose_images_are_prepared_already(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ImageStore(shop.folder / "store")
    import_images(store, shop.train_urls, ImageDir(shop.image_dir))
    before = fingerprint_of(shop), fingerprint_of(shop, store)
    monkeypatch.setattr(fingerprint, "library_version", lambda name: f"{name} of tomorrow")
    assert fingerprint_of(shop) != before[0]
    assert fingerprint_of(shop, store) == before[1]
