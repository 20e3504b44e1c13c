"""The repo of an exported model: what a push replaces, and which repos it refuses."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi

from inference.export_repo import open_repo, push_export
from local_hub import LocalHub
from product_vqa.errors import InputError

pytestmark = pytest.mark.slow


def test_a_push_replaces_earlier_weights_and_keeps_the_users_files(hub: LocalHub, tmp_path: Path) -> None:
    repo_id = open_repo("exported", private=True)
    assert repo_id == "local/exported"
    for name in ("model-00001-of-00002.safetensors", "calibration.json", "schema.yaml", "modeling_notes.md"):
        HfApi().upload_file(repo_id=repo_id, path_in_repo=name, path_or_fileobj=b"earlier")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "schema.yaml").write_bytes(b"new")
    assert push_export(tmp_path, repo_id).startswith(hub.endpoint)
    files = set(HfApi().list_repo_files(repo_id)) - {".gitattributes"}
    assert files == {"model.safetensors", "schema.yaml", "modeling_notes.md"}


def test_a_repo_with_an_adapter_is_refused(hub: LocalHub) -> None:
    HfApi().create_repo("local/with-adapter")
    HfApi().upload_file(repo_id="local/with-adapter", path_in_repo="adapter_config.json", path_or_fileobj=b"{}")
    with pytest.raises(InputError, match="local/with-adapter holds an adapter; choose another repo"):
        open_repo("local/with-adapter", private=True)
