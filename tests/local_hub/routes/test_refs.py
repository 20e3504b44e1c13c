from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError


def test_branches_and_tags_may_contain_slashes(api: HfApi, repo: str, tmp_path: Path) -> None:
    api.create_branch(repo, branch="dev/x")
    api.upload_file(repo_id=repo, path_in_repo="d.txt", path_or_fileobj=b"dev", revision="dev/x")
    api.create_tag(repo, tag="v/1", revision="dev/x", tag_message="first")
    refs = api.list_repo_refs(repo)
    assert {branch.name for branch in refs.branches} == {"main", "dev/x"}
    assert refs.tags[0].target_commit == api.model_info(repo, revision="dev/x").sha
    for revision in ("dev/x", "v/1", "refs/tags/v/1", refs.tags[0].target_commit, refs.tags[0].target_commit[:7]):
        assert Path(api.hf_hub_download(repo, "d.txt", revision=revision, cache_dir=tmp_path)).read_text() == "dev"
    assert not api.file_exists(repo, "d.txt")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch(repo, branch="dev/x")
    with pytest.raises(HfHubHTTPError, match="there are refs beneath"):
        api.create_branch(repo, branch="dev")
    api.delete_branch(repo, branch="dev/x")
    api.delete_tag(repo, tag="v/1")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.delete_branch(repo, branch="main")
