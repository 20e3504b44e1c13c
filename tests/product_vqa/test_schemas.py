import ast
import os
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from product_vqa.errors import InputError
from product_vqa.hub import Location, locate
from product_vqa.schemas import choose_schema, load_schema, save_schema
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import SCHEMA_FILE, format_schema, parse_schema, read_schema
from tests.commands import ROOT

TEXT = "version: 1\nattributes:\n  colour: {kind: choice, values: [red, blue]}\n  pieces: {kind: integer}\n"
SCHEMA = parse_schema(TEXT, name="my.yaml")


def test_a_schema_is_saved_and_loaded(tmp_path: Path) -> None:
    save_schema(SCHEMA, tmp_path)
    assert load_schema(Location(str(tmp_path))) == SCHEMA
    assert read_schema(tmp_path / SCHEMA_FILE) == SCHEMA


def test_a_folder_without_a_schema_has_the_challenges(tmp_path: Path) -> None:
    save_schema(CHALLENGE, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert load_schema(Location(str(tmp_path))) == CHALLENGE
    save_schema(SCHEMA, tmp_path)
    save_schema(CHALLENGE, tmp_path)  # replaces it
    assert load_schema(Location(str(tmp_path))) == CHALLENGE


def test_a_broken_schema_is_refused_with_the_folder_and_the_line(tmp_path: Path) -> None:
    (tmp_path / SCHEMA_FILE).write_text(TEXT.replace("integer", "number"))
    with pytest.raises(InputError) as refused:
        load_schema(Location(str(tmp_path)))
    assert str(refused.value).startswith(f"{tmp_path}: schema.yaml, line 4: attributes.pieces.kind: unknown kind")


@pytest.mark.parametrize("kind", ["folder", "pipe", "large"])
def test_what_is_not_a_small_file_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / SCHEMA_FILE
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(b"#" * 1_000_001)
    with pytest.raises(InputError, match=r"schema\.yaml"):
        load_schema(Location(str(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("repo_type", ["dataset", "model"])
def test_a_repo_brings_its_schema(hub: LocalHub, repo_type: str) -> None:
    api = HfApi()
    repo_id = f"local/shirts-{repo_type}"
    api.create_repo(repo_id, repo_type=repo_type)
    before = locate(repo_id, repo_type=repo_type)
    assert load_schema(before, repo_type=repo_type) == CHALLENGE
    api.upload_file(path_or_fileobj=TEXT.encode(), path_in_repo=SCHEMA_FILE, repo_id=repo_id, repo_type=repo_type)
    assert load_schema(locate(repo_id, repo_type=repo_type), repo_type=repo_type) == SCHEMA
    assert load_schema(before, repo_type=repo_type) == CHALLENGE  # that commit has none


def test_the_schema_that_counts(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(format_schema(SCHEMA))
    assert choose_schema(None) == CHALLENGE
    assert choose_schema(str(file)) == SCHEMA
    assert choose_schema(None, own=SCHEMA, of="user/shirts") is SCHEMA
    assert choose_schema(str(file), own=SCHEMA, of="user/shirts") is SCHEMA


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("red, blue", "red, green", "values of colour: only blue and only green"),
        ("  pieces: {kind: integer}\n", "", "pieces is only in one of them"),
        ("kind: integer}", "kind: integer}\n  brand: {kind: text}", "brand is only in one of them"),
    ],
)
def test_another_schema_than_the_own_is_refused_with_the_difference(
    tmp_path: Path, old: str, new: str, difference: str
) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(TEXT.replace(old, new))
    with pytest.raises(InputError) as refused:
        choose_schema(str(file), own=SCHEMA, of="user/shirts")
    message = str(refused.value)
    assert message.startswith(f"`schema` {file} differs from the schema of user/shirts, which counts (")
    assert difference in message and "drop `schema`" in message


def test_synonyms_may_differ_from_the_own_ones(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(TEXT.replace("[red, blue]", "{red: [rot], blue: [blau]}"))
    assert choose_schema(str(file), own=SCHEMA, of="user/shirts") is SCHEMA


def test_the_challenges_file_is_the_default() -> None:
    assert choose_schema(str(ROOT / "product_vqa/task/challenge.yaml"), own=CHALLENGE, of="x") is CHALLENGE


def test_no_function_or_field_has_the_challenges_schema_or_layout_by_default() -> None:
    """A caller that forgets the argument would judge the answers of another catalogue by the challenge's units."""
    taking, wrong = 0, []
    for room in ("product_vqa", "dataset_builder", "training", "inference", "quickstart", "benchmarks"):
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                defaults: list[ast.expr | None] = []
                if isinstance(node, ast.arguments):
                    taking += any(one.arg in ("schema", "layout") for one in (*node.args, *node.kwonlyargs))
                    defaults = [*node.defaults, *node.kw_defaults]
                elif isinstance(node, ast.AnnAssign):
                    defaults = [node.value] if ast.unparse(node.annotation) in ("Schema", "Layout") else []
                names = {one.id for value in defaults if value for one in ast.walk(value) if isinstance(one, ast.Name)}
                wrong += [f"{file}:{value.lineno}" for value in defaults if value and names & {"CHALLENGE", "LONG"}]
    assert not wrong
    assert taking > 100
