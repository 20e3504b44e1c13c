from pathlib import Path

import pytest

from product_vqa.errors import InputError
from quickstart.rendering.render import main
from tests.commands import ROOT
from tests.example_schemas import FOLDER


def test_the_command_writes_the_files_and_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--output_dir", str(tmp_path / "out"), "--train_rows", "6", "--test_rows", "4"]
    main([*options, "--seed", "3", "--level", "hard"])
    assert capsys.readouterr() == ("", "")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "images",
        "train.csv",
        "test.csv",
        "test_answers.csv",
    }
    with pytest.raises(InputError, match="plain, standard, hard"):
        main([*options, "--level", "easy"])


def test_a_schema_decides_what_is_printed(tmp_path: Path) -> None:
    def write(name: str, *options: str) -> str:
        main(["--output_dir", str(tmp_path / name), "--train_rows", "6", "--test_rows", "4", *options])
        return (tmp_path / name / "train.csv").read_text()

    assert "model_number" in write("long", "--schema", str(FOLDER / "electronics.yaml"))
    wide = write("wide", "--schema", str(FOLDER / "electronics.yaml"), "--wide")
    assert wide.startswith("image_link,group_id,memory,storage,")
    challenge = str(ROOT / "product_vqa" / "task" / "challenge.yaml")
    assert write("challenge", "--schema", challenge) == write("default")
    assert write("wide_challenge", "--wide").startswith("image_link,group_id,width,depth,")


def test_a_schema_that_cannot_be_printed_is_refused_with_its_argument(tmp_path: Path) -> None:
    file = tmp_path / "schema.yaml"
    file.write_text("version: 1\nattributes: {größe: {kind: integer}}")
    options = ["--output_dir", str(tmp_path / "out"), "--schema", str(file)]
    with pytest.raises(InputError, match=r"^`schema` attribute größe: the fonts of rendered labels lack characters"):
        main(options)
    file.write_text("version: 2")
    with pytest.raises(InputError, match=r"^`schema` .*schema\.yaml, line 1"):
        main(options)
