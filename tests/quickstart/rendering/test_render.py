from pathlib import Path

import pytest

from product_vqa.errors import InputError
from quickstart.rendering.render import main


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
