"""ensemble, as a command: fit on one split, apply to another; what it refuses, and that it then writes nothing."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import check, ensemble
from inference.evaluate import evaluate
from inference.submission import read_run
from product_vqa.errors import InputError
from product_vqa.task.schema import ENTITIES, UNITS
from tests.commands import call, run_here
from tests.inference.challenge import check_submission
from tests.inference.schemas import SCHEMAS, TEXTS
from tests.inference.vote_files import write_csv, write_parquet

ROWS = 200


def write_test_csv(file: Path, entities: list[str]) -> Path:
    lines = [f"{index},http://x/{index // 2},{name}" for index, name in enumerate(entities)]
    file.write_text("\n".join(["index,image_link,entity_name", *lines]) + "\n")
    return file


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Two hundred rows with labels and three files of predictions, of which c.csv is right most often."""
    rng = np.random.default_rng(0)
    labels = [f"{number}.0 inch" for number in rng.integers(1, 100, ROWS)]
    wrong = [f"{number}.0 inch" for number in rng.integers(100, 10_000, ROWS)]
    for name, share in (("a", 0.6), ("b", 0.6), ("c", 0.9)):
        is_right = rng.random(ROWS) < share
        texts = [label if right else other for label, other, right in zip(labels, wrong, is_right, strict=True)]
        if name == "c":
            write_csv(tmp_path / "c.csv", dict(enumerate(texts)))
        else:
            own = dict(enumerate(zip(texts, np.where(is_right, 0.7, 0.6).tolist(), strict=True)))
            write_parquet(tmp_path / f"{name}.parquet", own, entity_name="width")
    write_test_csv(tmp_path / "test.csv", ["width"] * ROWS)
    pd.read_csv(tmp_path / "test.csv").assign(entity_value=labels).to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


def predictions(folder: Path) -> list[str | Path]:
    return ["--predictions", folder / "a.parquet", folder / "b.parquet", folder / "c.csv"]


@pytest.mark.slow
def test_weights_are_fitted_on_one_split_and_applied_to_another(split: Path) -> None:
    done = run_here(
        "inference.ensemble", *predictions(split), "--references", split / "labels.csv", "--output",
        split / "out" / "validation.csv", "--save_weights", split / "weights.json",
    )  # fmt: skip
    assert "200     200        0           0" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("width ")]
    assert line.count("%") == 4
    assert done.stdout.endswith(f"{split}/out/validation.csv: 200 rows, 200 answered, 0 empty\n")
    fitted = evaluate(split / "out" / "validation.parquet", split / "labels.csv")
    assert fitted["f1"] > 0.93 > evaluate(split / "c.csv", split / "labels.csv")["f1"] - 0.03
    run = read_run(split / "out" / "validation.parquet")
    assert run["weights"] == f"200 rows of {split}/labels.csv"
    assert [file["has_confidences"] for file in run["ensemble"]] == [True, True, False]

    done = run_here(
        "inference.ensemble", *predictions(split), "--weights", split / "weights.json", "--test_csv",
        split / "test.csv", "--output", split / "submission.csv",
    )  # fmt: skip
    assert f"weights of {split}/weights.json, which were fitted on 200 rows of {split}/labels.csv" in done.stdout
    assert (split / "submission.csv").read_bytes() == (split / "out" / "validation.csv").read_bytes()
    assert check_submission(split / "submission.csv", split / "test.csv").ok


def combine(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str | Path) -> dict[int, str]:
    call(ensemble.main, monkeypatch, *arguments, "--output", folder / "out.csv")
    table = pd.read_csv(folder / "out.csv", keep_default_na=False)
    assert list(table.columns) == ["index", "prediction"]
    return dict(zip(table["index"], table["prediction"], strict=True))


def test_without_labels_all_files_count_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        write_csv(tmp_path / "a.csv", {1: "1 kilogram", 2: "2 gms", 3: "5 gram", 5: "=1+1"}),
        write_csv(tmp_path / "b.csv", {3: "6 gram", 1: "1000 gram", 2: "7 gram"}),
        write_csv(tmp_path / "c.csv", {2: "8 gram", 1: "9 gram", 3: "6.0 gram"}),
    ]
    expected = {1: "1000.0 gram", 2: "7.0 gram", 3: "6.0 gram", 5: ""}
    assert combine(monkeypatch, tmp_path, "--predictions", *files) == expected
    printed = capsys.readouterr().out
    assert f"{files[0]} (for example index 2: '2 gms')" in printed
    assert "no --references and no --weights: all files count the same" in printed
    assert combine(monkeypatch, tmp_path, "--predictions", *files[::-1]) == expected


def test_one_file_keeps_its_answers(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = combine(monkeypatch, split, "--predictions", split / "c.csv")
    assert found == dict(pd.read_csv(split / "c.csv").itertuples(index=False))
    again = combine(monkeypatch, split, "--predictions", split / "a.parquet", "--references", split / "labels.csv")
    assert again == dict(pd.read_parquet(split / "a.parquet")[["index", "prediction"]].itertuples(index=False))


def test_attributes_are_left_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_csv(tmp_path / "a.csv", {0: "1 inch", 1: "2 inch", 2: "3 inch", 3: "4 gram"})
    test_csv = write_test_csv(tmp_path / "test.csv", ["width", "depth", "height", "item_weight"])
    given = ("--predictions", file, "--test_csv", test_csv, "--leave_empty")
    expected = {0: "1.0 inch", 1: "", 2: "", 3: "4.0 gram"}
    assert combine(monkeypatch, tmp_path, *given, "depth", "height") == expected
    assert combine(monkeypatch, tmp_path, *given, "height,depth") == expected
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert table["answer"].tolist() == ["1.0 inch", "2.0 inch", "3.0 inch", "4.0 gram"]
    assert read_run(tmp_path / "out.parquet")["leave_empty"] == ["depth", "height"]


def test_the_scores_are_those_of_the_output(
    split: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an attribute left empty: the ensemble is then worse than any file there."""
    given = [*predictions(split), "--references", split / "labels.csv", "--leave_empty", "width"]
    assert set(combine(monkeypatch, split, *given).values()) == {""}
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("width ")]
    assert "   0.0%  -0.9" in line


def test_what_may_be_a_mistake_is_a_warning(
    split: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    copy = write_csv(split / "copy.csv", dict(pd.read_csv(split / "c.csv").itertuples(index=False)))
    combine(monkeypatch, split, "--predictions", split / "c.csv", copy)
    assert caplog.messages == [
        f"{split}/c.csv and {copy} have the same predictions: if they are of one model, it votes twice.",
        "No file has the attribute of 200 rows, so units of another one are not noticed there; pass `test_csv`.",
    ]
    caplog.clear()
    combine(monkeypatch, split, *predictions(split))
    assert caplog.messages == []


def test_files_may_have_parts_of_the_rows(
    split: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A row is decided by the files that have it; of two equal votes the smaller amount is chosen."""
    texts = dict(pd.read_csv(split / "c.csv").itertuples(index=False))
    first = write_csv(split / "first.csv", {index: texts[index] for index in range(120)})
    second = write_csv(split / "second.csv", dict.fromkeys(range(80, 160), "0.5 inch"))
    expected = {index: texts[index] if index < 80 else "0.5 inch" for index in range(160)}
    assert combine(monkeypatch, split, "--predictions", first, second) == expected
    counted = f"rows are not in all files; those that have a row decide on it. Not in {first}: 40, {second}: 80."
    assert caplog.messages[0] == f"120 of 160 {counted}"
    assert not [message for message in caplog.messages if "in common" in message or "test_csv` are" in message]

    caplog.clear()
    given = ("--predictions", first, second, "--test_csv", split / "test.csv")
    assert combine(monkeypatch, split, *given) == expected | dict.fromkeys(range(160, 200), "")
    assert caplog.messages == [
        f"120 of 200 {counted}",
        "40 rows of `test_csv` are in no file, for example index 160: their predictions are empty.",
    ]
    assert check_submission(split / "out.csv", split / "test.csv").ok
    assert pd.read_parquet(split / "out.parquet")["answer"].isna().sum() == 40


def test_files_without_a_common_row_are_parts_of_one_split(
    split: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    texts = dict(pd.read_csv(split / "c.csv").itertuples(index=False))
    shards = [
        write_csv(split / f"shard-{number}.csv", {index: texts[index] for index in range(number, ROWS, 3)})
        for number in range(3)
    ]
    assert combine(monkeypatch, split, "--predictions", *shards, "--test_csv", split / "test.csv") == texts
    assert caplog.messages[1:] == [
        "No index in common with another file, which is right for parts of one split only: " + ", ".join(shards) + "."
    ]


def test_weights_are_fitted_on_files_that_have_parts_of_the_rows(
    split: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = pd.read_parquet(split / "a.parquet")[:150]
    ours.to_parquet(split / "ours.parquet")
    theirs = write_csv(split / "theirs.csv", dict(pd.read_csv(split / "c.csv")[50:].itertuples(index=False)))
    files = ("--predictions", split / "ours.parquet", theirs)
    found = combine(
        monkeypatch, split, *files, "--references", split / "labels.csv", "--save_weights", split / "w.json"
    )
    labels, right = pd.read_csv(split / "labels.csv")["entity_value"], pd.read_csv(split / "c.csv")["prediction"]
    own = dict(zip(ours["index"], ours["prediction"], strict=True))
    assert [found[index] for index in range(50)] == [own[index] for index in range(50)]
    assert [found[index] for index in range(150, 200)] == right[150:].tolist()
    in_both = [found[index] == right[index] for index in range(50, 150)]
    assert sum(in_both) > 95, "the file that is right more often decides"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("width ")]
    for share in ((ours["prediction"] == labels[:150]).mean(), (right[50:] == labels[50:]).mean()):
        assert f" {share:.1%} +" in line

    written = (split / "out.csv").read_bytes()
    combine(monkeypatch, split, *files, "--weights", split / "w.json", "--test_csv", split / "test.csv")
    assert (split / "out.csv").read_bytes() == written
    pd.read_csv(split / "labels.csv")[:40].to_csv(split / "few.csv", index=False)
    combine(monkeypatch, split, *files, "--references", split / "few.csv")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("width ")]
    assert line.split()[1] == "40" and line.split()[4] == "-", "the second file has none of these rows"


def test_a_range_is_one_of_its_ends_if_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_csv(tmp_path / "a.csv", {0: "[100.0, 240.0] volt", 1: "5 volt"})
    for policy, end in (("leave_out", ""), ("first", "100.0 volt"), ("last", "240.0 volt")):
        found = combine(monkeypatch, tmp_path, "--predictions", file, "--ranges", policy)
        assert found == {0: end, 1: "5.0 volt"}


REFUSED = {
    "two sources of weights": (["--weights", "w.json", "--references", "labels.csv"], "pass one of them"),
    "nothing to save": (["--save_weights", "w.json"], "--save_weights needs --references"),
    "attribute": (["--leave_empty", "colour"], "--leave_empty: unknown 'colour'; choose from width,"),
    "attribute not known": (["--leave_empty", "depth"], "--leave_empty depth: no file has the attribute of 200 rows"),
    "no csv": (["--output", "out.parquet"], r"--output out.parquet must end in .csv"),
    "input": (["--output", "c.csv"], "--output would write c.csv, which is also an input"),
    "input next to it": (["--output", "a.csv"], "--output would write a.parquet, which is also an input"),
    "labels": (
        ["--references", "labels.csv", "--save_weights", "labels.csv"],
        "--save_weights would write labels.csv, which is also an input",
    ),
    "output twice": (
        ["--references", "labels.csv", "--save_weights", "out.csv"],
        "--save_weights would write out.csv, which is also --output",
    ),
    "no weights": (["--weights", "none.json"], "--weights none.json: no such file"),
    "folder": (["--references", "labels.csv", "--save_weights", "folder"], "--save_weights folder is a folder"),
    "other labels": (["--references", "other.csv"], "--references have 1 rows, but none of them is in --predictions"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_no_output(split: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(split)
    (split / "folder").mkdir()
    (split / "other.csv").write_text("index,entity_name,entity_value\n999,width,1 inch\n")
    (split / "a.csv").write_bytes((split / "c.csv").read_bytes())
    arguments, message = REFUSED[case]
    files = ["a.parquet", "c.csv"] if "input" in case else ["a.csv", "c.csv"]
    before = {file.name: file.read_bytes() for file in split.iterdir() if file.is_file()}
    with pytest.raises(InputError, match=message):
        call(ensemble.main, monkeypatch, "--predictions", *files, "--output", "out.csv", *arguments)
    assert {file.name: file.read_bytes() for file in split.iterdir() if file.is_file()} == before


def test_labels_of_another_split_are_refused(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both number their rows from 0."""
    labels = pd.read_csv(split / "labels.csv").assign(entity_name="voltage", entity_value="1.0 volt")
    labels.to_csv(split / "train.csv", index=False)
    given = ["--references", split / "train.csv"]
    with pytest.raises(InputError, match=r"--references: index 0 is about voltage, but about width in .*a.parquet;"):
        combine(monkeypatch, split, *predictions(split), *given)
    with pytest.raises(InputError, match=r"c.csv: 200 of 200 predictions are in a unit of another attribute"):
        combine(monkeypatch, split, "--predictions", split / "c.csv", *given)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--predictions: 33 files, more than 32"):
        combine(monkeypatch, tmp_path, "--predictions", *(f"{number}.csv" for number in range(33)))


def test_the_weights_tell_the_models_apart(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["--references", split / "labels.csv", "--save_weights", split / "w.json"]
    combine(monkeypatch, split, *predictions(split), *given)
    votes = json.loads((split / "w.json").read_text())["entities"]["width"]["vote"]
    assert votes[2] > max(votes[:2])
    swapped = ["--predictions", split / "c.csv", split / "a.parquet", split / "b.parquet"]
    with pytest.raises(InputError, match=r"--weights .*c.csv has no confidences, but .*a.parquet, file 1 of .* some"):
        combine(monkeypatch, split, *swapped, "--weights", split / "w.json")


answers = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.sampled_from(["", "1 kilogram", "1000 gram", "5 inch", "5.00 inches", "=1+1", "[1, 2] volt", "2 volt", "nan"]),
    st.builds("{} {}".format, st.decimals(0, 10**6, allow_nan=False), st.sampled_from(sorted(UNITS))),
)


@settings(max_examples=25)
@given(rows=st.lists(st.tuples(st.sampled_from(ENTITIES), answers, answers), min_size=1, max_size=8))
def test_whatever_the_files_hold_the_output_passes_the_check(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    test_csv = write_test_csv(folder / "test.csv", [row[0] for row in rows])
    files = [write_csv(folder / f"{number}.csv", {i: row[number] for i, row in enumerate(rows)}) for number in (1, 2)]
    with pytest.MonkeyPatch.context() as patch:
        found = combine(patch, folder, "--predictions", *files, "--test_csv", test_csv)
    assert list(found) == list(range(len(rows)))
    verdict = check_submission(folder / "out.csv", test_csv)
    assert verdict.ok, verdict.problems


def test_files_about_other_attributes_are_combined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of three files are right about each row, and spell it in their own way; the third one is surer of a lure."""
    (tmp_path / "schema.yaml").write_text(TEXTS["electronics"])
    answers = {
        "memory": ["1 TB", "1000 gigabyte", "2 TB"], "bluetooth": ["with", "yes", "no"],
        "brand": ["acme", "acme", "acne"], "model_number": ["AB-1234", "AB-1234", "AB-1235"],
    }  # fmt: skip
    names = list(answers) * 10
    write_test_csv(tmp_path / "test.csv", names)
    labels = pd.read_csv(tmp_path / "test.csv").assign(entity_value=[answers[name][0] for name in names])
    labels.to_csv(tmp_path / "labels.csv", index=False)
    files = []
    for file in range(3):
        rows = {index: (answers[name][(file + index // 4) % 3], 0.7) for index, name in enumerate(names)}
        files.append(write_parquet(tmp_path / f"{file}.parquet", rows))
    given = ("--predictions", *files, "--test_csv", tmp_path / "test.csv", "--schema", tmp_path / "schema.yaml")
    fitted = ("--references", tmp_path / "labels.csv", "--save_weights", tmp_path / "weights.json")
    call(ensemble.main, monkeypatch, *given, *fitted, "--output", tmp_path / "fitted.csv")
    assert "model_number" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "weights.json").read_text())["entities"]) == {
        *SCHEMAS["electronics"].names, "unknown",
    }  # fmt: skip
    applied = ("--weights", tmp_path / "weights.json", "--leave_empty", "brand")
    call(ensemble.main, monkeypatch, *given, *applied, "--output", tmp_path / "out.csv")
    for name in ("fitted.csv", "out.csv"):
        assert check_submission(tmp_path / name, tmp_path / "test.csv", schema=SCHEMAS["electronics"]).ok
    schema = str(tmp_path / "schema.yaml")
    assert evaluate(tmp_path / "fitted.csv", tmp_path / "labels.csv", schema=schema)["f1_meaning"] == 1.0
    scores = evaluate(tmp_path / "out.csv", tmp_path / "labels.csv", schema=schema)
    assert (scores["answered"], scores["by_entity"]["brand"]["answered"], scores["mistakes"]["missing"]) == (30, 0, 10)

    challenge = ("--predictions", *files, "--test_csv", tmp_path / "test.csv", "--output", tmp_path / "no.csv")
    with pytest.raises(InputError, match=r"test.csv: unknown entity_name 'memory'; expected one of width"):
        call(ensemble.main, monkeypatch, *challenge)
    with pytest.raises(InputError, match=r"--leave_empty: unknown 'width'; choose from memory, battery"):
        call(ensemble.main, monkeypatch, *given, "--leave_empty", "width", "--output", tmp_path / "no.csv")
    (tmp_path / "schema.yaml").write_text(TEXTS["electronics"] + "  weight: {kind: integer}\n")
    with pytest.raises(InputError, match=r"--weights .*weights.json was not written by inference.ensemble .*entities"):
        call(
            ensemble.main, monkeypatch, *given, "--weights", tmp_path / "weights.json", "--output", tmp_path / "n.csv"
        )
    assert not (tmp_path / "no.csv").exists()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_wide_table_is_read_as_check_and_evaluate_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Three products of four attributes; nothing is known about two cells, for which there are predictions too."""
    (tmp_path / "schema.yaml").write_text(TEXTS["nutrition"])
    table, submission = tmp_path / f"products{suffix}", tmp_path / "out.csv"
    products = pd.DataFrame(
        {
            "photo": ["a.jpg", "b.jpg", "c.jpg"], "energy": ["100 kcal", "5 kJ", "7 kJ"],
            "fat": ["1.0 g", "2.0 g", ""], "salt": ["3 mg", "", "4.0 g"], "servings": ["4", "5", "6"],
        }
    )  # fmt: skip
    if suffix == ".parquet":
        products.to_parquet(table)
    elif suffix == ".jsonl":
        products.to_json(table, orient="records", lines=True)
    else:
        products.to_csv(table, index=False)
    right = ["100.0 kilocalorie", "1.0 gram", "3.0 milligram", "4", "5.0 kilojoule", "2.0 gram", "9.0 gram", "5"]
    right += ["7.0 kilojoule", "9.0 gram", "4.0 gram", "6"]
    # Each file leaves a third of the rows empty, about which the two others agree.
    files = [
        write_csv(tmp_path / f"{file}.csv", {row: "" if row % 3 == file else text for row, text in enumerate(right)})
        for file in range(3)
    ]
    wide = ("--schema", tmp_path / "schema.yaml", "--wide", "--columns", "image_link=photo")
    given = ("--predictions", *files, *wide, "--output", submission)
    call(ensemble.main, monkeypatch, *given, "--test_csv", table, "--references", table)
    assert pd.read_csv(submission)["prediction"].tolist() == right
    assert call(check.main, monkeypatch, "--submission", submission, "--test_csv", table, *wide) == 0
    options = {"schema": str(tmp_path / "schema.yaml"), "wide": True, "columns": "image_link=photo"}
    assert evaluate(submission, table, **options)["f1_meaning"] == 1.0
    with pytest.raises(InputError, match=r"^--test_csv .*0\.csv: no column photo \(image_link\)"):
        call(ensemble.main, monkeypatch, *given[:-2], "--output", tmp_path / "n.csv", "--test_csv", files[0])
    with pytest.raises(InputError, match=r"^--columns: unknown 'colour'"):
        call(ensemble.main, monkeypatch, *given, "--columns", "colour=Colour", "--test_csv", table)
