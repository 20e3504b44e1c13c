from huggingface_hub import HfApi

from tests.local_hub.raw_requests import Send


def test_a_page_escapes_the_content_of_a_repo(api: HfApi, repo: str, send: Send) -> None:
    api.upload_file(repo_id=repo, path_in_repo="README.md", path_or_fileobj=b"<script>alert(1)</script>")
    page = send("GET", f"/{repo}", token=None)
    assert page.status == 200 and b"<script>" not in page.body and b"&lt;script&gt;" in page.body
    assert repo.encode() in send("GET", "/", token=None).body


def test_a_page_runs_no_script_and_cannot_be_framed(repo: str, send: Send) -> None:
    for path in ("/", f"/{repo}"):
        policy = send("GET", path, token=None).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
