"""local_hub: its process is killed, or its disk fails, while a client changes repos step by step."""

import hashlib
import json
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pygit2

from local_hub.lfs import parse_pointer
from tests.faults.commands import Command
from tests.faults.hub_session import MOVED, REPO
from tests.faults.scenarios import REFUSED, Scenario

NUM_STEPS = 12


class LocalHubSession(Scenario):
    """Each confirmed step is there, and the next one entirely or not at all."""

    name = "local_hub"
    also_allowed = frozenset({REFUSED})  # by the client: it fails with its Hub
    brief_sleeps = True  # of the client, between its attempts

    def command(self, folder: Path, *, steps: int = NUM_STEPS) -> Command:
        arguments = [str(folder / "root"), f"{folder}-confirmed.log", str(steps)]
        return Command("tests.faults.hub_session", arguments)

    def prepare(self, folder: Path) -> None:
        self._log(folder).unlink(missing_ok=True)

    def _log(self, folder: Path) -> Path:
        return folder.with_name(f"{folder.name}-confirmed.log")

    def is_read_back(self, file: str) -> bool:
        return file != "root/hub.lock"

    def is_input(self, file: str) -> bool:
        return True  # the session itself compares what it reads back

    def find_now(self, file: Path) -> Path:
        moved = Path(str(file).replace(f"/{REPO}/", f"/{MOVED}/"))
        return moved if moved.exists() else file

    def result(self, folder: Path) -> dict[str, str]:
        """Every file of every branch and tag, every setting, and whether git finds fault with a repo."""
        found: dict[str, str] = {}
        for settings in sorted((folder / "root").glob("*s/*/*/settings.json")):
            repo = settings.parent
            name = repo.relative_to(folder / "root").as_posix()
            with tempfile.TemporaryDirectory() as copied:
                git = Path(shutil.copytree(repo / "git", Path(copied, "git")))
                check = ["git", "-c", "safe.directory=*", "--git-dir", str(git), "fsck", "--strict", "--no-dangling"]
                fsck = subprocess.run(check, capture_output=True, text=True)
                found[f"{name} fsck"] = str(fsck.returncode)
                found[f"{name} settings"] = _settings(settings)
                found |= {f"{name} {key}": value for key, value in _contents(git, repo / "large_files").items()}
        return found

    @cache  # noqa: B019  # as long as the lane
    def snapshot(self, steps: int) -> dict[str, str]:
        """The result after this number of steps."""
        folder = self.lane.folder / f"after-{steps}-steps"
        folder.mkdir()
        self.prepare(folder)
        ended = self.lane.commands.run(self.command(folder, steps=steps), folder=folder)
        assert ended.code == 0, ended.stderr
        return self.result(folder)

    def is_partial_allowed(self, found: dict[str, str], expected: dict[str, str]) -> bool:
        log = self._log(self.lane.folder / "trials" / self.name)
        confirmed = len(log.read_text().splitlines()) if log.exists() else 0
        return any(found == self.snapshot(min(steps, NUM_STEPS)) for steps in (confirmed, confirmed + 1))


def _settings(file: Path) -> str:
    try:
        values = json.loads(file.read_bytes())
        return str({key: values[key] for key in sorted(values) if key != "created_at"})
    except (ValueError, TypeError) as error:
        return f"unreadable: {error}"


def _contents(git: Path, large_files: Path) -> dict[str, str]:
    try:
        return _read(pygit2.Repository(str(git)), large_files)
    except (pygit2.GitError, OSError, KeyError, ValueError) as error:
        return {"unreadable": str(error)}


def _read(repository: pygit2.Repository, large_files: Path) -> dict[str, str]:
    found = {}
    for reference in repository.references:
        tree = repository.references[reference].peel(pygit2.Commit).tree
        pending = [("", tree)]
        while pending:
            prefix, folder = pending.pop()
            for entry in folder:
                if isinstance(entry, pygit2.Tree):
                    pending.append((f"{prefix}{entry.name}/", entry))
                    continue
                content = entry.data
                if pointer := parse_pointer(content):
                    file = large_files / pointer.oid[:2] / pointer.oid
                    content = file.read_bytes() if file.is_file() else b"missing"
                found[f"{reference} {prefix}{entry.name}"] = hashlib.sha256(content).hexdigest()
    return found
