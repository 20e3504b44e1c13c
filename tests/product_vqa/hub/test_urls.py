from huggingface_hub import constants

from product_vqa.hub.urls import page_url


def test_each_type_of_repo_has_its_page() -> None:
    assert page_url("user/model") == f"{constants.ENDPOINT}/user/model"
    assert page_url("user/data", repo_type="dataset") == f"{constants.ENDPOINT}/datasets/user/data"
    assert page_url("user/page", repo_type="space") == f"{constants.ENDPOINT}/spaces/user/page"
