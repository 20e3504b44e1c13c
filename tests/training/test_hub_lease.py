"""One session at a time has a repo: the second one is refused, unless the first is dead or it takes over."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import HfApi

from local_hub import LocalHub
from product_vqa.errors import InputError
from product_vqa.hub import read_branch, read_file
from tests.faulty_hub import skip_waits
from training import hub_lease
from training.hub_lease import BRANCH, FILE, Holder, Lease, make_holder


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Lease]]:
    """Those that are to be released at the end. No session waits for long."""
    monkeypatch.setattr(hub_lease, "STOP_S", 0.5)
    monkeypatch.setattr(hub_lease, "POLL_S", 0.3)
    taken: list[Lease] = []
    yield taken
    for lease in taken:
        lease.release()


def take(repo_id: str, leases: list[Lease], *, take_over: bool = False, **changes: Any) -> Lease:
    """A session takes the lease; `changes` describe it otherwise than this process."""
    lease = Lease(repo_id)
    lease.me = replace(lease.me, **changes)
    lease.acquire(take_over=take_over)
    leases.append(lease)
    return lease


def read_lease(repo_id: str) -> dict[str, Any]:
    return json.loads(read_file(repo_id, FILE, revision=BRANCH))


ELSEWHERE = {"machine": "of somebody else", "host": "other"}


def test_a_lease_is_a_file_on_a_branch_that_is_deleted_at_the_end(repo_id: str, leases: list[Lease]) -> None:
    lease = take(repo_id, leases)
    assert read_lease(repo_id)["id"] == lease.me.id
    assert HfApi().list_repo_files(repo_id) == [".gitattributes"], "main stays as it is"
    lease.release()
    assert read_branch(repo_id, BRANCH) is None
    assert take(repo_id, leases).taken_by is None


def test_while_a_session_of_this_machine_runs_another_one_is_refused(repo_id: str, leases: list[Lease]) -> None:
    first = take(repo_id, leases)
    with pytest.raises(InputError) as raised:
        take(repo_id, leases)
    message = str(raised.value)
    assert f"`hub_model_id` {repo_id} is used by session {first.me.id[:8]} on {first.me.host}, process" in message
    assert "still running; wait until it has ended, choose another repo, or set `hub_take_over` true" in message
    assert read_lease(repo_id)["id"] == first.me.id


def test_a_session_that_stops_meanwhile_is_waited_for(repo_id: str, leases: list[Lease], monkeypatch: Any) -> None:
    monkeypatch.setattr(hub_lease, "STOP_S", 20)
    first = take(repo_id, leases)
    stopping = threading.Timer(0.5, first.release)
    stopping.start()
    take(repo_id, leases)
    stopping.join()


def test_a_killed_session_of_this_machine_is_dead_at_once(repo_id: str, leases: list[Lease]) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    start = hub_lease._process_start(process.pid)
    killed = take(repo_id, leases, pid=process.pid, process_start=start)
    assert killed.me.is_running
    process.kill()
    deadline = time.monotonic() + 10
    while killed.me.is_running:  # until only its exit code is left, which nobody has read
        assert time.monotonic() < deadline
        time.sleep(0.01)
    before = Lease(repo_id)
    assert before.acquire(take_over=False) == killed.me, "it had not released it"
    leases.append(before)
    process.wait()
    assert hub_lease._process_start(process.pid) is None


def test_another_process_of_the_same_number_is_not_the_session(repo_id: str, leases: list[Lease]) -> None:
    take(repo_id, leases, process_start=5)
    take(repo_id, leases)


@pytest.mark.faults
def test_a_session_elsewhere_that_renews_is_alive_and_one_that_does_not_is_dead(
    repo_id: str, leases: list[Lease], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(hub_lease, "RENEW_S", 0.4)
    monkeypatch.setattr(hub_lease, "EXPIRE_S", 3.0)
    first = take(repo_id, leases, **ELSEWHERE)
    with pytest.raises(InputError, match=r"is used by session .* on other, process .*still running"):
        take(repo_id, leases)
    assert "waiting up to 3 s to see if it ends" in caplog.text
    first._is_ended.set()  # as if it were killed
    first._thread.join()
    began = time.monotonic()
    take(repo_id, leases)
    assert 0.5 < time.monotonic() - began < 20
    assert "the last session ended without releasing it" in caplog.text


def test_a_session_that_starts_while_another_one_ends_waits_until_the_branch_is_gone(
    repo_id: str, leases: list[Lease]
) -> None:
    first = take(repo_id, leases)
    assert first._commit_to(first._commit, released=True)
    deleting = threading.Timer(1, lambda: HfApi().delete_branch(repo_id, branch=BRANCH))
    deleting.start()
    second = take(repo_id, leases)
    assert not deleting.is_alive(), "it would delete the lease of the second one"
    assert read_lease(repo_id)["id"] == second.me.id


def test_a_branch_that_a_dead_session_has_not_deleted_is_taken(
    repo_id: str, leases: list[Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take(repo_id, leases)
    assert first._commit_to(first._commit, released=True)
    monkeypatch.setattr(hub_lease, "RELEASE_S", 1)
    second = take(repo_id, leases)
    assert read_lease(repo_id)["id"] == second.me.id


def test_of_two_sessions_that_start_at_once_one_gets_it(repo_id: str, leases: list[Lease]) -> None:
    refused: list[str] = []

    def start() -> None:
        try:
            take(repo_id, leases)
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases) == 1 and len(refused) == 2


def test_a_session_that_is_taken_over_learns_it_and_leaves_the_others_lease_alone(
    repo_id: str, leases: list[Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_lease, "RENEW_S", 0.3)
    first = take(repo_id, leases)
    lost = threading.Event()
    first.call_on_loss(lost.set)
    first.check()
    second = take(repo_id, leases, take_over=True)
    assert lost.wait(20)
    with pytest.raises(InputError, match=rf"was taken over by session {second.me.id[:8]} .* pushes nothing more"):
        first.check()
    first.release()
    assert read_lease(repo_id)["id"] == second.me.id
    late: list[bool] = []
    first.call_on_loss(lambda: late.append(True))
    assert late == [True], "also who asks late"


def test_a_session_that_learns_of_its_end_from_a_push_names_the_other_one_and_leaves_no_lease(
    repo_id: str, leases: list[Lease]
) -> None:
    first = take(repo_id, leases)
    HfApi().delete_branch(repo_id, branch=BRANCH)  # by another session that came and went
    first._renew()
    assert first.taken_by is None and read_lease(repo_id)["id"] == first.me.id
    first.lose_to("b" * 32)
    with pytest.raises(InputError, match="was taken over by session bbbbbbbb: this session pushes nothing more"):
        first.check()
    first.release()
    assert read_branch(repo_id, BRANCH) is None


@pytest.mark.faults
def test_a_lease_is_renewed_also_where_the_hub_was_away_or_somebody_deleted_it(
    hub: LocalHub, repo_id: str, leases: list[Lease], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    skip_waits(monkeypatch)
    monkeypatch.setattr(hub_lease, "RENEW_S", 0.2)
    lease = take(repo_id, leases)

    def wait_for_renewal() -> None:
        before, deadline = lease._commit, time.monotonic() + 60
        while lease._commit == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    wait_for_renewal()
    hub.stop()
    try:
        deadline = time.monotonic() + 60
        while "was not renewed" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        hub.start()
    wait_for_renewal()
    HfApi().delete_branch(repo_id, branch=BRANCH)
    wait_for_renewal()
    assert lease.taken_by is None and read_lease(repo_id)["id"] == lease.me.id


OURS = vars(make_holder())
NO_LEASES = [
    b"", b"no", b"[]", b"{}", b'{"id": 3}', b"[" * 9000, b" " * 20_000,
    *(json.dumps(OURS | change).encode() for change in ({"pid": -1}, {"pid": "1"}, {"since": "x" * 99}, {"id": None})),
]  # fmt: skip


@pytest.mark.parametrize("content", NO_LEASES, ids=range(len(NO_LEASES)))
def test_what_cannot_be_a_lease_is_that_of_an_unknown_session(content: bytes) -> None:
    assert hub_lease._parse(content) == hub_lease._UNKNOWN
    assert hub_lease._parse(json.dumps(OURS | {"renewals": 3}).encode()) == Holder(**OURS)
    assert hub_lease._parse(json.dumps(OURS | {"released": True}).encode()) is None


@pytest.mark.parametrize("content", [b"no", b" " * 2**20], ids=["no lease", "too large"])
def test_an_unknown_session_is_waited_for(
    repo_id: str, leases: list[Lease], monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    api = HfApi()
    api.create_branch(repo_id, branch=BRANCH)
    api.upload_file(repo_id=repo_id, path_in_repo=FILE, path_or_fileobj=content, revision=BRANCH)
    monkeypatch.setattr(hub_lease, "EXPIRE_S", 1.5)
    began = time.monotonic()
    take(repo_id, leases)
    assert time.monotonic() - began > 0.4


def test_a_name_of_a_host_that_controls_terminals_is_shown_escaped() -> None:
    holder = replace(make_holder(), host="\x1b[2Jevil\n" * 50, since="\x07")
    assert "\x1b" not in str(holder) and "\n" not in str(holder) and "\x07" not in str(holder)
    assert len(str(holder)) < 300
    assert str(hub_lease._UNKNOWN) == "an unknown session"


@pytest.mark.faults
def test_a_hub_that_is_away_does_not_hold_up_the_end(
    hub: LocalHub, repo_id: str, leases: list[Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_lease, "RELEASE_S", 0.5)
    lease = take(repo_id, leases)
    hub.stop()
    began = time.monotonic()
    lease.release()
    assert time.monotonic() - began < 5
    hub.start()
