"""The branch on which shards meet. What is read from it is in test_build_shards.py."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from dataset_builder.shards_branch import BRANCH, has_branch, push_shard, remove_branch
from product_vqa.hub import locate
from product_vqa.sharding import parse_shard


@pytest.mark.slow
def test_eight_machines_that_push_at_once_lose_nothing(hub: object, tmp_path: Path) -> None:
    for number in range(1, 9):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "shard.json").write_text(f'{{"shard": "{number}/8"}}')
        (folder / "states.jsonl").write_bytes(random.Random(number).randbytes(300_000))

    def push(number: int) -> None:
        push_shard(tmp_path / str(number), "local/at-once", shard=parse_shard(f"{number}/8"), private=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(push, range(1, 9)))
    names = HfApi().list_repo_files("local/at-once", repo_type="dataset", revision="shards")
    assert len([name for name in names if name.startswith("shards/")]) == 16


@pytest.mark.slow
def test_a_branch_with_newer_shards_is_kept(hub: object, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "shard.json").write_text("{}")
    assert not has_branch("local/newer")
    push_shard(tmp_path, "local/newer", shard=parse_shard("1/2"), private=True)
    merged = locate("local/newer", repo_type="dataset", revision=BRANCH)
    push_shard(tmp_path, "local/newer", shard=parse_shard("2/2"), private=True)
    remove_branch(merged)
    assert has_branch("local/newer") and "has newer shards, and is kept" in caplog.text
    remove_branch(locate("local/newer", repo_type="dataset", revision=BRANCH))
    assert not has_branch("local/newer")
