"""URLs of repos on the Hub."""

from huggingface_hub import constants


def page_url(repo_id: str, *, repo_type: str = "model") -> str:
    """Return the URL of a repo's page."""
    prefix = {"model": "", "dataset": "datasets/", "space": "spaces/"}[repo_type]
    return f"{constants.ENDPOINT}/{prefix}{repo_id}"
