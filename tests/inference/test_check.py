"""check: each kind of problem is found with its index, and the official checker's verdicts are ours."""

import json
import re
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import check
from inference.check import check_answer, check_prediction
from product_vqa.errors import InputError
from product_vqa.modeling.constrained_decoding import number_pattern
from product_vqa.task.schema_file import parse_schema
from tests.commands import call, run_here, run_module
from tests.inference.challenge import check_submission
from tests.inference.schemas import SCHEMAS, TEXTS

TEST_CSV = """index,image_link,group_id,entity_name
0,http://x/a.jpg,1,width
5,http://x/a.jpg,1,item_weight
6,http://x/b.jpg,1,voltage
9,http://x/c.jpg,1,item_volume
"""


@pytest.fixture
def test_csv(tmp_path: Path) -> Path:
    file = tmp_path / "test.csv"
    file.write_text(TEST_CSV)
    return file


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "submission.csv"
    file.write_text(text)
    return file


@pytest.mark.parametrize("text", ["5" + " " * 200_000 + "!", "5" * 200_000 + "!", "5 " + "a " * 100_000 + "!"])
def test_a_long_prediction_is_refused_at_once(text: str) -> None:
    started = time.process_time()
    problem = check_prediction(text)
    assert problem is not None and problem[0] == "format"
    assert time.process_time() - started < 2  # minutes, if each space is tried as the last one


def test_a_submission_with_every_index_is_accepted(tmp_path: Path, test_csv: Path) -> None:
    submission = write(tmp_path, "index,prediction\n0,12.5 centimetre\n5,\n6,230 volt\n9,2 cubic feet\n")
    for official in (False, True):
        verdict = check_submission(submission, test_csv, official=official)
        assert verdict.ok
        assert (verdict.rows, verdict.answered, verdict.empty, verdict.problems) == (4, 3, 1, [])


@pytest.mark.parametrize(
    ("rows", "index", "kind", "official"),
    [
        ("0,2 gms\n5,\n6,\n9,", 0, "unit", True),
        ("0,60 ounce/1.7 kilogram\n5,\n6,\n9,", 0, "format", True),
        ("0,\n5,2.2e2 kilogram\n6,\n9,", 5, "format", True),
        ("0,12\n5,\n6,\n9,", 0, "format", True),
        ("0,5 gram\n5,\n6,\n9,", 0, "unit_unsuitable", False),
        ("0,\n5,1 fluid ounce\n6,\n9,", 5, "unit_unsuitable", False),
        ("0,\n5,\n9,", 6, "missing_index", False),
        ("0,\n5,\n6,\n9,\n10,", 10, "extra_index", False),
        ("0,\n5,\n6,\n9,\nten,", None, "extra_index", False),
        ("0,\n5,\n6,\n9,\n,", None, "extra_index", False),
        ("0,\n5,\n6,\n9,\n9,1 litre", 9, "repeated_index", False),
    ],
)
def test_each_kind_of_problem_is_found_with_its_index(
    tmp_path: Path, test_csv: Path, rows: str, index: int | None, kind: str, official: bool
) -> None:
    submission = write(tmp_path, f"index,prediction\n{rows}\n")
    (problem,) = check_submission(submission, test_csv).problems
    assert (problem.index, problem.kind) == (index, kind)
    assert check_submission(submission, test_csv, official=True).ok is not official


def test_all_problems_are_reported_and_not_the_first(tmp_path: Path, test_csv: Path) -> None:
    submission = write(tmp_path, "index,prediction\n0,x\n0,5 lbs\n7,1 gram\n")
    found = [(problem.index, problem.kind) for problem in check_submission(submission, test_csv).problems]
    assert sorted(found, key=str) == sorted(
        [(0, "repeated_index"), (0, "format"), (0, "unit"), (7, "extra_index"), (5, "missing_index"),
         (6, "missing_index"), (9, "missing_index")], key=str,
    )  # fmt: skip


@pytest.mark.parametrize("header", ["index,answer", "id,prediction", "a,b"])
def test_a_missing_column_is_a_problem_of_its_own(tmp_path: Path, test_csv: Path, header: str) -> None:
    submission = write(tmp_path, f"{header}\n0,1 volt\n")
    for official in (False, True):
        (problem,) = check_submission(submission, test_csv, official=official).problems
        assert problem.index is None
        assert problem.kind == "column"


@pytest.mark.slow
def test_exit_codes_and_json(tmp_path: Path, test_csv: Path) -> None:
    good = write(tmp_path, "index,prediction\n0,1.0 metre\n5,\n6,\n9,\n")
    done = run_here("inference.check", "--submission", good, "--test_csv", test_csv, "--json")
    assert json.loads(done.stdout) == {"ok": True, "rows": 4, "answered": 1, "empty": 3, "problems": []}
    bad = write(tmp_path, "index,prediction\n0,6.75 lbs\n5,\n6,\n9,\n")
    done = run_module("inference.check", "--submission", bad, "--test_csv", test_csv, "--json", check=False)
    assert done.returncode == 1
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem.items() >= {"index": 0, "kind": "unit", "value": "6.75 lbs"}.items()
    done = run_here("inference.check", "--submission", "none.csv", "--test_csv", test_csv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --submission none.csv: no such file\n"
    done = run_here("inference.check", "--submision", bad, "--test_csv", test_csv)
    assert done.returncode == 2
    assert "did you mean --submission?" in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("submission.txt", "index,prediction\n", "must end in .csv: the challenge accepts no other file"),
        ("submission.csv", "", "cannot be read as a table"),
        ("submission.csv", '"unclosed', "cannot be read as a table"),
    ],
)
def test_what_cannot_be_checked_is_named(tmp_path: Path, test_csv: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        check_submission(tmp_path / name, test_csv)


def test_a_broken_test_csv_is_named_with_its_line(tmp_path: Path, test_csv: Path) -> None:
    submission = write(tmp_path, "index,prediction\n0,\n")
    test_csv.write_text("index,entity_name\n0,width\n0,width\n")
    with pytest.raises(
        InputError, match=r"`test_csv` .*test\.csv, line 3: duplicate index 0 \(first seen on line 2\)"
    ):
        check_submission(submission, test_csv)
    test_csv.write_text("image_link,entity_name\nx,width\n")
    with pytest.raises(InputError, match="has no column index"):
        check_submission(submission, test_csv)


def test_the_printed_lines_name_each_problem(
    tmp_path: Path, test_csv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submission = write(tmp_path, "index,prediction\n0,6.75 lbs\n5,\n6,\n")
    assert call(check.main, monkeypatch, "--submission", submission, "--test_csv", test_csv) == 1
    printed = capsys.readouterr().out
    assert "unit: index 0: unit 'lbs' in '6.75 lbs' is not one of the 31 allowed units" in printed
    assert "missing_index: index 9 of test.csv has no row" in printed
    assert printed.endswith("refused: 2 problems\n")


@pytest.mark.parametrize("official", [False, True])
def test_what_the_official_checker_reads_as_missing_is_accepted(
    tmp_path: Path, test_csv: Path, official: bool
) -> None:
    submission = write(tmp_path, "index,prediction\n0, nan \n5,nan\n6, \n9,\n")
    assert check_submission(submission, test_csv, official=official).ok


@pytest.mark.data
def test_the_official_verdicts_are_ours(data_dir: Path, tmp_path: Path) -> None:
    verdicts = pd.read_csv(data_dir / "sanity_verdicts.csv", dtype=str, keep_default_na=False)
    assert len(verdicts) == 2907
    for prediction, verdict, why in zip(verdicts.prediction, verdicts.verdict, verdicts.why, strict=True):
        problem = check_prediction(prediction)
        assert (problem[0] if problem else "") == why, prediction
        assert (problem is not None) == (verdict == "invalid"), prediction
    # And through a file, where what pandas reads as missing is empty.
    predictions = verdicts.assign(index=range(len(verdicts)))[["index", "prediction"]]
    predictions.to_csv(tmp_path / "submission.csv", index=False)
    predictions.assign(entity_name="width").to_csv(tmp_path / "test.csv", index=False)
    found = {
        problem.index: problem.kind
        for problem in check_submission(tmp_path / "submission.csv", tmp_path / "test.csv", official=True).problems
    }
    different = [p for i, (p, why) in enumerate(zip(verdicts.prediction, verdicts.why, strict=True))
                 if found.get(i, "") != why]  # fmt: skip
    assert sorted(different) == ["NaN", "None"]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("flag", [[], ["--official"]], ids=["ours", "official"])
def test_the_samples_of_the_challenge_are_judged_as_published(data_dir: Path, flag: list[str]) -> None:
    for name, code in (("sample_test_out.csv", 0), ("sample_test_out_fail.csv", 1)):
        done = run_here(
            "inference.check", "--submission", data_dir / name, "--test_csv", data_dir / "sample_test.csv", *flag
        )  # fmt: skip
        assert done.returncode == code, done.stdout
    assert "index 14" in done.stdout
    assert "lbs" in done.stdout


@pytest.mark.slow
@pytest.mark.data
def test_a_submission_for_all_of_test_csv_is_checked(data_dir: Path, tmp_path: Path) -> None:
    test = pd.read_csv(data_dir / "test.csv.gz", dtype=str)
    pd.DataFrame({"index": test["index"], "prediction": ""}).to_csv(tmp_path / "s.csv", index=False)
    verdict = check_submission(tmp_path / "s.csv", data_dir / "test.csv.gz")
    assert verdict.ok
    assert (verdict.rows, verdict.empty) == (131187, 131187)


def write_test_csv(tmp_path: Path, *names: str) -> Path:
    file = tmp_path / "test.csv"
    file.write_text("index,entity_name\n" + "".join(f"{index},{name}\n" for index, name in enumerate(names)))
    return file


CANONICAL = {
    "nutrition": {"energy": "2093.0 kilojoule", "fat": "3.5 gram", "salt": "120.0 milligram", "servings": "24"},
    "clothes": {"size": "NA", "colour": "navy blue", "material": "cotton, silk"},
    "electronics": {
        "memory": "16 gigabyte", "battery": "5000 milliampere hour", "refresh_rate": "120.0 hertz",
        "bluetooth": "yes", "model_number": "AB-1234", "brand": "None",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_canonical_answers_and_empty_ones_of_another_schema_are_accepted(tmp_path: Path, name: str) -> None:
    answers = CANONICAL[name]
    assert set(answers) == set(SCHEMAS[name].names)
    rows = pd.DataFrame({"index": range(len(answers)), "prediction": list(answers.values())})
    rows.to_csv(tmp_path / "submission.csv", index=False)
    test_csv = write_test_csv(tmp_path, *answers)
    verdict = check_submission(tmp_path / "submission.csv", test_csv, schema=SCHEMAS[name])
    assert verdict.problems == []
    assert (verdict.rows, verdict.answered, verdict.empty) == (len(answers), len(answers), 0)  # "NA" and "None" too
    rows.assign(prediction="").to_csv(tmp_path / "submission.csv", index=False)
    assert check_submission(tmp_path / "submission.csv", test_csv, schema=SCHEMAS[name]).ok


@pytest.mark.parametrize(
    ("schema", "attribute", "prediction", "kind", "message"),
    [
        ("nutrition", "fat", "3.5 g", "format", "'3.5 g' is written '3.5 gram' as an answer about fat"),
        ("nutrition", "fat", "3.5 pound", "unit", "'3.5 pound' is not one of those of fat: gram, milligram"),
        ("nutrition", "fat", "3.5 kilojoule", "unit_unsuitable", "'3.5 kilojoule' is not in a unit of fat"),
        ("nutrition", "fat", "-3.5 gram", "format", "fat: '-3.5 gram' is not a number and one of the units"),
        ("nutrition", "fat", "[1.0, 2.0] gram", "format", "fat: '[1.0, 2.0] gram' is not a number and one of"),
        ("nutrition", "fat", "3.25 gram", "format", "'3.25 gram' has 2 decimals, more than decimals 1 of fat: round"),
        ("nutrition", "salt", "1.23456 gram", "format", "has 5 decimals, more than decimals 4 of salt: round it, or"),
        ("nutrition", "salt", "1234567.0 gram", "format", "has 7 digits, more than integer_digits 6 of salt"),
        ("nutrition", "servings", "1234567", "format", "'1234567' has 7 digits, more than digits 6 of servings"),
        ("nutrition", "servings", "-4", "format", "servings: '-4' is not a number"),
        ("nutrition", "servings", "24.0", "format", "'24.0' is written '24' as an answer about servings"),
        ("nutrition", "servings", "24.5", "format", "servings: '24.5' has decimals"),
        ("clothes", "colour", "navy", "format", "'navy' is written 'navy blue' as an answer about colour"),
        ("clothes", "colour", "Red", "format", "'Red' is written 'red'"),
        ("clothes", "colour", "green", "format", "colour: 'green' is not one of the values"),
        ("clothes", "material", "silk, cotton", "format", "'silk, cotton' is written 'cotton, silk'"),
        ("clothes", "size", " S", "format", "' S' is written 'S'"),
        ("clothes", "colour", " ", "format", "' ' is left empty as an answer about colour"),
        ("electronics", "memory", "16.0 gigabyte", "format", "'16.0 gigabyte' is written '16 gigabyte'"),
        ("electronics", "memory", "16.5 gigabyte", "format", "memory: '16.5 gigabyte' has decimals"),
        ("electronics", "memory", "1000000 gigabyte", "format", "has 7 digits, more than integer_digits 6 of memory"),
        ("electronics", "bluetooth", "true", "format", "bluetooth: 'true' is not one of the values"),
        ("electronics", "model_number", "AB-12", "format", "model_number: 'AB-12' does not match"),
        ("electronics", "brand", "a" * 21, "format", "has more than 20 characters"),
        ("electronics", "brand", "two  spaces", "format", "'two  spaces' is written 'two spaces'"),
    ],
)  # fmt: skip
def test_what_is_not_canonical_in_another_schema_is_refused_with_its_remedy(
    tmp_path: Path, schema: str, attribute: str, prediction: str, kind: str, message: str
) -> None:
    test_csv = write_test_csv(tmp_path, attribute, attribute)
    rows = pd.DataFrame({"index": [0, 1], "prediction": ["", prediction]})
    rows.to_csv(tmp_path / "submission.csv", index=False)
    (problem,) = check_submission(tmp_path / "submission.csv", test_csv, schema=SCHEMAS[schema]).problems
    assert (problem.index, problem.kind, problem.value) == (1, kind, prediction)
    assert message in problem.message
    assert problem.message.startswith("index 1: ")


@settings(max_examples=300)
@given(
    number=st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{1,4})?", fullmatch=True),
    limits=st.tuples(st.integers(1, 4), st.integers(0, 4), st.booleans()),
)
def test_the_numbers_that_are_accepted_are_those_that_constrained_decoding_allows(
    number: str, limits: tuple[int, int, bool]
) -> None:
    integer_digits, decimals, signed = limits
    schema = parse_schema(
        f"""version: 1
units: {{mass: {{gram: {{size: 1}}}}}}
attributes:
  mass: {{kind: quantity, units: mass, integer_digits: {integer_digits}, decimals: {decimals}, signed: {signed}}}
  count: {{kind: integer, digits: {integer_digits}, signed: {signed}}}
""".lower(),
        name="schema.yaml",
    )
    pattern = number_pattern(decimals=decimals, integer_digits=integer_digits, signed=signed)
    is_allowed = re.fullmatch(pattern, number) is not None
    assert (check_answer(f"{number} gram", schema["mass"]) is None) == is_allowed
    whole = number_pattern(decimals=0, integer_digits=integer_digits, signed=signed)
    assert (check_answer(number, schema["count"]) is None) == (re.fullmatch(whole, number) is not None)


def test_indexes_are_checked_for_another_schema_too(tmp_path: Path) -> None:
    test_csv = write_test_csv(tmp_path, "size", "colour", "material")
    submission = write(tmp_path, "index,prediction\n0,S\n0,S\n1,crimson\n7,whatever\n")
    problems = check_submission(submission, test_csv, schema=SCHEMAS["clothes"]).problems
    assert [(problem.index, problem.kind) for problem in problems] == [
        (0, "repeated_index"), (7, "extra_index"), (2, "missing_index"), (1, "format"),
    ]  # fmt: skip


def test_a_test_csv_of_another_schema_is_named(tmp_path: Path) -> None:
    test_csv = write_test_csv(tmp_path, "size", "width")
    submission = write(tmp_path, "index,prediction\n0,S\n1,1.0 inch\n")
    message = "`test_csv` .*test.csv, line 3: unknown entity_name 'width'; expected one of size, colour, material"
    with pytest.raises(InputError, match=message):
        check_submission(submission, test_csv, schema=SCHEMAS["clothes"])


def test_the_command_reads_a_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "schema.yaml").write_text(TEXTS["clothes"])
    submission = write(tmp_path, "index,prediction\n0,S\n1,navy\n")
    arguments = ("--submission", submission, "--test_csv", write_test_csv(tmp_path, "size", "colour"))
    assert call(check.main, monkeypatch, *arguments, "--schema", tmp_path / "schema.yaml") == 1
    assert "format: index 1: 'navy' is written 'navy blue'" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"--official is the challenge's own checker, which knows no --schema"):
        call(check.main, monkeypatch, *arguments, "--schema", tmp_path / "schema.yaml", "--official")
    (tmp_path / "schema.yaml").write_text("version: 1\nattributes:\n  size: {kind: option, values: [S, M]}\n")
    with pytest.raises(InputError, match=r"--schema .*schema.yaml, line 3: .*unknown kind 'option'; use one of"):
        call(check.main, monkeypatch, *arguments, "--schema", tmp_path / "schema.yaml")


def test_a_wide_table_of_products_is_asked_about_every_attribute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "schema.yaml").write_text(TEXTS["clothes"])
    (tmp_path / "products.csv").write_text("sku,photo\n7,a.jpg\n2,b.jpg\n")
    # The rows of product 7 are 21, 22 and 23: size, colour and material.
    submission = write(tmp_path, "index,prediction\n21,S\n22,red\n23,silk\n6,red\n7,white\n8,\n")
    arguments = ("--submission", submission, "--test_csv", tmp_path / "products.csv", "--schema",
                 tmp_path / "schema.yaml", "--wide", "--columns")  # fmt: skip
    assert call(check.main, monkeypatch, *arguments, "image_link=photo,index=sku") == 1
    printed = capsys.readouterr().out
    assert "format: index 6: size: 'red' is not one of the values" in printed and "refused: 1 problems" in printed
    assert call(check.main, monkeypatch, *arguments, "image_link=photo") == 1  # products are numbered from 0
    assert "missing_index: index 0 of test.csv has no row" in capsys.readouterr().out
    for columns, message in [
        ("image_link=bild", r"--test_csv .*products.csv: no column bild \(image_link\)"),
        ("Size=sku", "--columns: unknown 'Size'; choose from"),
    ]:
        with pytest.raises(InputError, match=message):
            call(check.main, monkeypatch, *arguments, columns)


def test_rows_without_an_index_are_numbered_for_another_schema(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("entity_name\nsize\ncolour\n")
    submission = write(tmp_path, "index,prediction\n0,S\n1,red\n")
    assert check_submission(submission, tmp_path / "test.csv", schema=SCHEMAS["clothes"]).ok


@pytest.mark.parametrize("options", [["--wide"], ["--columns", "index=id"]])
def test_the_official_checker_knows_its_own_table_only(
    tmp_path: Path, test_csv: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    submission = write(tmp_path, "index,prediction\n")
    with pytest.raises(InputError, match=f"challenge's own checker, which knows no {options[0]}: pass one of them"):
        call(check.main, monkeypatch, "--submission", submission, "--test_csv", test_csv, "--official", *options)


def test_the_schema_of_the_challenge_changes_no_verdict(
    tmp_path: Path, test_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checker accepts other forms of a number, and `nan`."""
    schema = Path(check.__file__).parents[1] / "product_vqa" / "task" / "challenge.yaml"
    submission = write(tmp_path, "index,prediction\n0,12 centimeter\n5,nan\n6,-5 volt\n9,007 cubic feet\n")
    arguments = ("--submission", submission, "--test_csv", test_csv)
    assert call(check.main, monkeypatch, *arguments, "--schema", schema) == 0
