"""The documents name what exists: files, links, and in the reference every option and class of the code."""

import re
import runpy
from pathlib import Path

import pytest

from tests.commands import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("product_vqa", "dataset_builder", "training", "inference", "local_hub", "quickstart", "benchmarks")


def test_every_path_that_a_document_names_exists() -> None:
    named = [
        (document, path)
        for document in DOCUMENTS
        for path in re.findall(rf"`((?:{'|'.join(PACKAGES)}|docs|tests)/[\w./]*)`", document.read_text())
    ]
    assert len(named) > 80
    missing = [f"{document.name}: {path}" for document, path in named if not (ROOT / path).exists()]
    assert not missing


def test_every_link_between_documents_leads_to_a_file() -> None:
    links = [
        (document, target)
        for document in DOCUMENTS
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text())
    ]
    assert len(links) > 15
    assert not [f"{document.name}: {target}" for document, target in links if not (document.parent / target).exists()]


def test_contributing_says_of_every_module_what_to_change_there() -> None:
    """A reader who wants to change something finds the file in this table; commands are named by the documents."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    modules = [
        file.relative_to(ROOT)
        for package in PACKAGES[:5]
        for file in (ROOT / package).rglob("*.py")
        if file.name not in ("__init__.py", "__main__.py") and 'if __name__ == "__main__":' not in file.read_text()
    ]
    assert len(modules) > 60
    unnamed = [str(path) for path in modules if str(path) not in text and f"{path.parent}/`" not in text]
    assert not unnamed


@pytest.mark.slow
def test_the_reference_is_what_the_code_says() -> None:
    """`make reference` writes it."""
    reference = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    assert Path(reference["FILE"]).read_text() == reference["make_reference"]()
