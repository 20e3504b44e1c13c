from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from tests.local_hub.raw_requests import Send


def test_all_pages_of_a_listing_are_of_one_commit(api: HfApi, repo: str, send: Send) -> None:
    files = [CommitOperationAdd(f"f{number:04}.txt", b"%d" % number) for number in range(1100)]
    api.create_commit(repo, files, commit_message="many")
    assert len(api.list_repo_files(repo)) == 1101
    assert len(list(api.list_repo_tree(repo))) == 1101
    first = send("GET", f"/api/models/{repo}/tree/main")
    assert len(first.json) == 1000
    api.create_commit(repo, [CommitOperationDelete("f0000.txt")], commit_message="meanwhile")
    next_url = first.headers["link"].removeprefix("<").partition(">")[0]
    second = send("GET", "/" + next_url.split("/", 3)[3])
    assert len(second.json) == 101 and second.json[-1]["path"] == "f1099.txt"


def test_a_search_continues_over_pages_and_stops_at_its_limit(api: HfApi, send: Send) -> None:
    for number in range(3):
        api.create_repo(f"local/page-{number}", repo_type="dataset")
    assert len(list(api.list_datasets(search="page-"))) == 3
    assert len(list(api.list_datasets(search="page-", limit=2))) == 2
    assert 'rel="next"' in send("GET", "/api/datasets?search=page-&limit=2").headers["link"]
