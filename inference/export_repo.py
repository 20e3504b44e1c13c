"""The repo of an exported model: created before the work begins, and pushed in one commit."""

from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi

from product_vqa.errors import InputError, argument
from product_vqa.hub import commit_files, hub_errors, retry
from product_vqa.provenance import ADAPTER_CONFIG, CALIBRATION_FILE
from product_vqa.task.schema_file import SCHEMA_FILE


def open_repo(repo_id: str, *, private: bool) -> str:
    """Create the model repo if it does not exist, and return its id with the namespace.

    Raises InputError for a repo that holds an adapter: transformers would load that together with the merged model.
    """
    with argument("hub_model_id"), hub_errors(repo_id):
        api = HfApi()
        full_id = retry(lambda: api.create_repo(repo_id, private=private, exist_ok=True)).repo_id
        retry(lambda: api.auth_check(full_id, write=True))
        if ADAPTER_CONFIG in retry(lambda: api.list_repo_files(full_id)):
            raise InputError(f"{full_id} holds an adapter; choose another repo for the merged model")
    return full_id


def push_export(folder: Path, repo_id: str) -> str:
    """Push an exported folder in one commit, which removes weights and a calibration of an earlier one."""
    files = {file.name: file for file in sorted(folder.iterdir()) if file.is_file()}
    with argument("hub_model_id"), hub_errors(repo_id):
        commit = commit_files(
            repo_id,
            files,
            message="Merged model",
            is_obsolete=lambda name: name in (CALIBRATION_FILE, SCHEMA_FILE) or fnmatch(name, "model*.safetensors*"),
        )
    return commit.commit_url
