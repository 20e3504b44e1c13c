"""The page as a Space: demo.py as its app.py, what that imports, its options, and the versions it runs with."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from product_vqa.errors import InputError, argument

if TYPE_CHECKING:
    from inference.demo import DemoOptions

_PACKAGES = Path(__file__).parents[1]
# What the reader and the page import, directly; each at the version that runs here.
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

Reads product attributes off photographs with [{adapter}](https://huggingface.co/{adapter}).
"""


def push_space(options: "DemoOptions") -> str:
    """Upload everything in one commit; returns the Space's address.

    Raises InputError for an adapter or base that is a folder of this machine, and if the Hub refuses.
    """
    import yaml
    from huggingface_hub import HfApi

    from product_vqa.cards import mark_card
    from product_vqa.hub import commit_files, hub_errors, locate, page_url, retry

    assert options.space_id is not None
    for option, name in (("adapter", options.adapter), ("base_model", options.base_model)):
        with argument(option):
            if name and locate(name).folder is not None:
                raise InputError(f"{name} is a folder: a Space reads from the Hub; push it first")
    own = {"adapter", "base_model", "load_in_4bit", "num_beams"}
    settings = {name: value for name, value in asdict(options).items() if name in own and value is not None}
    settings |= {"host": "0.0.0.0"} | ({"examples": "examples"} if options.examples else {})
    adapter = options.adapter.partition("@")[0]
    card = _CARD.format(title=options.space_id.rpartition("/")[2], gradio=version("gradio"), adapter=adapter)
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS]
    texts = {
        "README.md": mark_card(card),
        "requirements.txt": "\n".join(pins) + "\n",
        "demo.yaml": yaml.safe_dump(settings),
    }
    files: dict[str, str | bytes] = {name: text.encode() for name, text in texts.items()}
    files["app.py"] = str(Path(__file__).with_name("demo.py"))
    for package in ("product_vqa", "inference"):
        for file in sorted((_PACKAGES / package).rglob("*.py")):
            files[file.relative_to(_PACKAGES).as_posix()] = str(file)
    if options.examples:
        from inference.demo import find_examples

        files |= {f"examples/{Path(example).name}": example for example in find_examples(options.examples)}
    with argument("space_id"), hub_errors(options.space_id, repo_type="space"):
        api = HfApi()
        repo_id = retry(
            lambda: api.create_repo(
                options.space_id,
                repo_type="space",
                space_sdk="gradio",
                private=options.hub_private_repo,
                exist_ok=True,
            )
        ).repo_id
        commit_files(
            repo_id,
            {path: content if isinstance(content, bytes) else Path(content) for path, content in files.items()},
            message=f"A page that reads with {options.adapter}",
            repo_type="space",
            needed_metadata=("sdk", "app_file"),
        )
    return page_url(repo_id, repo_type="space")
