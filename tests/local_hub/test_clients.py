"""The unmodified clients push to the hub and pull from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, HfFileSystem

from local_hub import LocalHub


def test_a_folder_is_downloaded_as_it_was_uploaded(api: HfApi, repo: str, tmp_path: Path) -> None:
    contents = {
        "config.json": b"{}",
        "a/b/odd é #?%.txt": b"odd",
        "empty.txt": b"",
        "model.safetensors": os.urandom(3_000_000),
        "big.txt": b"x" * 10_000_001,
    }
    for path, content in contents.items():
        (tmp_path / "uploaded" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "uploaded" / path).write_bytes(content)
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "uploaded")
    downloaded = Path(api.snapshot_download(repo, local_dir=tmp_path / "downloaded", cache_dir=tmp_path / "cache"))
    assert {path: (downloaded / path).read_bytes() for path in contents} == contents
    lfs_files = {file.path for file in api.list_repo_tree(repo, recursive=True) if getattr(file, "lfs", None)}
    assert lfs_files == {"model.safetensors", "big.txt"}


@pytest.mark.slow
def test_a_dataset_is_pushed_and_loaded_by_the_datasets_library(hub: LocalHub, tmp_path: Path) -> None:
    script = """
import datasets
from PIL import Image
datasets.config.USE_PARQUET_EXPORT = False
rows = {"image": [Image.new("RGB", (8, 6), (i, 0, 0)) for i in range(20)], "text": [f"t{i}" for i in range(20)]}
features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
dataset = datasets.Dataset.from_dict(rows, features=features)
splits = datasets.DatasetDict({"train": dataset, "test": dataset.select(range(5))})
splits.push_to_hub("local/images", num_shards={"train": 2, "test": 1})
loaded = datasets.load_dataset("local/images")
assert {name: len(split) for name, split in loaded.items()} == {"train": 20, "test": 5}, loaded
assert loaded["train"][3]["image"].size == (8, 6) and loaded["train"][3]["text"] == "t3"
assert len(list(datasets.load_dataset("local/images", split="train", streaming=True))) == 20
print("loaded")
"""
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | hub.environment | {"HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip().endswith("loaded"), done.stderr


def test_a_seek_in_a_remote_file_reads_the_right_bytes(api: HfApi, hub: LocalHub, repo: str) -> None:
    content = os.urandom(2_000_000)
    api.upload_file(repo_id=repo, path_in_repo="x.bin", path_or_fileobj=content)
    with HfFileSystem(endpoint=hub.endpoint, token=hub.token).open(f"{repo}/x.bin", block_size=1000) as file:
        file.seek(1_234_567)
        assert file.read(100) == content[1_234_567:1_234_667]
