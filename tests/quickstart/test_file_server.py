import urllib.error
import urllib.request
from pathlib import Path

import pytest

from quickstart.file_server import serve_folder


def test_files_are_served_until_the_block_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.jpg").write_bytes(b"an image")
    with serve_folder(tmp_path) as url:
        assert urllib.request.urlopen(f"{url}/one.jpg").read() == b"an image"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/two.jpg")
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/one.jpg")
    assert capfd.readouterr() == ("", "")
