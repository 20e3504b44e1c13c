"""Addresses of repos on the Hub in use."""

from huggingface_hub import constants


def page_url(repo_id: str, *, repo_type: str = "model") -> str:
    """The repo's page on the Hub in use."""
    prefix = {"model": "", "dataset": "datasets/", "space": "spaces/"}[repo_type]
    return f"{constants.ENDPOINT}/{prefix}{repo_id}"
