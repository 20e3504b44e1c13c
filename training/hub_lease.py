"""A lease on a repo: one session at a time trains to it.

The lease is a file on a branch of its own, which the session renews while it lives and deletes at its end. Of two
sessions that want the repo at once, the Hub lets one commit to the branch. A session that was killed is found by the
age of its last renewal; on the same machine, by its process, at once.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, errors

from product_vqa.documents import parse_json
from product_vqa.errors import InputError, argument
from product_vqa.hub import BRIEF_WAITS_S, commit_on_top, hub_errors, read_branch, read_file, retry
from product_vqa.quoting import one_line

logger = logging.getLogger(__name__)

BRANCH = "run-lease"
FILE = "lease.json"
# The Hub allows about 128 commits per hour and repo, and a run also pushes its states.
RENEW_S = 120.0
EXPIRE_S = 2.5 * RENEW_S
POLL_S = 10.0
STOP_S = 30.0  # that a run which is stopping on the same machine has: torchrun kills it then
RELEASE_S = 10.0  # that a session needs at most to release its lease and to delete the branch
MAX_BYTES = 10_000  # of the file


@dataclass(frozen=True)
class Holder:
    """The session that holds a lease, as its file describes it."""

    id: str
    host: str
    machine: str  # this boot of this machine, or of this container
    pid: int
    process_start: int  # in the kernel's ticks since the boot: a later process may have the same pid
    since: str

    def __str__(self) -> str:
        name = f"session {one_line(self.id)[:8]}" if self.id else "an unknown session"
        if not self.host:
            return name
        return f"{name} on {one_line(self.host, max_length=80)}, process {self.pid}, since {one_line(self.since)}"

    @property
    def is_here(self) -> bool:
        return self.machine == _machine()

    @property
    def is_running(self) -> bool:
        """Whether its process still runs, if it is one of this machine."""
        return _process_start(self.pid) == self.process_start


def make_holder() -> Holder:
    """Describe this process."""
    pid = os.getpid()
    return Holder(
        id=secrets.token_hex(16),
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        process_start=_process_start(pid) or 0,
        since=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _machine() -> str:
    """Identify this boot and, in a container, its own numbering of processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return hashlib.sha256(f"{boot} {os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:32]
    except OSError:  # not Linux: as if every session were on another machine
        return secrets.token_hex(16)


def _process_start(pid: int) -> int | None:
    """When a process started; None if there is none, or if only its exit code is left."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(rest[18])


_UNKNOWN = Holder(id="", host="", machine="", pid=0, process_start=0, since="")


def _parse(content: bytes) -> Holder | None:
    """Read the file of a lease, which anyone may have written; None if it was released."""
    try:
        values = parse_json(content, max_bytes=MAX_BYTES)
        if values.get("released") is True:
            return None
        holder = Holder(**{field.name: values[field.name] for field in fields(Holder)})
    except (ValueError, KeyError, AttributeError, TypeError):
        return _UNKNOWN
    kinds = {str: (holder.id, holder.host, holder.machine, holder.since), int: (holder.pid, holder.process_start)}
    is_right = all(type(value) is kind for kind, values in kinds.items() for value in values) and holder.pid > 0
    return holder if is_right and len(holder.since) < 50 else _UNKNOWN


@dataclass(frozen=True)
class _Found:
    """The branch of the lease as it was read."""

    commit: str
    age_s: float
    holder: Holder | None
    is_released: bool = False  # by its last holder, which deletes the branch next


class Lease:
    """The lease of this session on a repo. Use it in the first process only."""

    def __init__(self, repo_id: str) -> None:
        self.me = make_holder()
        self.taken_by: Holder | None = None  # the session that this one has lost the lease to
        self._repo_id = repo_id
        self._on_loss: Callable[[], None] = lambda: None
        self._commit = ""  # the newest one of the branch, as far as this session knows
        self._number = 0  # of renewals
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)

    # ---- To take it ------------------------------------------------------------------------------------------------

    def acquire(self, *, take_over: bool) -> Holder | None:
        """Take the lease, and keep renewing it until `release`. Returns the session that had not released it, if any.

        Waits for up to EXPIRE_S where only time shows whether that session still lives. Raises InputError if it does,
        unless `take_over`.
        """
        before: Holder | None = None
        with argument("hub_model_id"), hub_errors(self._repo_id):
            while not self._commit:
                found = self._find()
                if found.holder == self.me:  # by a commit whose response was lost
                    self._commit = found.commit
                    break
                if found.holder is not None and not take_over and not self._await_end(found):
                    continue
                before = found.holder
                self._commit_to(found.commit)  # unless another session was faster
        self._thread.start()
        return before

    def _find(self) -> _Found:
        """Read the branch, which is created if there is none.

        Waits while its last holder may still delete it, and with it the lease of the next one.
        """
        began = time.monotonic()
        while True:
            found = self._read() or self._create()
            if not found.is_released or max(found.age_s, time.monotonic() - began) >= RELEASE_S:
                return found
            time.sleep(0.5)

    def _create(self) -> _Found:
        create = partial(HfApi().create_branch, self._repo_id, branch=BRANCH, exist_ok=True)
        retry(create, waits_s=BRIEF_WAITS_S)
        found = self._read()
        if found is None:
            raise InputError(f"{self._repo_id}: its branch {BRANCH} was deleted while it was created; rerun")
        return found

    def _read(self) -> _Found | None:
        branch = read_branch(self._repo_id, BRANCH)
        if branch is None:
            return None
        try:
            read = partial(read_file, self._repo_id, FILE, revision=branch.commit, max_bytes=MAX_BYTES)
            holder = _parse(retry(read, waits_s=BRIEF_WAITS_S))
        except errors.RevisionNotFoundError:  # deleted in between
            return None
        except errors.EntryNotFoundError:  # just created
            return _Found(branch.commit, branch.age_s, None)
        except InputError:  # too large
            holder = _UNKNOWN
        return _Found(branch.commit, branch.age_s, holder, is_released=holder is None)

    def _await_end(self, first: _Found) -> bool:
        """Wait until the session that holds the lease has ended. Returns False if it has released the lease.

        True means that it was killed, or is taken to be dead. Raises InputError if a session is found to live.
        """
        holder, began, found = first.holder, time.monotonic(), first
        assert holder is not None
        while found.holder == holder and (holder.is_here or found.commit == first.commit):
            waited_s = time.monotonic() - began
            if holder.is_here:
                left_s = STOP_S - waited_s
                if not holder.is_running:
                    logger.info("%s: the last session was killed: %s", self._repo_id, holder)
                    return True
                if left_s <= 0:
                    break
            else:
                left_s = EXPIRE_S - max(found.age_s, waited_s)
                if left_s <= 0:
                    logger.info("%s: the last session ended without releasing it: %s", self._repo_id, holder)
                    return True
            if found is first:
                logger.info("%s is used by %s: waiting up to %.0f s to see if it ends", self._repo_id, holder, left_s)
            time.sleep(min(1.0 if holder.is_here else POLL_S, left_s + 0.1))
            again = self._read()
            if again is None or again.holder is None:
                return False
            found = again
        raise InputError(
            f"{self._repo_id} is used by {found.holder}, which is still running; wait until it has ended, choose "
            "another repo, or set `hub_take_over` true to end it and continue from its last state"
        )

    # ---- To hold it ------------------------------------------------------------------------------------------------

    def call_on_loss(self, function: Callable[[], None]) -> None:
        """Call `function`, in another thread, once the lease is lost."""
        self._on_loss = function
        if self.taken_by is not None:
            function()

    def check(self) -> None:
        """Raise InputError if another session has taken the lease over."""
        if self.taken_by is not None:
            raise InputError(
                f"`hub_model_id` {self._repo_id} was taken over by {self.taken_by}: this session pushes nothing more"
            )

    def lose_to(self, session: str) -> None:
        """Record that the session with this id has taken the lease over."""
        holder = replace(_UNKNOWN, id=session)
        with contextlib.suppress(Exception):  # it may have ended, and more than its id is for the message only
            found = self._read()
            if found is not None and found.holder is not None and found.holder.id == session:
                holder = found.holder
        self._lose_to(holder)

    def _lose_to(self, holder: Holder) -> None:
        if self.taken_by is None:
            self.taken_by = holder
            self._on_loss()

    def _keep_renewing(self) -> None:
        wait_s = RENEW_S
        while self.taken_by is None and not self._is_ended.wait(wait_s):
            try:
                with hub_errors(self._repo_id):
                    self._renew()
                wait_s = RENEW_S
            except Exception as error:  # whatever it is, it must not end the run: the Hub may be down for a while
                if wait_s == RENEW_S:  # once, not at each attempt
                    logger.warning("The lease on %s was not renewed (%s); trying again", self._repo_id, error)
                wait_s = RENEW_S / 2

    def _renew(self) -> None:
        parent = self._commit
        while not self._commit_to(parent):
            found = self._read() or self._create()  # None: somebody deleted the branch
            if found.holder == self.me:  # by an earlier commit, whose response was lost
                self._commit = found.commit
                return
            if found.holder is not None:
                self._lose_to(found.holder)
                return
            parent = found.commit

    def _commit_to(self, parent: str, **more: Any) -> bool:
        """Commit the lease on top of `parent`; returns whether that worked."""
        self._number += 1
        content = json.dumps(asdict(self.me) | {"renewals": self._number - 1} | more, indent=1) + "\n"
        files, message = {FILE: content.encode()}, f"Lease of session {self.me.id[:8]}"
        # A renewal is tried again anyway.
        waits_s = () if self._thread.is_alive() else BRIEF_WAITS_S
        commit = commit_on_top(self._repo_id, files, branch=BRANCH, parent=parent, message=message, waits_s=waits_s)
        self._commit = commit or self._commit
        return commit is not None

    # ---- To give it back -------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Delete the lease if this session still has it, within some seconds: a Hub may not answer."""
        was_ended = self._is_ended.is_set()
        self._is_ended.set()
        if self._commit and not was_ended:
            last = threading.Thread(target=self._give_back, name="end of the lease", daemon=True)
            last.start()
            last.join(RELEASE_S)

    def _give_back(self) -> None:
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(Exception):  # the next session finds out by itself
            if self._commit_to(self._commit, released=True):  # not if another session has it
                HfApi().delete_branch(self._repo_id, branch=BRANCH)
