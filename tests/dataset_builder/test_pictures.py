import contextlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataset_builder import pictures
from dataset_builder.pictures import ImageFolder, PictureError, check_picture
from product_vqa.command import InputError
from tests.dataset_builder.conftest import jpeg


def encode(image: Image.Image, format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_usual_formats_are_pictures(format: str, mode: str):
    check_picture(encode(Image.new(mode, (20, 10)), format))


BAD = [
    (b"", "not_a_picture"),
    (b"<!DOCTYPE html><title>Robot check</title>", "not_a_picture"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_a_picture"),  # Pillow would start Ghostscript
    (jpeg()[:-200], "image_unreadable: OSError: image file is truncated"),
    (jpeg()[:40], "image_unreadable: OSError: Truncated File Read"),
    (encode(Image.new("1", (9000, 9000)), "PNG"), "too_many_pixels: 9000x9000"),
]


@pytest.mark.parametrize(("data", "reason"), BAD, ids=[case[-1] for case in BAD])
def test_what_cannot_be_decoded_in_full_is_no_picture(data: bytes, reason: str):
    with pytest.raises(PictureError) as failure:
        check_picture(data)
    assert str(failure.value).startswith(reason)


def test_a_picture_of_too_many_bytes_is_refused(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    with pytest.raises(PictureError, match=r"^too_many_bytes"):
        check_picture(jpeg())


@given(place=st.integers(0, len(jpeg()) - 1), change=st.binary(min_size=1, max_size=20))
def test_a_damaged_picture_is_read_or_refused(place: int, change: bytes):
    data = bytearray(jpeg())
    data[place : place + len(change)] = change
    with contextlib.suppress(PictureError):
        check_picture(bytes(data))


def test_a_folder_gives_a_reason_for_each_picture_it_lacks(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b+c.jpg").write_bytes(jpeg()[:-200])
    (tmp_path / "d.jpg").mkdir()
    links = ["https://h/x/a.jpg?size=1", "https://h/b+c.jpg", "https://h/d.jpg", "https://h/..", "", "https://h/e.jpg"]
    failures = ImageFolder(tmp_path).failures(links)
    assert {link: reason.partition(":")[0] for link, reason in failures.items()} == {
        "https://h/b+c.jpg": "image_unreadable",
        "https://h/d.jpg": "image_unreadable",
        "https://h/..": "image_missing",
        "": "image_missing",
        "https://h/e.jpg": "image_missing",
    }
    assert ImageFolder(tmp_path).read(links[0]) == jpeg()


def test_two_links_that_end_in_one_name_are_refused(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"a\.jpg could be the picture of https://h/x/a\.jpg and of https://h/y/a\.jpg"
    ):
        ImageFolder(tmp_path).failures(["https://h/x/a.jpg", "https://h/y/a.jpg"])


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path):
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg())
    before = ImageFolder(tmp_path).fingerprint()
    assert ImageFolder(tmp_path).fingerprint() == before
    file.write_bytes(jpeg(1))
    assert ImageFolder(tmp_path).fingerprint() != before
