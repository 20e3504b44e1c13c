"""What a prediction is made from, as shards record it."""

import shutil
from pathlib import Path

from inference.sources import find_sources


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
