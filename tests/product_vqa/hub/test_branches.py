"""A branch as the Hub shows it, and commits of which one at a time succeeds."""

import secrets
import threading
from typing import Any

import pytest
from huggingface_hub import HfApi

from product_vqa.hub import commit_on_top, read_branch, read_file
from product_vqa.hub.branches import _age
from tests.faulty_hub import FaultyHub, answer, done_but_500, reset


@pytest.fixture
def repo_id(bad_hub: FaultyHub) -> str:
    name = f"local/{secrets.token_hex(8)}"
    HfApi().create_repo(name)
    HfApi().create_branch(name, branch="side")
    return name


def commit(repo_id: str, content: bytes, *, parent: str) -> str | None:
    return commit_on_top(repo_id, {"a.json": content}, branch="side", parent=parent, message="A commit")


def test_a_commit_follows_the_one_that_it_was_made_for_or_is_not_made(repo_id: str) -> None:
    assert read_branch(repo_id, "missing") is None
    first = read_branch(repo_id, "side")
    assert first is not None and first.commit == HfApi().model_info(repo_id).sha
    second = commit(repo_id, b"1", parent=first.commit)
    assert second is not None and commit(repo_id, b"2", parent=first.commit) is None
    newest = read_branch(repo_id, "side")
    assert newest is not None and newest.commit == second and 0 <= newest.age_s < 60
    assert read_file(repo_id, "a.json", revision="side") == b"1"
    assert HfApi().model_info(repo_id).sha == first.commit, "main stays as it is"
    HfApi().delete_branch(repo_id, branch="side")
    assert commit(repo_id, b"2", parent=second) is None


def test_of_many_writers_one_succeeds(repo_id: str) -> None:
    first = read_branch(repo_id, "side")
    assert first is not None
    results: list[str | None] = []

    def write(number: int) -> None:
        results.append(commit(repo_id, b"%d" % number, parent=first.commit))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6 and sum(result is not None for result in results) == 1


@pytest.mark.parametrize("fault", [answer(500), answer(503), reset, done_but_500], ids=lambda fault: fault.__name__)
def test_a_fault_at_any_request_ends_in_one_commit(
    bad_hub: FaultyHub, repo_id: str, slept: list[float], fault: Any
) -> None:
    parent = HfApi().model_info(repo_id).sha
    bad_hub.begin()
    parent = commit(repo_id, b"first", parent=parent)
    requests = bad_hub.count
    assert requests >= 2
    for at in range(requests):
        bad_hub.begin(fault, at=at)
        made = commit(repo_id, b"%d" % at, parent=parent)
        newest = read_branch(repo_id, "side")
        assert newest is not None and made in (newest.commit, None)
        assert made is not None or fault is done_but_500, "only where the answer was lost, the branch has to be read"
        assert read_file(repo_id, "a.json", revision="side") == b"%d" % at
        parent = newest.commit


def test_the_age_of_a_commit_is_given_by_the_hubs_own_clock() -> None:
    for now, date, expected in (
        ("Fri, 27 Nov 2026 10:05:00 GMT", "2026-11-27T10:00:00.000Z", 300),
        ("Fri, 27 Nov 2026 10:05:00 GMT", "2026-11-27T11:05:00+01:00", 0),
        ("Fri, 27 Nov 2026 10:05:00 GMT", "2026-11-27T10:06:00.000Z", 0),
        ("", "2026-11-27T10:00:00.000Z", 0), ("yesterday", "2026-11-27T10:00:00Z", 0),
        ("Fri, 27 Nov 2026 10:05:00 GMT", "soon", 0), ("Fri, 27 Nov 2026 10:05:00 GMT", "2026-11-27", 0),
    ):  # fmt: skip
        assert _age(date, now=now) == expected, (now, date)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'[{"id": "../x", "date": ""}]', b'[{"id": 3}]', b"no"])
def test_an_answer_that_names_no_commit_is_an_error(
    bad_hub: FaultyHub, repo_id: str, slept: list[float], body: bytes
) -> None:
    bad_hub.begin(answer(200, body), at=0)
    if body == b"no":  # it may be a proxy's: asked again
        assert read_branch(repo_id, "side") is not None
        return
    with pytest.raises((IndexError, KeyError, TypeError)):
        read_branch(repo_id, "side")
