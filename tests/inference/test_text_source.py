"""The texts of images: those that a dataset has, and those that an engine reads."""

from pathlib import Path

import pytest

from inference import text_source
from inference.text_source import load_source
from product_vqa.dataset import load_split
from product_vqa.errors import InputError
from product_vqa.hub import locate
from product_vqa.ocr.image_text import ImageText
from product_vqa.ocr.text_files import TextRow, write_texts
from tests.tiny import save_dataset


class Engine:
    description = "a test's engine"


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("is_installed", [True, False])
def test_an_engine_reads_what_the_dataset_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: bool, is_installed: bool
) -> None:
    folder = save_dataset(tmp_path / "dataset")
    (folder / "ocr").mkdir()
    location = locate(str(folder))
    rows = load_split(location, "test")
    file, text = folder / "ocr" / "test-00000-of-00001.parquet", ImageText(1, 1)
    links = rows["image_link"][:]
    write_texts(file, [TextRow(link, None, text) for link in links[4:]], engine="e")

    def load_engine() -> Engine:
        if not is_installed:
            raise InputError("not installed")
        return Engine()

    monkeypatch.setattr(text_source, "load_engine", load_engine)
    monkeypatch.setattr(text_source, "is_installed", lambda: is_installed)
    source = load_source(location, "test", rows=rows, reads=reads)
    assert source is not None and source.sha256 is not None
    assert source.num_missing == 3  # the third of four has no image
    described = {"ocr_texts": "e", "ocr_texts_sha256": source.sha256}
    if reads and is_installed:  # for images that have no texts
        described["ocr_engine"] = "a test's engine"
    assert source.describe() == described
    if not reads:
        assert load_source(location, "train", rows=rows, reads=False) is None
    elif is_installed:
        found = load_source(location, "train", rows=rows, reads=True)
        assert found is not None and found.describe() == {"ocr_engine": "a test's engine"}
    else:
        with pytest.raises(InputError, match="not installed"):
            load_source(location, "train", rows=rows, reads=True)

    # An engine that has nothing to read is not among what a run depends on.
    write_texts(file, [TextRow(link, None, text) for link in links], engine="e")
    complete = load_source(location, "test", rows=rows, reads=reads)
    assert complete is not None and complete.describe().keys() == {"ocr_texts", "ocr_texts_sha256"}
    few = load_source(location, "test", rows=rows.select(range(2)), reads=reads)
    assert few is not None and few.num_missing == 0
