"""Reading the shards of a build, which strangers may have written."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from dataset_builder.build_shards import shard_folder
from product_vqa.errors import InputError
from product_vqa.sharding import parse_shard


def replace(file: Path, content: bytes) -> None:
    """Replace a file of a shard as somebody would who also writes its digest."""
    file.write_bytes(content)
    manifest = file.with_name("shard.json")
    listed = json.loads(manifest.read_text())
    listed["files"][file.name] = hashlib.sha256(content).hexdigest()
    manifest.write_text(json.dumps(listed))


@pytest.mark.parametrize(
    "change",
    [
        {"more": "x"},
        {"width": "224"},
        {"width": True},
        {"phash": 2**63},
        {"num_bytes": 10**12},
        {"sha256": "../x"},
        {"sha256": "0" * 64},
        {"url": None},
        {"url": []},
        {"url": "http://example.com/another.jpg"},
        {"reason": "http_404"},
    ],
)
def test_a_hostile_image_is_one_line(run: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    output = tmp_path / "out"
    run(tmp_path / "a", output, "--shard", "1/1")
    states = shard_folder(output, parse_shard("1/1")) / "states.jsonl"
    first, *others = states.read_bytes().splitlines(keepends=True)
    replace(states, json.dumps(json.loads(first) | change).encode() + b"\n" + b"".join(others))
    check_refused(run, tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        b'{"url": "URL", "reason": "not_fetched"}',
        b'{"url": "URL", "reason": "broken: a\\u2028b"}',
        b'{"url": "URL", "reason": "broken: \\ud800"}',
        b'{"url": "URL", "reason": 404}',
        b'{"url": "URL"}',
        b'["URL", "http_404"]',
        b'{"url": "\xff", "reason": "http_404"}',
        b'{"url": "' + b"x" * 300_000 + b'", "reason": "http_404"}',
        b"[" * 10_000,
        b"",
    ],
    ids=[
        "not tried",
        "a line break",
        "no Unicode",
        "a number",
        "no outcome",
        "a list",
        "no UTF-8",
        "long",
        "deep",
        "empty",
    ],
)
def test_a_hostile_line_is_one_line(run: Any, tmp_path: Path, line: bytes) -> None:
    output = tmp_path / "out"
    run(tmp_path / "a", output, "--shard", "1/1")
    states = shard_folder(output, parse_shard("1/1")) / "states.jsonl"
    first, *others = states.read_bytes().splitlines(keepends=True)
    replace(states, line.replace(b"URL", json.loads(first)["url"].encode()) + b"\n" + b"".join(others))
    check_refused(run, tmp_path)


@pytest.mark.parametrize("change", ["garbled", "longer", "shorter", "removed", "another", "a pipe"])
def test_other_images_are_one_line(run: Any, tmp_path: Path, change: str) -> None:
    output = tmp_path / "out"
    run(tmp_path / "a", output, "--shard", "1/1")
    folder = shard_folder(output, parse_shard("1/1"))
    images = folder / "images-00000.bin"
    content = images.read_bytes()
    if change in ("removed", "a pipe"):
        images.unlink()
    elif change == "another":
        replace(folder / "images-00001.bin", content)
    else:
        garbled = content[:-1] + bytes([content[-1] ^ 1])
        replace(images, {"garbled": garbled, "longer": content + b"x", "shorter": content[:-1]}[change])
    if change == "a pipe":
        os.mkfifo(images)
    check_refused(run, tmp_path)


def check_refused(run: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--merge shard 1/1: .*; run it again") as raised:
        run(tmp_path / "c", tmp_path / "out", "--merge", 1)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out" / "data").exists() and not (tmp_path / ".out.building").exists()


def test_an_image_that_changes_while_shards_are_merged_ends_the_merge_in_one_line(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    run(tmp_path / "a", output, "--shard", "1/1")
    images = shard_folder(output, parse_shard("1/1")) / "images-00000.bin"

    def damage(*_: object) -> Any:
        images.write_bytes(bytes(images.stat().st_size))
        return []

    monkeypatch.setattr("dataset_builder.leakage.find_leaks", damage)  # after the images were checked
    with pytest.raises(InputError, match=r"^--merge shard 1/1: .*images-00000\.bin has changed while the command ran"):
        run(tmp_path / "c", output, "--merge", 1)
    assert not (output / "data").exists()
