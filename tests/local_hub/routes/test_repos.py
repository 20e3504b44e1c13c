import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError


def test_a_repo_in_another_namespace_is_refused(api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("somebody/else")


def test_a_search_finds_a_repo_by_its_card(api: HfApi, repo: str) -> None:
    metadata = "license: gemma\nlibrary_name: peft\npipeline_tag: image-text-to-text\ntags: [x]\nbase_model: a/b"
    api.upload_file(repo_id=repo, path_in_repo="README.md", path_or_fileobj=f"---\n{metadata}\n---\nHi".encode())
    info = api.model_info(repo)
    assert (info.library_name, info.pipeline_tag) == ("peft", "image-text-to-text")
    assert info.card_data is not None and info.card_data.license == "gemma"
    assert info.tags == ["peft", "image-text-to-text", "x", "license:gemma", "base_model:a/b"]
    found = api.list_models(author="local", search=repo[-6:], filter=["license:gemma", "x"])
    assert [model.id for model in found] == [repo]
    assert not list(api.list_models(search=repo[-6:], filter="y"))


def test_invalid_yaml_in_a_card_is_refused_before_the_upload(api: HfApi, repo: str) -> None:
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.upload_file(repo_id=repo, path_in_repo="README.md", path_or_fileobj=b"---\na: [\n---\n")
