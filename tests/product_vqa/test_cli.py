import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from product_vqa.cli import parse_options, with_flags
from product_vqa.errors import InputError


@dataclass
class Options:
    name: str = field(metadata={"help": "A name."})
    count: int = 3
    rate: float = 0.5
    push: bool = False


def parse(*argv: str) -> Options:
    (options,) = parse_options(Options, description="Test.", argv=list(argv))
    return options


def test_the_command_line_wins_over_yaml_and_yaml_over_the_default(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: from yaml\ncount: 7\n")
    assert parse("--config", str(tmp_path / "c.yaml"), "--count", "9") == Options("from yaml", 9)
    assert parse(f"--config={tmp_path / 'c.yaml'}").count == 7


def test_yaml_values_are_checked_like_those_of_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("name: 123\nrate: 2e-4\npush: true\n")  # YAML reads 2e-4 as text
    assert parse("--config", str(file)) == Options("123", 3, 0.0002, True)
    for line, reason in (("count: 8.5", "count"), ("count: eight", "count"), ("push: perhaps", "push")):
        file.write_text(f"name: x\n{line}\n")
        with pytest.raises(InputError, match=reason):
            parse("--config", str(file))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nam", "x"], r"unknown option --nam \(did you mean --name\?\)"),
        (["--name", "x", "--count", "many"], "--count: invalid int value: 'many'"),
        ([], "required: --name"),
        (["--name", "x", "--config"], "--config needs a file"),
        (["--name", "x", "--config", "none.yaml"], "none.yaml: no such file"),
    ],
)
def test_wrong_options_are_named_in_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(*argv)


def test_a_misspelt_yaml_key_is_refused_with_the_file_and_the_nearest_key(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: x\ncuont: 3\n")
    with pytest.raises(InputError, match=r"c\.yaml: unknown key cuont \(did you mean --count\?\)"):
        parse("--config", str(tmp_path / "c.yaml"))


@pytest.mark.parametrize(("text", "message"), [("a: [", "is not YAML"), ("- a\n", "must hold `key: value` lines")])
def test_a_config_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        parse("--config", str(tmp_path / "c.yaml"))


def test_an_input_error_ends_a_command_with_one_line_and_code_2() -> None:
    program = (
        "from product_vqa.cli import run\n"
        "from product_vqa.errors import InputError\n"
        "def main(): raise InputError('no such thing')\n"
        "run(main)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: no such thing\n")


def test_an_argument_in_backticks_is_shown_as_the_flag_of_the_running_command() -> None:
    parse("--name", "x")
    assert with_flags("`name` must not be empty, see `unrelated`") == "--name must not be empty, see `unrelated`"


def test_an_interrupted_command_says_how_to_resume_and_ends_with_130() -> None:
    program = "from product_vqa.cli import run\ndef main(): raise KeyboardInterrupt\nrun(main)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted. Rerun the same command to resume.\n")


@pytest.mark.slow
def test_the_exit_code_of_main_is_that_of_the_command() -> None:
    for result, code in ((None, 0), (0, 0), (3, 3)):
        program = f"from product_vqa.cli import run\nrun(lambda: {result})"
        assert subprocess.run([sys.executable, "-c", program]).returncode == code
