"""Each promise of docs/security.md names the tests that hold it, and these tests exist."""

import ast
import re
from functools import cache

import pytest

from tests.commands import ROOT

PAGE = ROOT / "docs" / "security.md"
HEADER = ("promise", "held by")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def sections() -> dict[str, list[tuple[str, str]]]:
    """The rows of each section's table of promises, by the title of the section."""
    found: dict[str, list[tuple[str, str]]] = {}
    title = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
        elif line.startswith("|"):
            cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
            assert len(cells) == 2, f"{PAGE.name}: {line}"
            found.setdefault(title, []).append((cells[0], cells[1]))
    return found


@cache
def names_of_tests(path: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)}


def test_each_promise_has_a_test_and_each_test_exists() -> None:
    promises = [(title, *row) for title, rows in sections().items() for row in rows[2:]]
    assert len(promises) > 60
    for title, promise, held_by in promises:
        tests = TEST.findall(held_by)
        assert tests, f"{title}: {promise}: names no test"
        assert not TEST.sub("", held_by).strip(" ,"), f"{title}: {promise}: {held_by}"
        for path, name in tests:
            assert (ROOT / path).is_file(), f"{title}: {promise}: no file {path}"
            assert name in names_of_tests(path), f"{title}: {promise}: no test {path}::{name}"


def test_each_section_is_about_one_source_and_has_promises() -> None:
    text = PAGE.read_text()
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    found = sections()
    assert set(titles) == found.keys()
    for title, rows in found.items():
        assert rows[0] == HEADER, title
        assert len(rows) > 2, title
    sources = (
        "CSV",
        "URL",
        "image",
        "dataset",
        "base model",
        "adapter",
        "calibration",
        "checkpoint",
        "Hub",
        "browser",
    )
    for source in (*sources, "environment"):
        assert any(source.lower() in title.lower() for title in titles), f"{PAGE.name}: no section about {source}"


@pytest.mark.parametrize("path", ["README.md", "SECURITY.md", "docs/README.md"])
def test_the_page_is_found(path: str) -> None:
    assert "security.md" in (ROOT / path).read_text()
