"""Every command that reads: a folder of any name, and offline what was online once."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from dataset_builder import build, inspect
from inference import calibrate, evaluate, predict, report
from product_vqa.errors import InputError
from tests.commands import call
from tests.dataset_builder.files import Shop

pytestmark = pytest.mark.slow


def test_what_build_wrote_into_a_folder_of_such_a_name_every_command_reads(
    tmp_path: Path, adapter: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs [x] {1}").mkdir()
    shop = Shop(tmp_path / "runs [x] {1}")
    folder, output = shop.folder / "out *", shop.folder / "s#1.csv"
    call(build.main, monkeypatch, *shop.arguments(), "--validation_size", "0.25", "--output_dir", folder)
    call(inspect.main, monkeypatch, "--dataset", folder)
    assert "train and validation" in capsys.readouterr().out
    call(predict.main, monkeypatch, "--adapter", adapter[0], "--dataset", folder, "--split", "validation",
         "--output", output)  # fmt: skip
    call(evaluate.main, monkeypatch, "--predictions", output, "--references", f"{folder}:validation")
    call(report.main, monkeypatch, "--predictions", output, "--dataset", folder, "--output", shop.folder / "r.html")
    with pytest.raises(InputError, match="labelled rows, at least 20 are needed"):
        call(calibrate.main, monkeypatch, "--adapter", adapter[0], "--dataset", folder, "--split", "train",
             "--output_dir", tmp_path)  # fmt: skip


@pytest.mark.parametrize("revision", ["", "@main", "@v1", "@COMMIT"])
def test_all_that_read_a_dataset_and_an_adapter_read_offline_what_was_online(
    adapter: Any, tiny_repos: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], revision: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    names = {}
    for name, repo_type in ((adapter[0], "model"), (tiny_repos[1], "dataset")):
        HfApi().create_tag(name, tag="v1", repo_type=repo_type, exist_ok=True)
        sha = HfApi().repo_info(name, repo_type=repo_type).sha
        names[repo_type] = name + revision.replace("COMMIT", sha)
    outputs = []
    for run in ("online", "offline"):
        output = tmp_path / f"{run}.csv"
        call(predict.main, monkeypatch, "--adapter", names["model"], "--dataset", names["dataset"], "--split",
             "validation", "--output", output)  # fmt: skip
        call(evaluate.main, monkeypatch, "--predictions", output, "--references", f"{names['dataset']}:validation")
        call(report.main, monkeypatch, "--predictions", output, "--dataset", names["dataset"], "--output",
             tmp_path / f"{run}.html")  # fmt: skip
        if not revision:
            call(inspect.main, monkeypatch, "--dataset", names["dataset"])
            call(calibrate.main, monkeypatch, "--adapter", names["model"], "--dataset", names["dataset"], "--split",
                 "train", "--output_dir", tmp_path)  # fmt: skip
        outputs.append((output.read_text(), capsys.readouterr().out.replace(run, "")))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert outputs[0] == outputs[1]
