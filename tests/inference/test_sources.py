"""What a prediction is made from, as shards record it."""

import shutil
from pathlib import Path

import pytest
from datasets import Dataset

from inference.sources import find_sources
from product_vqa.errors import InputError
from product_vqa.schemas import save_schema
from product_vqa.task.schema_file import parse_schema
from tests.product_vqa.modeling.adapters import save_adapter


def test_sources_are_described_alike_wherever_their_folders_are(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    described = []
    for number in (1, 2):
        folder = tmp_path / f"user@machine{number}"
        dataset = shutil.copytree(tiny_dataset, folder / "dataset")
        base = shutil.copytree(tiny_base, folder / "base")
        described.append(find_sources(str(dataset), adapter=None, base_model=str(base)).describe())
    assert described[0] == described[1]
    assert (described[0]["dataset"], described[0]["adapter"], described[0]["base_model"]) == (
        "dataset",
        "None",
        "base",
    )
    assert len(str(described[0]["dataset_sha256"])) == len(str(described[0]["base_sha256"])) == 64


def test_a_dataset_that_asks_for_the_same_attributes_otherwise_is_refused(
    tiny_base: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    """Attributes that the split does not ask for, synonyms and spellings may differ."""
    adapter = save_adapter(tmp_path / "adapter", tiny_base)
    dataset = Path(shutil.copytree(tiny_dataset, tmp_path / "dataset"))
    colour = "version: 1\nattributes:\n  colour: {kind: choice, values: {red: [RED], blue: []}}\n"
    save_schema(parse_schema(f"{colour}  size: {{kind: integer}}\n", name="s"), adapter)
    save_schema(parse_schema(colour.replace("RED", "rot"), name="s"), dataset)
    sources = find_sources(str(dataset), adapter=str(adapter), base_model=None)
    rows = Dataset.from_dict({"entity_name": ["colour", "colour"]})
    sources.check_schema(rows)
    save_schema(parse_schema(colour.replace("blue", "green"), name="s"), dataset)
    sources = find_sources(str(dataset), adapter=str(adapter), base_model=None)
    with pytest.raises(
        InputError,
        match=r"^`dataset` .*/dataset: its schema differs from that of .*/adapter \(values of colour: "
        r"only green and only blue\): use an adapter that was trained on this schema",
    ):
        sources.check_schema(rows)
    alone = find_sources(str(dataset), adapter=None, base_model=str(tiny_base))
    assert list(alone.schema["colour"].kind.values) == ["red", "green"]  # type: ignore[union-attr]
    alone.check_schema(rows)
