import sys
from pathlib import Path

import pytest

from product_vqa.errors import InputError
from quickstart.steps import Steps


def test_each_step_is_printed_numbered_and_timed(capfd: pytest.CaptureFixture[str]) -> None:
    steps = Steps({"GREETING": "hello"})
    steps.run("first", "Say something", "python", "-c", "import os; print(os.environ['GREETING'])")
    steps.run("second", "Say a number", "python", "-c", "print(7)")
    assert capfd.readouterr().out == (
        "\n== 1. Say something\n$ python -c import os; print(os.environ['GREETING'])\nhello\n"
        "\n== 2. Say a number\n$ python -c print(7)\n7\n"
    )
    assert list(steps.seconds) == ["first", "second"]
    assert all(seconds >= 0 for seconds in steps.seconds.values())


def test_the_output_of_a_step_is_returned_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    output = Steps({}).output("python", "Name the interpreter", "python", "-c", "import sys; print(sys.executable)")
    # The environment that runs the quickstart, whatever is first on PATH; `python` or `python3` by name.
    assert Path(output.strip()).parent == Path(sys.executable).parent
    assert output not in capfd.readouterr().out


def test_a_step_that_fails_raises_with_its_name_and_exit_code() -> None:
    with pytest.raises(InputError, match="step 'broken' failed with exit code 3"):
        Steps({}).run("broken", "Fail", "python", "-c", "raise SystemExit(3)")
