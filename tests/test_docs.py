"""The documents name what exists: files, links, and in the reference every option and class of the code."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

from product_vqa.task.schema import UNITS_BY_ENTITY
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


def test_the_cluster_file_is_valid_and_installs_what_a_cluster_needs() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(), re.DOTALL)
    cluster = yaml.safe_load(text)
    nodes = cluster["available_node_types"]
    assert cluster["head_node_type"] in nodes
    assert all(node.get("max_workers", 0) <= cluster["max_workers"] for node in nodes.values())
    targets = {name for line in cluster["setup_commands"] for name in re.findall(r"make ([a-z ]+[a-z])", line)}
    assert targets == {"install ray"}
    pinned = re.search(r"^ray==([\d.]+) ", (ROOT / "requirements-ray.lock").read_text(), re.MULTILINE)
    assert pinned is not None and f"ray[default]=={pinned[1]}" in text
    pytest.importorskip("ray")
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))  # what `ray up` does first


def test_the_table_of_attributes_has_the_units_of_the_schema() -> None:
    text = (ROOT / "docs" / "dataset.md").read_text()
    table = text.partition("| entity_name | units |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [[re.findall(r"`([^`]+)`", cell) for cell in row.strip("| ").split(" | ")] for row in table.splitlines()]
    assert {name: tuple(units) for names, units in rows for name in names} == UNITS_BY_ENTITY
    assert len({unit for _, units in rows for unit in units}) == 31  # as the page says


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
