import json

import pytest

from benchmarks.results import print_result, stdout_to_stderr

RESULT = {"rows": 3, "rows_per_s": {"ours": 2.5, "theirs": 1.0}}


def test_a_result_is_printed_as_json_or_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(RESULT, as_json=True)
    assert json.loads(capsys.readouterr().out) == RESULT
    print_result(RESULT, as_json=False)
    assert capsys.readouterr().out.splitlines() == [f"{'rows':<28}3", f"{'rows_per_s':<28}ours 2.5, theirs 1.0"]


def test_what_libraries_print_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with stdout_to_stderr():
        print("loss 0.1")
    assert capsys.readouterr() == ("", "loss 0.1\n")
