"""Write kaggle.ipynb and colab.ipynb from source.md.

make notebooks        (a test fails when a notebook is not what this would write)

The source is a Markdown document, and a template for jinja2 where the two differ. A fenced block of Python is a code
cell; the text between two blocks is a Markdown cell, or several that begin with their headings.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "source.md"

# A name that leads nowhere, until the repository has a public URL: the owner of a made-up one could run code here.
PACKAGE = "product-vqa[all] @ git+https://git.example/product-vqa"


@dataclass(frozen=True)
class Platform:
    """Where a notebook runs: its machine, and how it is used."""

    name: str  # of the file
    title: str
    accelerate_config: str
    num_processes: int
    training_options: tuple[str, ...]  # that differ from those of the configuration
    training_hours: str
    prediction_hours: str
    session_hours: str
    session_limit: str
    input_dir: str
    output_dir: str
    work_dir: str
    cache_dir: str
    metadata: dict[str, Any]  # of the notebook: what the platform reads


PLATFORMS = [
    Platform(
        name="kaggle",
        title="Kaggle",
        accelerate_config="gpu_multi.yaml",
        num_processes=2,
        training_options=(),
        training_hours="3.5",
        prediction_hours="1",
        session_hours="8.5",
        session_limit="Kaggle ends a session after 9 to 12 hours",
        input_dir="/kaggle/input/amazon-ml-challenge",
        output_dir="/kaggle/working",
        work_dir="/tmp/product-vqa",
        cache_dir="/tmp/huggingface",
        metadata={
            "kaggle": {
                "accelerator": "nvidiaTeslaT4",
                "isGpuEnabled": True,
                "isInternetEnabled": True,
                "language": "python",
                "sourceType": "notebook",
            }
        },
    ),
    Platform(
        name="colab",
        title="Colab",
        accelerate_config="gpu.yaml",
        num_processes=1,
        training_options=("--gradient_accumulation_steps 16", "--dataloader_num_workers 1"),
        training_hours="7",
        prediction_hours="2",
        session_hours="11",
        session_limit="Colab ends a session after 12 hours, or earlier without notice",
        input_dir="/content",
        output_dir="/content",
        work_dir="/content/product-vqa",
        cache_dir="/content/huggingface",
        metadata={"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": []}},
    ),
]


def notebook_file(platform: Platform) -> Path:
    return FOLDER / f"{platform.name}.ipynb"


def make_notebook(platform: Platform) -> str:
    """The content of a notebook's file, formatted as nbformat writes it."""
    template = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    ).from_string(SOURCE.read_text())
    cells = make_cells(template.render(platform=platform, package=PACKAGE))
    notebook = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            **platform.metadata,
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def make_cells(document: str) -> list[dict[str, Any]]:
    """Split a Markdown document into cells."""
    cells: list[dict[str, Any]] = []
    blocks = re.split(r"^```python\n(.*?)^```\n", document, flags=re.MULTILINE | re.DOTALL)
    for number, block in enumerate(blocks):
        is_code = number % 2 == 1  # re.split puts what the group matches between the other texts
        for text in [block] if is_code else re.split(r"^(?=## )", block, flags=re.MULTILINE):
            if not text.strip():
                continue
            cell = {"id": f"cell-{len(cells) + 1:02d}", "metadata": {}, "source": text.strip("\n").splitlines(True)}
            if is_code:
                cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
            else:
                cell |= {"cell_type": "markdown"}
            cells.append(cell)
    return cells


if __name__ == "__main__":
    for one in PLATFORMS:
        notebook_file(one).write_text(make_notebook(one))
        print(f"written: {notebook_file(one).relative_to(FOLDER.parent)}")
