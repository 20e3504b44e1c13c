from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError


def test_each_missing_thing_raises_its_own_exception(api: HfApi, repo: str, tmp_path: Path) -> None:
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "nope.txt", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(repo, ".gitattributes", revision="nope", cache_dir=tmp_path)
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "no/folder"))
    for name in ("local/nope", "gpt2"):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info(name)
    with pytest.raises(EntryNotFoundError):
        api.delete_file("nope.txt", repo)
