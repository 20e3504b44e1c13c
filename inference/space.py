"""The demo page as a Space: demo.py as its app.py, the packages that it imports, its settings and its requirements."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi

from product_vqa.cards import mark_card
from product_vqa.errors import InputError, argument
from product_vqa.hub import commit_files, hub_errors, locate, page_url, retry

SETTINGS_FILE = "demo.yaml"  # a Space has no command line: the options of demo.py are in this file next to app.py
_ROOM = Path(__file__).parent
# What the reader and the page import directly, each at the version that runs here.
_REQUIREMENTS = (
    "torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "outlines-core", "huggingface_hub", "httpx2",
    "pillow", "pandas", "scipy", "pyyaml", "tqdm",
)  # fmt: skip
_CARD = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
models:
- {adapter}
license: apache-2.0
---

Extracts product attributes from images with [{adapter}]({url}).
"""


def push_space(
    space_id: str,
    *,
    adapter: str,
    base_model: str | None = None,
    load_in_4bit: bool | None = None,
    num_beams: int = 3,
    examples: list[str] | None = None,
    private: bool = True,
) -> str:
    """Push the page as a Space in one commit; returns its URL. `examples` are image files to choose from.

    Raises InputError if the adapter or the base model is a local folder, and if the Hub refuses.
    """
    for name, value in (("adapter", adapter), ("base_model", base_model)):
        with argument(name):
            if value and locate(value).folder is not None:
                raise InputError(f"{value} is a folder, which a Space cannot read: push it to the Hub first")
    settings = {"adapter": adapter, "base_model": base_model, "load_in_4bit": load_in_4bit, "num_beams": num_beams}
    files = _make_files(space_id, settings=settings, examples=examples or [])
    with argument("space_id"), hub_errors(space_id, repo_type="space"):
        created = retry(
            lambda: HfApi().create_repo(
                space_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True
            )
        )
        commit_files(
            created.repo_id,
            files,
            message=f"Page for {adapter}",
            repo_type="space",
            needed_metadata=("sdk", "app_file"),
        )
    return page_url(created.repo_id, repo_type="space")


def _make_files(space_id: str, *, settings: dict[str, Any], examples: list[str]) -> dict[str, Path | bytes]:
    """Path in the Space -> content."""
    adapter = settings["adapter"].partition("@")[0]
    card = _CARD.format(
        title=space_id.rpartition("/")[2], gradio=version("gradio"), adapter=adapter, url=page_url(adapter)
    )
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS]
    settings = {name: value for name, value in settings.items() if value is not None} | {"host": "0.0.0.0"}
    if examples:
        settings["examples"] = "examples"
    files: dict[str, Path | bytes] = {
        "README.md": mark_card(card).encode(),
        "requirements.txt": ("\n".join(pins) + "\n").encode(),
        SETTINGS_FILE: yaml.safe_dump(settings).encode(),
        "app.py": _ROOM / "demo.py",
    }
    for package in ("product_vqa", "inference"):
        for file in sorted((_ROOM.parent / package).rglob("*")):
            if file.suffix in (".py", ".yaml", ".jpg"):  # the YAML is the challenge's schema, the JPEGs are examples
                files[file.relative_to(_ROOM.parent).as_posix()] = file
    return files | {f"examples/{Path(example).name}": Path(example) for example in examples}
