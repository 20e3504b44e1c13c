"""Predictions in shards: merged, they are those of one machine, and what does not belong together is refused."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from inference import predict
from inference.prediction_shards import shard_file
from product_vqa.errors import InputError
from product_vqa.sharding import Shard
from tests.commands import ROOT, call

COUNT = 3


@pytest.fixture
def run(tiny_base: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run_predict(output: Path, *more: object) -> None:
        call(predict.main, monkeypatch, "--base_model", tiny_base, "--dataset", tiny_dataset, "--output", output,
             "--dtype", "float32", "--batch_size", 2, *more)  # fmt: skip

    return run_predict


@pytest.mark.slow
def test_merged_shards_are_the_predictions_of_one_machine(
    run: Any, adapter_folder: Path, tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    run(tmp_path / "one.csv", "--adapter", adapter_folder)
    together = tmp_path / "together"
    together.mkdir()
    for number in random.Random(0).sample(range(1, COUNT + 1), COUNT):
        own = tmp_path / f"machine-{number}" / "s.csv"
        own.parent.mkdir()
        run(own, "--shard", f"{number}/{COUNT}", "--adapter", adapter_folder)
        file = shard_file(own, Shard(number, COUNT))
        assert sorted(os.listdir(own.parent)) == [file.name]
        file.rename(together / file.name)
    # The merge must not import what takes ten times its own CPU time.
    code = (
        "import sys; from inference.predict import main; main(); "
        "print({'torch', 'transformers', 'peft', 'datasets'} & sys.modules.keys())"
    )
    options = {"adapter": adapter_folder, "base_model": tiny_base, "dataset": tiny_dataset, "merge": COUNT}
    arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    merge = [sys.executable, "-c", code, *arguments, "--output", str(together / "s.csv")]
    completed = subprocess.run(merge, cwd=ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.splitlines()[-1] == "set()"
    assert (together / "s.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    merged, one = (pq.read_table(file) for file in (together / "s.parquet", tmp_path / "one.parquet"))
    assert merged.equals(one)
    assert str(tmp_path) not in json.dumps(
        {key.decode(): value.decode() for key, value in merged.schema.metadata.items()}
    )


@pytest.mark.slow
def test_shards_meet_on_the_hub_and_anyone_may_repeat_one(
    run: Any, tiny_repos: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = ["--push_to_hub", "--hub_predictions_id", "local/predictions"]
    run(tmp_path / "one.csv")
    run(tmp_path / "a.csv", "--shard", "1/2", *hub)
    with pytest.raises(InputError, match=r"local/predictions lacks 1 of 2 shards \(2/2\): run the same command with"):
        run(tmp_path / "m.csv", "--merge", 2, *hub)
    run(tmp_path / "b.csv", "--shard", "2/2", *hub)
    run(tmp_path / "a.csv", "--shard", "1/2", *hub)
    assert f"unchanged: {shard_file(tmp_path / 'a.csv', Shard(1, 2))}" in capsys.readouterr().out
    # On an empty disk, a shard that the repo has is not predicted again; with other settings it is.
    run(tmp_path / "c.csv", "--shard", "1/2", *hub)
    assert "unchanged: shard 1/2 of local/predictions" in capsys.readouterr().out
    assert not shard_file(tmp_path / "c.csv", Shard(1, 2)).exists()
    run(tmp_path / "c.csv", "--shard", "1/2", "--min_confidence", 0.5, *hub)
    assert "unchanged" not in capsys.readouterr().out
    run(tmp_path / "d.csv", "--shard", "1/2", *hub)
    assert "unchanged" not in capsys.readouterr().out
    run(tmp_path / "m.csv", "--merge", 2, *hub)
    assert (tmp_path / "m.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    rows = load_dataset("local/predictions", split="test", cache_dir=str(tmp_path / "cache"))
    assert sorted(rows["index"]) == sorted(pd.read_csv(tmp_path / "one.csv")["index"])


@pytest.mark.slow
def test_a_repo_of_something_else_is_not_for_predictions(
    run: Any, tiny_repos: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"--hub_predictions_id local/tiny-dataset has .*, which is not a shard of these"
    ):
        run(tmp_path / "s.csv", "--shard", "1/1", "--push_to_hub", "--hub_predictions_id", "local/tiny-dataset")


@pytest.mark.slow
def test_what_does_not_belong_together_is_refused(run: Any, tiny_base: Path, tmp_path: Path) -> None:
    output = tmp_path / "s.csv"
    run(output, "--shard", "1/2")
    with pytest.raises(InputError, match=r"lacks 1 of 2 shards \(2/2\)"):
        run(output, "--merge", 2)
    run(output, "--shard", "2/2", "--min_confidence", 0.5)
    with pytest.raises(InputError, match=r"s-00001-of-00002.parquet: .*min_confidence: 0.0 -> 0.5"):
        run(output, "--merge", 2)
    run(output, "--shard", "2/2")
    with pytest.raises(InputError, match=r"min_confidence: 0.9 -> 0.0"):
        run(output, "--merge", 2, "--min_confidence", 0.9)
    file = shard_file(output, Shard(2, 2))
    pq.write_table(pq.read_table(file).slice(0, 3), file)
    with pytest.raises(InputError, match=r"s-00001-of-00002.parquet: is not as it was written; run this shard again"):
        run(output, "--merge", 2)
    run(output, "--shard", "2/2")
    with pytest.raises(InputError, match=r"row_selection: \{'max_rows': 3, 'seed': 0\} -> None"):
        run(output, "--merge", 2, "--max_rows", 3)
    with pytest.raises(InputError, match=r"s-00000-of-00002.parquet: .*base_model: another-base -> tiny-base"):
        run(output, "--merge", 2, "--base_model", shutil.copytree(tiny_base, tmp_path / "another-base"))
    run(output, "--merge", 2)
    output.unlink()
    other = shard_file(output, Shard(1, 2))
    kept = other.read_bytes()
    shutil.copy(file, other)
    with pytest.raises(InputError, match=r"s-00000-of-00002.parquet: is not as it was written; run this shard again"):
        run(output, "--merge", 2)
    other.write_bytes(kept)
    file.write_bytes(b"PAR1 and no more PAR1")
    with pytest.raises(InputError, match=r"s-00001-of-00002.parquet: .* run this shard again|predict again"):
        run(output, "--merge", 2)
    assert not output.exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard", "0/2"], "--shard '0/2' is not a shard"),
        (["--shard", "3/2"], "--shard '3/2' is not a shard: expected I/N"),
        (["--shard", "1/2", "--merge", "2"], "--shard and --merge are two steps"),
        (["--merge", "0"], "--merge must be between 1 and 9999"),
        (["--push_to_hub"], "--push_to_hub needs --hub_predictions_id"),
        (["--push_to_hub", "--hub_predictions_id", "a/b"], "--push_to_hub is for --shard and --merge"),
    ],
)
def test_wrong_options_are_named(run: Any, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path / "s.csv", *more)


def test_a_shard_needs_the_batch_size_that_all_shards_have(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="--shard needs --batch_size"):
        call(predict.main, monkeypatch, "--base_model", tiny_base, "--dataset", tiny_dataset, "--output",
             tmp_path / "s.csv", "--shard", "1/2")  # fmt: skip
