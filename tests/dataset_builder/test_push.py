import hashlib
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, HfApi, constants
from huggingface_hub.hf_api import RepoFile

from dataset_builder import build
from dataset_builder.push import check_target, push
from local_hub import LocalHub
from product_vqa.errors import InputError
from product_vqa.hub import read_file
from tests.commands import call, run_module
from tests.dataset_builder.files import READ_ELSEWHERE, TRAIN_COLUMNS, Shop, card_data, run_elsewhere, write_csv

pytestmark = pytest.mark.slow

READER_TOKEN = "hf_of_the_reader"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub"), reader_token=READER_TOKEN) as hub:
        yield hub


def push_arguments(shop: Shop, repo_id: str) -> list[str]:
    output_dir = str(shop.folder / "out")
    return [*shop.arguments(), "--output_dir", output_dir, "--push_to_hub", "--hub_dataset_id", repo_id]


def published(hub: LocalHub, repo_id: str) -> tuple[bool | None, str | None, list[str]]:
    info = HfApi(endpoint=hub.endpoint, token=hub.token).dataset_info(repo_id)
    return info.private, info.sha, sorted(file.rfilename for file in info.siblings or [])


def test_a_pushed_dataset_is_private_and_read_by_everyone_who_may(
    shop: Shop, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*push_arguments(shop, "local/products"), "--validation_size", "0.25"]
    first = run_module("dataset_builder.build", *arguments, environment=hub.environment)
    private, commit, files = published(hub, "local/products")
    assert private
    assert first.stdout.splitlines()[-1] == f"pushed: {hub.endpoint}/datasets/local/products (commit {commit})"
    assert [file for file in files if file != ".gitattributes"] == [
        "README.md",
        "build.json",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "data/validation-00000-of-00001.parquet",
        "left_out.csv",
        "rows/test.parquet",
        "rows/train.parquet",
        "rows/validation.parquet",
    ]
    *splits, _ = run_elsewhere(
        READ_ELSEWHERE, "local/products", cwd=shop.folder, env=hub.environment | {"HF_HUB_OFFLINE": "0"}
    )
    assert splits[0::2] == splits[1::2]
    assert splits[-1].startswith("test|7:(48, 32):|3:")

    point_at(hub, monkeypatch)
    call(build.main, monkeypatch, *push_arguments(shop, "products"), "--validation_size", "0.25")  # local/ is added
    assert published(hub, "local/products")[1] == commit

    call(build.main, monkeypatch, *push_arguments(shop, "local/products"), "--validation_size", "0")
    _, new_commit, files = published(hub, "local/products")
    assert new_commit != commit
    assert "data/validation-00000-of-00001.parquet" not in files


def test_a_public_repo_is_made_only_when_asked(shop: Shop, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(hub, monkeypatch)
    call(build.main, monkeypatch, *push_arguments(shop, "local/everyone"), "--hub_private_repo", "false")
    assert published(hub, "local/everyone")[0] is False


REFUSED = [
    ("a/b/c", {}, "neither a folder nor a repo id like user/name"),
    ("somebody/products", {}, "cannot write to somebody"),
    ("local/products", {"HF_TOKEN": "hf_wrong"}, "the Hub refused the token"),
    ("local/products", {"HF_TOKEN": ""}, "no token with write access"),
    ("reader/products", {"HF_TOKEN": READER_TOKEN}, "the token can only read; create one that can write"),
    ("local/products", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "no Hub answers at http://127.0.0.1:9"),
]


@pytest.mark.parametrize(("repo_id", "environment", "complaint"), REFUSED, ids=[case[-1] for case in REFUSED])
def test_a_push_that_cannot_succeed_ends_before_anything_is_built(
    shop: Shop,
    hub: LocalHub,
    monkeypatch: pytest.MonkeyPatch,
    repo_id: str,
    environment: dict[str, str],
    complaint: str,
) -> None:
    point_at(hub, monkeypatch, **environment)
    write_csv(shop.train_csv, TRAIN_COLUMNS, [])  # not even looked at
    with pytest.raises(InputError) as refusal:
        call(build.main, monkeypatch, *push_arguments(shop, repo_id))
    assert str(refusal.value).startswith(f"--hub_dataset_id {repo_id}")
    assert complaint in str(refusal.value)
    assert not (shop.folder / "out").exists()


@pytest.mark.parametrize("is_private", [True, False])
def test_a_repo_of_the_other_kind_is_refused(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, is_private: bool) -> None:
    point_at(hub, monkeypatch)
    repo_id = f"local/kind{is_private}"
    HfApi(endpoint=hub.endpoint, token=hub.token).create_repo(repo_id, repo_type="dataset", private=is_private)
    assert check_target(repo_id, private=is_private) == repo_id
    with pytest.raises(InputError, match=f"exists already and is {'private' if is_private else 'public'}"):
        check_target(repo_id, private=not is_private)


def test_a_second_push_keeps_what_was_edited_by_hand_in_the_card(
    shop: Shop, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_at(hub, monkeypatch)
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    arguments = push_arguments(shop, "local/edited")

    def card() -> str:
        return read_file("local/edited", "README.md", repo_type="dataset", revision="main").decode()

    call(build.main, monkeypatch, *arguments, "--validation_size", "0")
    edits = {
        "- paligemma\n": "- paligemma\n- my-own-tag\n",
        "license: other\n": "license: cc-by-4.0\n",
        "\n## Columns": "\nMy own sentence.\n\n## Columns",
        "| `group_id` | a code": "| `group_id` | my own words: a code",
    }
    edited = card()
    for old, new in edits.items():
        assert edited.count(old) == 1
        edited = edited.replace(old, new)
    edited += "\n## My own section\n\nText.\n"
    commit = api.upload_file(
        repo_id="local/edited", repo_type="dataset", path_in_repo="README.md", path_or_fileobj=edited.encode()
    ).oid
    call(build.main, monkeypatch, *arguments, "--validation_size", "0")
    assert published(hub, "local/edited")[1] == commit, "an unchanged build makes no commit"

    # Rows, splits and the license that is asked for change: edited parts stay, the others are updated.
    call(build.main, monkeypatch, *arguments, "--validation_size", "0.25", "--license", "mit")
    assert card() != edited
    for own in (*edits.values(), "\n## My own section\n\nText.\n"):
        assert card().count(own) == 1, own
    assert "| entity_name | train | validation | test |" in card()
    assert [one["split"] for one in card_data(shop.folder / "out")["configs"][0]["data_files"]] == [
        "train", "validation", "test",
    ]  # fmt: skip
    assert "path: data/validation-*" in card() and "name: validation" in card()
    assert DatasetCard(card()).data.to_dict()["license"] == "cc-by-4.0"


def test_data_that_no_build_wrote_is_neither_replaced_nor_removed(
    shop: Shop, hub: LocalHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    point_at(hub, monkeypatch)
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    arguments = push_arguments(shop, "local/own")

    def upload(name: str, content: bytes = b"mine") -> str | None:
        done = api.upload_file(repo_id="local/own", repo_type="dataset", path_in_repo=name, path_or_fileobj=content)
        return done.oid

    api.create_repo("local/own", repo_type="dataset", private=True)
    commit = upload("data/train-00000-of-00001.parquet")  # as `push_to_hub` of `datasets` names it
    message = "^--hub_dataset_id local/own contains data that no build wrote, like data/train-00000-of-00001.parquet"
    with pytest.raises(InputError, match=message):
        call(build.main, monkeypatch, *arguments)
    assert published(hub, "local/own")[1] == commit and not (shop.folder / "out").exists()

    api.delete_file("data/train-00000-of-00001.parquet", "local/own", repo_type="dataset")
    own = ["data/notes.txt", "data/train-extra.parquet", "notes.md", "rows/mine.parquet"]
    for name in own:
        upload(name)
    for validation_size in ("0.25", "0"):
        call(build.main, monkeypatch, *arguments, "--validation_size", validation_size)
        files = published(hub, "local/own")[2]
        assert set(own) < set(files)
        assert ("data/validation-00000-of-00001.parquet" in files) is (validation_size == "0.25")
    assert "local/own: data/train-extra.parquet is not of a build. It is kept" in caplog.text


def test_the_folders_own_card_may_be_edited_too(shop: Shop, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(hub, monkeypatch)
    arguments, file = push_arguments(shop, "local/edited-here"), shop.folder / "out" / "README.md"
    call(build.main, monkeypatch, *arguments, "--validation_size", "0")
    edited = file.read_text().replace("license: other\n", "license: cc-by-4.0\n") + "\nMine.\n"
    file.write_text(edited)
    for validation_size in ("0", "0.25"):  # the same again, and another
        call(build.main, monkeypatch, *arguments, "--validation_size", validation_size)
        pushed = read_file("local/edited-here", "README.md", repo_type="dataset", revision="main").decode()
        for text in (file.read_text(), pushed):
            assert text.endswith("\nMine.\n") and DatasetCard(text).data.to_dict()["license"] == "cc-by-4.0"
        assert (file.read_text() == edited) is (validation_size == "0")


def point_at(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    """As if the environment had been so when huggingface_hub was imported."""
    environment = hub.environment | environment
    monkeypatch.setenv("HF_TOKEN", environment["HF_TOKEN"])
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "nowhere")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", environment["HF_ENDPOINT"])


def made_folder(folder: Path, *, num_shards: int) -> Path:
    """Files as a build writes them, but of random bytes: what is in a shard makes no difference to a push."""
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: other\n---\n# Made\n")
    for number in range(num_shards):
        shard = random.Random(number).randbytes(400_000)
        (folder / "data" / f"train-{number:05d}-of-{num_shards:05d}.parquet").write_bytes(shard)
    return folder


def large_files(hub_folder: Path) -> dict[str, int]:
    """sha256 -> inode of each large file that a Hub holds: another inode if it was sent again."""
    return {file.name: file.stat().st_ino for file in hub_folder.rglob("*") if re.fullmatch("[0-9a-f]{64}", file.name)}


def test_a_push_that_was_killed_sends_only_what_is_missing_and_ends_in_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made_folder(tmp_path / "out", num_shards=30)
    program = (
        "import sys; from pathlib import Path; from dataset_builder.push import push\n"
        "push(Path(sys.argv[1]), 'local/cut', private=True)\n"
    )
    with LocalHub(tmp_path / "hub") as hub:
        process = subprocess.Popen(
            [sys.executable, "-c", program, folder], env=os.environ | hub.environment, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while len(large_files(tmp_path / "hub")) < 5 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.wait(timeout=30)
        arrived = large_files(tmp_path / "hub")
        assert 5 <= len(arrived) < 30
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        commits = api.list_repo_commits("local/cut", repo_type="dataset")
        assert all(not file.startswith("data/") for file in published(hub, "local/cut")[2])  # none shows half of it

        point_at(hub, monkeypatch)
        commit = push(folder, "local/cut", private=True).oid
        sent = large_files(tmp_path / "hub")
        assert sent.items() > arrived.items()
        assert len(sent) == 30
        assert len(api.list_repo_commits("local/cut", repo_type="dataset")) == len(commits) + 1
        files = api.list_repo_tree("local/cut", path_in_repo="data", repo_type="dataset", revision=commit)
        pushed = [file for file in files if isinstance(file, RepoFile)]
        assert {file.path: file.lfs and file.lfs.sha256 for file in pushed} == {
            f"data/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in (folder / "data").iterdir()
        }
        assert push(folder, "local/cut", private=True).oid == commit
