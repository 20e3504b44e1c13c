"""What the scenarios of one part share: a fork server, servers that fail on request, a small model and dataset."""

import random
import shutil
import threading
import time
from collections.abc import Callable
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from tests.dataset_builder.image_server import ImageServer, send
from tests.faults.commands import Commands
from tests.faulty_hub import FaultyHub


class FaultyImages(ImageServer):
    """Serves images; the request of index `at` since `begin` is answered by the fault."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._fault: Callable[[BaseHTTPRequestHandler], None] | None = None
        self._at = -1
        self._counting = threading.Lock()

    def begin(self, fault: Callable[[BaseHTTPRequestHandler], None] | None = None, *, at: int = -1) -> None:
        with self._counting:
            self.count, self._fault, self._at = 0, fault, at

    def serve(self, path: str, body: bytes) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            with self._counting:
                fault = self._fault if self.count == self._at else None
                self.count += 1
            if fault is None:
                send(handler, body)
            else:
                fault(handler)

        self.answers[path] = answer


class Lane:
    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.images = FaultyImages()
        self.hub = FaultyHub(folder / "hub")
        deadline = time.monotonic() + 20
        while not self.hub._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.commands = Commands(
            folder / "runs",
            environment={
                "HF_ENDPOINT": self.hub.endpoint,
                "HF_TOKEN": self.hub.token,
                "HF_HOME": str(folder / "hf"),
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DOWNLOAD_TIMEOUT": "2",
                "HF_HUB_ETAG_TIMEOUT": "2",
                "TOKENIZERS_PARALLELISM": "false",
                "OMP_NUM_THREADS": "1",
                "ACCELERATE_USE_CPU": "true",
            },
        )

    def random(self, *names: object) -> random.Random:
        """A generator of its own for each purpose, so that parts and orders do not matter."""
        return random.Random(f"{self.seed} {names}")

    @cached_property
    def model_inputs(self) -> tuple[Path, Path]:
        """A base model and a dataset."""
        from tests.tiny import save_dataset, save_tiny_base

        return (
            save_tiny_base(self.folder / "base"),
            save_dataset(self.folder / "dataset", train=16, validation=24, test=11),
        )

    @cached_property
    def adapter(self) -> Path:
        """What `Train` makes."""
        from tests.faults.scenarios import Train

        folder = self.folder / "adapter"
        folder.mkdir()
        ended = self.commands.learn(Train(self).command(folder), folder=folder)
        assert ended.code == 0, ended.stderr
        for checkpoint in (folder / "run").glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        (folder / "run" / ".lock").unlink()
        return folder / "run"

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.hub.endpoint, token=self.hub.token)

    def remove_repo(self, repo_id: str, *, repo_type: str) -> None:
        self.hub.begin()
        found = self.hub.store.find(repo_id, repo_type=repo_type)
        if found is not None:
            self.hub.store.delete(found)

    def read_repo(self, repo_id: str, *, repo_type: str) -> dict[str, str]:
        """The sha256 of each file of a repo, and how many commits it has; {} if there is no such repo."""
        self.hub.begin()
        try:
            files = self.api.list_repo_tree(repo_id, repo_type=repo_type, recursive=True)
            found = {one.path: one.lfs.sha256 if one.lfs else one.blob_id for one in files if hasattr(one, "blob_id")}
        except RepositoryNotFoundError:
            return {}
        return found | {"commits": str(len(self.api.list_repo_commits(repo_id, repo_type=repo_type)))}

    def close(self) -> None:
        self.commands.close()
        self.hub.close()
        self.images.close()
