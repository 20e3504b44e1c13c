import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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


@dataclass
class Sources:
    model_name_or_path: str = "google/paligemma-3b-pt-224"
    model_revision: str | None = None
    dataset_name: str = "user/dataset"
    dataset_revision: str | None = None


@pytest.mark.parametrize(
    ("argv", "model_revision", "dataset_revision"),
    [
        ([], "bfloat16", "v1"),
        (["--model_name_or_path", "google/paligemma-3b-pt-224"], "bfloat16", "v1"),
        (["--model_name_or_path", "google/paligemma2-3b-pt-224"], None, "v1"),
        (["--model-name-or-path=base", "--dataset_name", "user/other"], None, None),
        (["--model_name_or_path", "base", "--model_revision", "v7"], "v7", "v1"),
    ],
)
def test_a_revision_in_yaml_is_that_of_the_repo_in_yaml(
    tmp_path: Path, argv: list[str], model_revision: str | None, dataset_revision: str | None
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "model_name_or_path: google/paligemma-3b-pt-224\nmodel_revision: bfloat16\ndataset_revision: v1\n"
        "dataset_name: user/dataset\n"
    )
    (sources,) = parse_options(Sources, description="Test.", argv=["--config", str(file), *argv])
    assert (sources.model_revision, sources.dataset_revision) == (model_revision, dataset_revision)


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


@dataclass
class Containers:
    names: list[str] = field(default_factory=list)
    tracker: None | str | list[str] = None  # noqa: RUF036  # as TrainingArguments writes it
    settings: dict[str, Any] | str | None = None
    level: Literal["low", "high"] = "low"
    limit: int | None = 5
    push: bool = False


def parse_containers(file: Path) -> Containers:
    (options,) = parse_options(Containers, description="Test.", argv=["--config", str(file)])
    return options


def test_yaml_values_may_be_lists_and_mappings_where_the_option_is_one(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "names: [a, 1]\ntracker: [x, y]\nsettings: {a: {b: 1}}\nlevel: high\nlimit: null\n"
    )
    assert parse_containers(tmp_path / "c.yaml") == Containers(["a", "1"], ["x", "y"], {"a": {"b": 1}}, "high", None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("limit: [1]", "limit: must be a single value, got a list"),
        ("limit: {a: 1}", "limit: must be a single value, got a mapping"),
        ("limit: 2024-01-01 10:00:00", "limit: invalid int value: '2024-01-01 10:00:00'"),
        ("limit: !!binary aGVsbG8=", "limit: must be text or a number, got bytes"),
        ("limit: !!python/object/apply:os.system [id]", "is not YAML: could not determine a constructor"),
        ("limit: 1.0", "limit: invalid int value: '1.0'"),
        ("names: [[a]]", "names: must be text or a number, got list"),
        ("tracker: [{a: 1}]", "tracker: must be text or a number, got dict"),
        ("level: medium", "level: invalid choice: 'medium'"),
        ("level: null", "level: has no value"),
        ("push: null", "push: has no value"),
        ("push: [true]", "push: must be a single value"),
        ("1: x", "unknown key 1"),
        ("null: x", "unknown key None"),
        ("[a]: x", "is not YAML: .*unhashable key"),
        ("limit: 1\nlimit: 2", "key limit is given twice; remove one"),
        ("limit: 1" + "0" * 5000, "a number of 5001 characters"),
        ("env: {HF_ENDPOINT: 'http://evil.example', LD_PRELOAD: /tmp/x.so}", "sets no environment variables"),
        ("no_push: true", "unknown key no_push"),
        ("help: true", "unknown key help"),
    ],
)  # fmt: skip
def test_a_wrong_yaml_value_is_one_line_with_the_file_and_the_key(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(line + "\n")
    before = dict(os.environ)
    with pytest.raises(InputError, match=message) as raised:
        parse_containers(file)
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)
    assert dict(os.environ) == before


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ALIASES.encode(), "with aliases expanded"),
        (f"{ALIASES}limit: *i\n".encode(), "with aliases expanded"),
        (b"limit: 1\n" * 20_000, "key limit is given twice"),
        ("".join(f"k{number}: 1\n" for number in range(20_000)).encode(), "unknown key k0, .* k9 and 19990 more;"),
        (b"limit: &a [*a]", "recursive"),
        (b"limit: " + b"[" * 5000, "nesting"),
        (b"\xff\xfe\x00limit", "is not UTF-8"),
        (b"limit: \x00", "is not YAML"),
        (b"", "must hold `key: value` lines, got NoneType"),
        (b"limit: 1\n---\nlimit: 2\n", "is not YAML"),
        (None, "No such file"),
    ],
)  # fmt: skip
def test_a_hostile_config_is_one_line_within_a_second(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "c.yaml"
    if content is None:
        file.symlink_to(tmp_path / "nowhere")
        message = "no such file"
    else:
        file.write_bytes(content)
    began = time.monotonic()
    with pytest.raises(InputError, match=message) as raised:
        parse_containers(file)
    assert time.monotonic() - began < 5
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)


def test_a_pipe_a_device_and_a_large_file_are_refused_as_configs_without_being_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(10 * 1024**3)
    for name, message in (("fifo", "is not a regular file"), ("large", "10737418240 bytes, more than 1000000"),
                          (".", "not a regular file|directory"), ("a\0b", "null")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            parse_containers(tmp_path / name)
    with pytest.raises(InputError, match="/dev/zero is not a regular file"):
        parse_containers(Path("/dev/zero"))


def test_two_configs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: x\n")
    with pytest.raises(InputError, match="--config is given 2 times"):
        parse("--config", str(tmp_path / "c.yaml"), f"--config={tmp_path / 'c.yaml'}")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_that_is_not_finite_is_refused(value: str) -> None:
    with pytest.raises(InputError, match=f"--rate: must be a finite number, got {value}"):
        parse("--name", "x", f"--rate={value}")


def test_a_file_of_arguments_next_to_the_script_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "script.args").write_text("--count 9\n")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py"), "--name", "x"])
    (options,) = parse_options(Options, description="Test.")
    assert options.count == 3


def run_program(program: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | environment
    )


@pytest.mark.slow
def test_errors_and_log_lines_hold_no_secret_and_control_no_terminal() -> None:
    program = (
        "import logging, os\n"
        "from product_vqa.cli import run\n"
        "from product_vqa.errors import InputError\n"
        "text = ' '.join([os.environ['HF_TOKEN'], os.environ['WANDB_API_KEY'], 'https://me:pass@hub.example/x'])\n"
        "text += ' \\x1b[2J\\u202e'\n"
        "def main():\n"
        "    logging.warning('log: %s', text)\n"
        "    raise InputError('error: ' + text)\n"
        "run(main)"
    )
    done = run_program(program, HF_TOKEN="hf_thetoken", WANDB_API_KEY="0123456789")
    line = "*** *** https://***@hub.example/x \\x1b[2J\\u202e"
    assert (done.returncode, done.stderr) == (2, f"log: {line}\nerror: error: {line}\n")


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
