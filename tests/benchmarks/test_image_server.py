import io
import urllib.request
from pathlib import Path

from PIL import Image

from benchmarks.image_server import image_server, make_image


def test_an_image_depends_on_its_path_only() -> None:
    assert make_image("/1.jpg") == make_image("/1.jpg") != make_image("/2.jpg")
    with Image.open(io.BytesIO(make_image("/1.jpg", size=64))) as image:
        assert (image.format, image.size) == ("JPEG", (64, 64))


def test_every_path_is_an_image_of_its_own() -> None:
    with image_server() as url:
        assert urllib.request.urlopen(f"{url}/some/image.jpg").read() == make_image("/some/image.jpg")


def test_a_file_of_a_folder_has_many_urls(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"an image")
    with image_server(tmp_path) as url:
        assert urllib.request.urlopen(f"{url}/7/photo.jpg").read() == b"an image"
        assert urllib.request.urlopen(f"{url}/8/photo.jpg").read() == b"an image"
