"""Where shards meet: each target has what was put there, complete or not at all, and knows of which inputs it is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from dataset_builder.build_shards import Inputs, shard_folder
from dataset_builder.shard_targets import FolderTarget, HubTarget, ShardTarget, UrlTarget
from product_vqa.errors import InputError
from product_vqa.sharding import Shard, all_shards

INPUTS = Inputs(sources={"train_csv": "a"}, row_selection={}, image_size=448, libraries={}, format_version=2)
OTHER = replace(INPUTS, image_size=224)
KINDS = ["folder", "url", pytest.param("hub", marks=pytest.mark.slow)]


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> ShardTarget:
    """A target of the kind that the test names."""
    if request.param == "folder":
        return FolderTarget(tmp_path / "out")
    if request.param == "url":
        return UrlTarget((tmp_path / "bucket").as_uri() + "/build", downloads=tmp_path / "downloads")
    request.getfixturevalue("hub")
    HfApi().delete_repo("local/targets", repo_type="dataset", missing_ok=True)
    return HubTarget("local/targets", private=True)


def make_shard(folder: Path, shard: Shard, *, inputs: Inputs = INPUTS, images: int = 1) -> Path:
    """The files of a shard, with a digest that fits and content that does not matter here."""
    folder.mkdir()
    names = ["states.jsonl", *(f"images-{number:05d}.bin" for number in range(images))]
    for name in names:
        (folder / name).write_text(f"{shard} {inputs.image_size} {name}")
    content = {"shard": str(shard), "inputs": inputs.as_dict(), "images": "x", "files": dict.fromkeys(names, "0")}
    (folder / "shard.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_what_was_put_is_found_collected_and_removed(target: ShardTarget, tmp_path: Path) -> None:
    shards = all_shards(3)
    target.prepare()
    assert target.find(shards, inputs=INPUTS) == set()
    for shard in shards[:2]:
        target.put(make_shard(tmp_path / shard.suffix, shard), shard=shard)
    assert target.find(shards, inputs=INPUTS) == set(shards[:2])
    assert target.find(shards[1:], inputs=INPUTS) == {shards[1]}
    assert target.find(shards, inputs=OTHER) == set()
    assert target.has_any()
    if not isinstance(target, FolderTarget):  # there, `open_shards` looks
        with pytest.raises(InputError, match=r"lacks 1 of 3 shards \(3/3\)"):
            target.collect(3, inputs=INPUTS)
    target.put(make_shard(tmp_path / "third", shards[2]), shard=shards[2])
    collected = target.collect(3, inputs=INPUTS)
    for shard in shards:
        folder = shard_folder(collected.folder, shard)
        assert {file.name for file in folder.iterdir()} == {"shard.json", "states.jsonl", "images-00000.bin"}
        assert (folder / "images-00000.bin").read_text() == f"{shard} 448 images-00000.bin"
    collected.remove()
    if isinstance(target, FolderTarget):  # the dataset replaces the folder, and with it the shards
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []
    else:
        assert not target.has_any()


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_a_shard_of_other_inputs_is_replaced_and_a_damaged_one_discarded(target: ShardTarget, tmp_path: Path) -> None:
    shard = Shard(1, 1)
    target.prepare()
    target.put(make_shard(tmp_path / "old", shard, inputs=OTHER, images=3), shard=shard)
    target.put(make_shard(tmp_path / "new", shard), shard=shard)
    assert target.find([shard], inputs=INPUTS) == {shard}
    assert target.find([shard], inputs=OTHER) == set()
    folder = shard_folder(target.collect(1, inputs=INPUTS).folder, shard)
    assert (folder / "states.jsonl").read_text() == "1/1 448 states.jsonl"
    target.discard(shard)
    assert target.find([shard], inputs=INPUTS) == set()


@pytest.mark.parametrize("target", ["folder", "url"], indirect=True)
@pytest.mark.parametrize("lost", ["shard.json", "states.jsonl", "images-00000.bin"])
def test_a_shard_that_lacks_a_file_is_not_there(target: ShardTarget, lost: str, tmp_path: Path) -> None:
    shard = Shard(2, 2)
    target.prepare()
    target.put(make_shard(tmp_path / "new", shard), shard=shard)
    (file,) = tmp_path.glob(f"*/**/{shard.suffix}/{lost}")
    file.unlink()
    assert target.find([shard], inputs=INPUTS) == set()


def test_a_url_gets_the_manifest_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is killed at any file leaves no shard."""
    from fsspec.implementations.local import LocalFileSystem

    put_file, written = LocalFileSystem.put_file, []

    def record(self: LocalFileSystem, source: str, path: str, **options: object) -> None:
        written.append(Path(path).name)
        put_file(self, source, path, **options)

    monkeypatch.setattr(LocalFileSystem, "put_file", record)
    target = UrlTarget(tmp_path.as_uri(), downloads=tmp_path / "downloads")
    target.put(make_shard(tmp_path / "new", Shard(1, 1), images=2), shard=Shard(1, 1))
    assert written == ["images-00000.bin", "images-00001.bin", "states.jsonl", "shard.json"]


def test_a_folder_that_a_machine_does_not_see_is_named(tmp_path: Path) -> None:
    target = FolderTarget(tmp_path / "out")
    target.prepare()
    shutil.rmtree(tmp_path / ".out.incoming")
    with pytest.raises(InputError, match=r"`output_dir` .*out is not on this machine of the cluster"):
        target.put(make_shard(tmp_path / "new", Shard(1, 1)), shard=Shard(1, 1))


def test_what_killed_workers_left_is_removed(tmp_path: Path) -> None:
    target = FolderTarget(tmp_path / "out")
    (tmp_path / ".out.incoming" / "00000-of-00001-1234").mkdir(parents=True)
    target.prepare()
    assert not list((tmp_path / ".out.incoming").iterdir())


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuchprotocol://bucket/x", "`shards_url` nosuchprotocol://bucket/x: ValueError: Protocol not known"),
        ("file:///proc/nothing/x", "`shards_url` file:///proc/nothing/x: FileNotFoundError"),
    ],
)
def test_a_url_that_cannot_be_written_is_refused_before_the_work(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        UrlTarget(url, downloads=tmp_path).prepare()
