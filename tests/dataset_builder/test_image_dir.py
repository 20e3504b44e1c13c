import os
import resource
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_builder.downloader import import_images
from dataset_builder.image_dir import ImageDir
from dataset_builder.image_store import ImageStore
from product_vqa.errors import InputError
from product_vqa.http.fetching import FetchError
from tests.dataset_builder.files import (
    jpeg,
)


def test_a_folder_gives_a_reason_for_each_image_it_lacks(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg())
    (folder / "b+c.jpg").write_bytes(jpeg()[:-200])
    (folder / "d.jpg").mkdir()
    os.mkfifo(folder / "f.jpg")  # which a reader would wait for, until the writer leaves
    threading.Thread(target=lambda: os.close(os.open(folder / "f.jpg", os.O_WRONLY)), daemon=True).start()
    with (folder / "g.jpg").open("wb") as sparse:
        sparse.truncate(10 * 2**30)
    (folder / "h.jpg").symlink_to("/dev/zero")
    (folder / "i.jpg").symlink_to("i.jpg")
    (folder / "j.jpg").symlink_to("/nowhere")
    (folder / "l.jpg").symlink_to("/proc/self/mem")
    (folder / "m.jpg").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "k.jpg"))
    urls = ["https://h/x/a.jpg?size=1", "https://h/b+c.jpg", "https://h/d.jpg", "https://h/..", "", "https://h/e.jpg"]
    urls += [f"https://h/{name}.jpg" for name in "fghijklm"] + ["https://h/\0.jpg", f"https://h/{'n' * 5000}.jpg"]
    assert ImageDir(folder).fingerprint(urls)
    store = ImageStore(tmp_path / "store")
    import_images(store, urls, ImageDir(folder))
    assert {url: reason.partition(":")[0] for url, reason in store.failures(urls).items()} == {
        "https://h/b+c.jpg": "image_unreadable",
        "https://h/d.jpg": "image_unreadable",
        "https://h/..": "image_missing",
        "": "image_missing",
        "https://h/e.jpg": "image_missing",
        "https://h/f.jpg": "image_unreadable",
        "https://h/g.jpg": "too_many_bytes",
        "https://h/h.jpg": "image_unreadable",
        "https://h/i.jpg": "image_unreadable",
        "https://h/j.jpg": "image_missing",
        "https://h/k.jpg": "image_unreadable",
        "https://h/l.jpg": "not_a_picture",
        "https://h/m.jpg": "not_a_picture",
        "https://h/\0.jpg": "image_unreadable",
        f"https://h/{'n' * 5000}.jpg": "image_unreadable",
    }
    assert store.read(urls[0]) == jpeg()


def test_an_image_is_not_dropped_because_too_many_files_are_open(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    images = ImageDir(tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(InputError, match=r"^`image_dir` .*/a\.jpg: Too many open files; .*, and rerun the same"):
            images.read("https://h/a.jpg")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert images.read("https://h/a.jpg").data == jpeg()


@given(url=st.one_of(st.text(max_size=40), st.text(max_size=40).map("https://h/".__add__)))
def test_no_url_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, url: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "empty"
    folder.mkdir(exist_ok=True)
    with pytest.raises(FetchError):
        ImageDir(folder).read(url)
    with pytest.raises(FetchError):
        ImageDir(folder).read(f"https://h/../..{folder}/../{url}")


def test_two_urls_that_end_in_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jpg could be the image of https://h/x/a\.jpg or of https://h/y/a\.jpg"):
        ImageDir(tmp_path).check_names(["https://h/x/a.jpg", "https://h/y/a.jpg"])


def test_a_changed_file_changes_the_fingerprint_if_it_is_used(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg())
    urls = ["https://h/a.jpg", "https://h/b.jpg"]
    before = ImageDir(tmp_path).fingerprint(urls)
    (tmp_path / "unused.jpg").write_bytes(jpeg())
    (tmp_path / "dangling.jpg").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert ImageDir(tmp_path).fingerprint(urls) == before
    file.write_bytes(jpeg(1))
    changed = ImageDir(tmp_path).fingerprint(urls)
    (tmp_path / "b.jpg").write_bytes(jpeg())
    assert len({before, changed, ImageDir(tmp_path).fingerprint(urls)}) == 3


def test_what_is_not_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, complaint in {
        "file": "is not a folder", "pipe": "is not a folder", "loop": "cannot be read (Too many levels",
        "dangling": "no such folder", "nothing": "no such folder", "a\0b": "cannot be read",
        "n" * 300: "cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(InputError) as refusal:
            ImageDir(tmp_path / name)
        assert str(refusal.value).startswith("`image_dir` ") and complaint in str(refusal.value), name
