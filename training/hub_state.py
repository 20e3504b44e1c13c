"""The complete state of a run in its repo: the folder `last-checkpoint`, without pickles, replaced in one commit.

It is next to the adapter of the same step. `training.portable_checkpoint` says what is in it. The file `session.json`
names the session that may push: a session that was taken over finds another name there, and pushes nothing.
"""

import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import CommitInfo, HfApi, errors, hf_hub_download
from huggingface_hub.hf_api import RepoFile
from peft import get_peft_model_state_dict
from transformers import PaliGemmaConfig

from product_vqa.disk_space import DiskPlan, Need
from product_vqa.distributed import decide_in_first_process, init_distributed
from product_vqa.documents import parse_json
from product_vqa.errors import InputError, argument, first_line
from product_vqa.hub import BRIEF_WAITS_S, commit_files, hub_errors, read_file, retry
from product_vqa.hub.locations import commit_of
from product_vqa.modeling.model_files import MAX_HEADER_BYTES, is_integer
from product_vqa.provenance import ADAPTER_WEIGHTS
from training.checkpoints import MANIFEST_FILE, find_damage, load_manifest, newest_step
from training.hub_lease import Lease
from training.loading import make_lora
from training.memory import build_empty_model
from training.options import ModelOptions, TrainingOptions
from training.portable_checkpoint import (
    BEST_ADAPTER,
    MAX_STATE_BYTES,
    MAX_STEP,
    STATE_FILE,
    TENSORS_FILE,
    import_checkpoint,
)
from training.push import push_adapter
from training.run_config import NO_SHARDING, check_same_config

logger = logging.getLogger(__name__)

STATE_FOLDER = "last-checkpoint"  # as transformers calls it
SESSION_FILE = "session.json"
DOWNLOAD_FOLDER = ".from_hub"
MAX_MANIFEST_BYTES = 1024**2
MAX_SESSION_BYTES = 10_000
MAX_PROCESSES = 2**16
MAX_TENSORS_PER_WEIGHT = 6  # numbers of the optimizer; Adam has 2
_START_OVER = "restore it with an earlier commit, or set `resume_from_hub` false to start over, which replaces it"


@dataclass(frozen=True)
class HubState:
    """A state that a repo holds at a commit."""

    repo_id: str
    commit: str
    step: int
    sizes: dict[str, int]  # file -> bytes
    adapter: Mapping[str, tuple[int, ...]]  # the shapes of the run's adapter

    def __str__(self) -> str:
        return f"the state of step {self.step} in {self.repo_id}@{self.commit[:7]}"

    def plan(self, output_dir: Path) -> DiskPlan:
        """Plan the download, and the checkpoint that is made of it."""
        total = sum(self.sizes.values())
        return DiskPlan((Need("state of the run", "`output_dir`", output_dir, 2 * total),), downloaded=total)

    def fetch(self, output_dir: Path) -> None:
        """Download the state and make it a checkpoint in `output_dir`, which is complete or absent.

        Every process must call this. Raises InputError, which names the file, if it is damaged or not of this run.
        """
        decide_in_first_process(lambda: self._fetch(output_dir))

    def _fetch(self, output_dir: Path) -> None:
        folder = output_dir / DOWNLOAD_FOLDER
        try:
            self._import(folder, output_dir)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _import(self, folder: Path, output_dir: Path) -> None:
        where = f"{self.repo_id}@{self.commit[:7]}"
        with argument("hub_model_id"), hub_errors(self.repo_id):
            for name in self.sizes:
                _download(self.repo_id, name, commit=self.commit, folder=folder)
        with argument("hub_model_id"):
            if damage := find_damage(folder / STATE_FOLDER):
                raise InputError(f"{where}: {damage.replace(f'{folder}/', '')}; {_START_OVER}")
            try:
                name = f"{where}: {STATE_FOLDER}"
                import_checkpoint(folder / STATE_FOLDER, output_dir, adapter=self.adapter, name=name)
            except InputError as error:
                raise InputError(f"{error}; {_START_OVER}") from error
            except (OSError, RuntimeError) as error:  # the disk is full
                raise InputError(
                    f"{where}: its state cannot be written to {output_dir} ({first_line(error)}); make room and rerun"
                ) from error


def _download(repo_id: str, name: str, *, commit: str, folder: Path) -> None:
    path = f"{STATE_FOLDER}/{name}"
    retry(lambda: hf_hub_download(repo_id, path, revision=commit, local_dir=folder), waits_s=BRIEF_WAITS_S)


def adapter_shapes(config: PaliGemmaConfig, options: ModelOptions) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of an adapter's tensors as they are saved, without loading any weights."""
    _, adapted = build_empty_model(config, make_lora(options), dtype=torch.float32)
    tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@contextmanager
def hold_repo(repo_id: str | None, options: TrainingOptions) -> Iterator["StateRepo | None"]:
    """Hold the lease on the repo of a run that keeps its state there; yields None for any other run.

    Every process must call this. Raises InputError if another session has the lease, unless `hub_take_over`.
    """
    if repo_id is None or not options.keeps_state_on_hub:
        yield None
        return
    repo = StateRepo(repo_id, revision=options.hub_revision)
    try:
        decide_in_first_process(lambda: repo.take(take_over=options.hub_take_over))
        yield repo
        repo.end()
        init_distributed().wait_for_everyone()  # a process that ends makes torchrun end the others
    finally:
        repo.end()


class StateRepo:
    """The repo of a run that keeps its state there, as one session sees it.

    Every process must call `find`, `check_held` and `end`; the first one does the work. The rest is for that one.
    """

    def __init__(self, repo_id: str, *, revision: str | None) -> None:
        self.repo_id = repo_id
        self.lease = Lease(repo_id)
        self.pushes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="push")
        self._revision = revision
        self._earlier_session: str | None = None  # as `session.json` names it at the beginning

    def check_held(self) -> None:
        """Raise InputError if another session has taken over."""
        decide_in_first_process(self.lease.check)

    def take(self, *, take_over: bool) -> None:
        """Take the lease. Raises InputError if a living session has it, unless `take_over`."""
        before = self.lease.acquire(take_over=take_over)
        with argument("hub_model_id"), hub_errors(self.repo_id, revision=self._revision):
            self._earlier_session = self._read_session(self._revision)
            if before is not None:  # it may not be dead: from here on, it pushes nothing
                session = {f"{STATE_FOLDER}/{SESSION_FILE}": self._session_content()}
                message = f"Session {self.lease.me.id[:8]} continues"
                commit_files(self.repo_id, session, message=message, revision=self._revision)

    def end(self) -> None:
        """Wait for the pushes, and release the lease: a later push would be taken for that of another session."""
        self.pushes.shutdown(wait=True)
        self.lease.release()

    # ---- To resume from it -----------------------------------------------------------------------------------------

    def find(
        self,
        output_dir: Path,
        *,
        run: dict[str, Any],
        get_shapes: Callable[[], Mapping[str, tuple[int, ...]]],
        options: TrainingOptions,
    ) -> HubState | None:
        """Find the state to resume this run from; None if there is none, or if `output_dir` has as new a checkpoint.

        `run` describes the run, and `get_shapes` returns the names and shapes of its adapter's tensors. Raises
        InputError, which names the file, for a state of another run, or one that is incomplete or too large.
        """

        is_wanted = options.resume_from_hub is not False and not options.resume_from_checkpoint

        def find() -> HubState | None:
            with argument("hub_model_id"), hub_errors(self.repo_id, revision=self._revision):
                commit, sizes = self._list_files()
            if sizes and not is_wanted:
                logger.info("the state in %s is not used; that of the next checkpoint replaces it", self.repo_id)
            if not sizes and options.resume_from_hub:
                logger.info("%s holds no state of a run", self.repo_id)
            if not sizes or not is_wanted:
                return None
            adapter = get_shapes()
            with argument("hub_model_id"), hub_errors(self.repo_id, revision=self._revision):
                state = self._read(commit, sizes, run=run, adapter=adapter)
            if state.step <= newest_step(output_dir, keeps_best=bool(options.load_best_model_at_end)):
                return None
            logger.info("resuming from %s", state)
            return state

        return decide_in_first_process(find)

    def _read(
        self,
        commit: str,
        sizes: dict[str, int],
        *,
        run: dict[str, Any],
        adapter: Mapping[str, tuple[int, ...]],
    ) -> HubState:
        """Check the sizes of the files of a state, and its manifest, which is downloaded for that."""
        where = f"{self.repo_id}@{commit[:7]}"
        sizes = _check_sizes(sizes, adapter=adapter, where=where)
        with TemporaryDirectory(prefix="state-") as folder:
            _download(self.repo_id, MANIFEST_FILE, commit=commit, folder=Path(folder))
            manifest = load_manifest(Path(folder, STATE_FOLDER))
        if isinstance(manifest, str) or not _describes(manifest, sizes):
            raise InputError(f"{where}: its {STATE_FOLDER}/{MANIFEST_FILE} is damaged; {_START_OVER}")
        check_same_config(
            manifest["run"]["config"],
            run["config"],
            where=f"{where} ({STATE_FOLDER})",
            processes=run["processes"],
            remedy="choose another repo, or set `resume_from_hub` false to start over, which replaces it",
        )
        return HubState(self.repo_id, commit, manifest["run"]["step"], sizes, adapter)

    def _list_files(self) -> tuple[str, dict[str, int]]:
        """Return the commit of the branch, and the sizes of the state's files."""
        api = HfApi()
        info = retry(lambda: api.model_info(self.repo_id, revision=self._revision), waits_s=BRIEF_WAITS_S)
        commit = commit_of(info)
        if not any(file.rfilename.startswith(f"{STATE_FOLDER}/") for file in info.siblings or ()):
            return commit, {}

        def read() -> list[Any]:
            return list(api.list_repo_tree(self.repo_id, STATE_FOLDER, recursive=True, revision=commit))

        files = [entry for entry in retry(read, waits_s=BRIEF_WAITS_S) if isinstance(entry, RepoFile)]
        sizes = {file.path.removeprefix(f"{STATE_FOLDER}/"): file.size for file in files}
        return commit, {name: size for name, size in sizes.items() if name != SESSION_FILE}

    # ---- To keep it there ------------------------------------------------------------------------------------------

    def push(self, folder: Path, *, files: Sequence[str], step: int, **options: Any) -> CommitInfo:
        """Commit the files of a step's adapter and state, which replace the state before.

        `options` are those of `training.push.push_adapter`. Raises InputError if another session has taken over.
        """
        (folder / STATE_FOLDER / SESSION_FILE).write_bytes(self._session_content())
        return push_adapter(
            folder,
            files=[*files, f"{STATE_FOLDER}/{SESSION_FILE}"],
            repo_id=self.repo_id,
            revision=self._revision,
            message=f"Adapter and state after step {step}",
            is_obsolete=lambda name: name.startswith(f"{STATE_FOLDER}/"),
            check_head=self.check_head,
            **options,
        )

    def check_head(self, commit: str) -> None:
        """Raise InputError if another session has taken over, before or at a commit of the pushed branch."""
        self.lease.check()
        session = self._read_session(commit)
        if session not in (None, self._earlier_session, self.lease.me.id):
            self.lease.lose_to(session)
            self.lease.check()

    def _session_content(self) -> bytes:
        return (json.dumps({"id": self.lease.me.id}) + "\n").encode()

    def _read_session(self, revision: str | None) -> str | None:
        """Return the id in `session.json`; None if there is no such file, or not from this project."""
        path = f"{STATE_FOLDER}/{SESSION_FILE}"
        try:
            read = partial(read_file, self.repo_id, path, revision=revision, max_bytes=MAX_SESSION_BYTES)
            return str(parse_json(retry(read, waits_s=BRIEF_WAITS_S))["id"])
        except (errors.EntryNotFoundError, ValueError, KeyError, TypeError):
            return None


def _check_sizes(sizes: dict[str, int], *, adapter: Mapping[str, tuple[int, ...]], where: str) -> dict[str, int]:
    """Return the sizes of the files that are to be downloaded; nobody reads others in the folder.

    Raises InputError if a file is missing, or larger than a run with this adapter writes.
    """
    weights = sum(math.prod(shape) for shape in adapter.values())
    largest = {
        MANIFEST_FILE: MAX_MANIFEST_BYTES,
        STATE_FILE: MAX_STATE_BYTES,
        ADAPTER_WEIGHTS: 4 * weights + MAX_HEADER_BYTES,
        BEST_ADAPTER: 4 * weights + MAX_HEADER_BYTES,
        TENSORS_FILE: 4 * weights * MAX_TENSORS_PER_WEIGHT + MAX_HEADER_BYTES,
    }
    for name, size in largest.items():
        if name not in sizes and name != BEST_ADAPTER:
            raise InputError(f"{where}: its {STATE_FOLDER} has no {name}, so no run can resume from it; {_START_OVER}")
        if sizes.get(name, 0) > size:
            raise InputError(
                f"{where}: its {STATE_FOLDER}/{name} has {sizes[name]} bytes, more than {size}; {_START_OVER}"
            )
    return {name: size for name, size in sizes.items() if name in largest}


def _describes(manifest: dict[str, Any], sizes: dict[str, int]) -> bool:
    """Whether a manifest is that of a state, and of these files."""
    run, files = manifest["run"], manifest["files"]
    return (
        is_integer(run.get("step"), 1, MAX_STEP)
        and is_integer(run["processes"], 1, MAX_PROCESSES)
        and run["sharding"] == NO_SHARDING
        and {name: file["size"] for name, file in files.items()} | {MANIFEST_FILE: sizes[MANIFEST_FILE]} == sizes
    )
