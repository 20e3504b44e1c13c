"""What is run: a command, what it finds, what it must leave behind, and what may be found there after a fault."""

import csv
import hashlib
import json
import re
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from dataset_builder.image_store import NOT_FETCHED, ImageStore
from product_vqa.errors import InputError
from tests.dataset_builder.files import TEST_COLUMNS, TRAIN_COLUMNS, jpeg, write_csv
from tests.faults.commands import ROOT, Command, Ended
from tests.faults.lane import Lane


def hashes(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    """The sha256 of each file below `folder`."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.glob(pattern))
        if file.is_file()
    }


KILLED, REFUSED, COMPLETED, ENDED = "killed", "refused", "completed", "ended"  # ENDED: by the signal that was sent
MISSED = "missed"  # completed, since the fault did not happen


class Scenario:
    """A command in a folder of its own; `inputs` are what it reads elsewhere."""

    name = ""
    inputs: tuple[Path, ...] = ()
    also_allowed: frozenset[str] = frozenset()  # ways to end, next to those of the kind
    brief_sleeps = False
    caches: tuple[Path, ...] = ()  # folders elsewhere that it writes

    def __init__(self, lane: Lane) -> None:
        self.lane = lane

    def command(self, folder: Path) -> Command:
        raise NotImplementedError

    def prepare(self, folder: Path) -> None:
        """Put into the new folder what is there before the command."""

    def result(self, folder: Path) -> dict[str, str]:
        """What is there for a reader: each complete output and its hash."""
        raise NotImplementedError

    def is_partial_allowed(self, found: dict[str, str], expected: dict[str, str]) -> bool:
        """Whether what a fault left is right: each output is absent or complete."""
        return found.items() <= expected.items()

    def is_read_back(self, file: str) -> bool:
        """Whether a rerun reads this file, so that damage to it matters."""
        return True

    def is_input(self, file: str) -> bool:
        """Whether nothing says what this file must hold: if it is damaged, another result is right too."""
        return False

    def find_now(self, file: Path) -> Path:
        """Where the command has moved a file to."""
        return file

    def remember(self, folder: Path) -> Any:
        """What has been recorded and must not be computed again."""

    def check_rerun(self, folder: Path, memory: Any, ended: Ended) -> str | None:
        """What was lost, if anything."""
        return None


class Build(Scenario):
    """From URLs: twelve labelled rows, four to predict, one URL without an image."""

    name = "build"

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
        self.folder = lane.folder / f"{self.name}-inputs"
        self.folder.mkdir()
        self.inputs = (self.folder,)
        paths = [f"/{number}.jpg" for number in range(16)]
        for number, path in enumerate(paths):
            lane.images.serve(path, jpeg(number))
        del lane.images.answers["/7.jpg"]
        urls = [lane.images.url + path for path in paths]
        labelled = [[url, f"g{number % 5}", "width", f"{number + 1} inch"] for number, url in enumerate(urls[:12])]
        write_csv(self.folder / "train.csv", TRAIN_COLUMNS, labelled)
        write_csv(
            self.folder / "test.csv",
            TEST_COLUMNS,
            [[number, url, "g9", "width"] for number, url in enumerate(urls[12:])],
        )
        self.urls = urls

    def command(self, folder: Path) -> Command:
        arguments = [
            "--train_csv", self.folder / "train.csv", "--test_csv", self.folder / "test.csv", "--connections", "2",
            "--image_store", folder / "store", "--output_dir", folder / "out", "--allow_private_hosts",
            "--validation_size", "0.25",
        ]  # fmt: skip
        return Command("dataset_builder.build", list(map(str, arguments)))

    def result(self, folder: Path) -> dict[str, str]:
        return hashes(folder / "out")

    def is_partial_allowed(self, found: dict[str, str], expected: dict[str, str]) -> bool:
        return found in ({}, expected)

    def is_read_back(self, file: str) -> bool:
        return file.startswith("store/") or file in ("out/build.json", "out/README.md")

    def is_input(self, file: str) -> bool:
        return file.startswith(("store/state.sqlite", "out/"))

    def remember(self, folder: Path) -> tuple[set[str], Counter[str]]:
        """The URLs whose outcome is in the store, and the requests until now."""
        known: set[str] = set()
        if (folder / "store" / "state.sqlite").is_file():
            with tempfile.TemporaryDirectory() as copied:
                shutil.copytree(folder / "store", copied, dirs_exist_ok=True)
                with suppress(InputError):  # damaged
                    store = ImageStore(copied)
                    known = {url for url in self.urls if store.state(url).reason != NOT_FETCHED}
        return known, self.lane.images.requests.copy()

    def check_rerun(self, folder: Path, memory: tuple[set[str], Counter[str]], ended: Ended) -> str | None:
        known, before = memory
        asked = {self.lane.images.url + path for path in self.lane.images.requests - before}
        return f"{len(asked & known)} images downloaded again" if asked & known else None


class Rebuild(Scenario):
    """From a folder of images, in place of an earlier build of fewer rows."""

    name = "rebuild"

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
        self.folder = lane.folder / "rebuild-inputs"
        (self.folder / "images").mkdir(parents=True)
        self.inputs = (self.folder,)
        urls = [f"https://shop.example/{number}.jpg" for number in range(10)]
        for number, url in enumerate(urls):
            (self.folder / "images" / url.rpartition("/")[2]).write_bytes(jpeg(number))
        rows = [[url, f"g{number % 4}", "width", f"{number + 1} inch"] for number, url in enumerate(urls)]
        write_csv(self.folder / "earlier.csv", TRAIN_COLUMNS, rows[:6])
        write_csv(self.folder / "train.csv", TRAIN_COLUMNS, rows)
        (self.folder / "prior").mkdir()
        ended = lane.commands.learn(self._build("earlier.csv", self.folder / "prior"), folder=self.folder / "prior")
        assert ended.code == 0, ended.stderr
        self.earlier = hashes(self.folder / "prior" / "out")

    def is_read_back(self, file: str) -> bool:
        return file in ("out/build.json", "out/README.md")

    def is_input(self, file: str) -> bool:
        return file.startswith("out/")  # an output: of the card, edits by hand are kept

    def _build(self, table: str, folder: Path) -> Command:
        arguments = ["--train_csv", self.folder / table, "--image_dir", self.folder / "images", "--output_dir",
                     folder / "out", "--validation_size", "0.25"]  # fmt: skip
        return Command("dataset_builder.build", list(map(str, arguments)))

    def command(self, folder: Path) -> Command:
        return self._build("train.csv", folder)

    def prepare(self, folder: Path) -> None:
        shutil.copytree(self.folder / "prior", folder, dirs_exist_ok=True)

    def result(self, folder: Path) -> dict[str, str]:
        return hashes(folder / "out")

    def is_partial_allowed(self, found: dict[str, str], expected: dict[str, str]) -> bool:
        return found in (self.earlier, expected)


class Push(Build):
    """The same build from a full store, pushed to a dataset repo."""

    name = "push"
    repo_id = "local/pushed"

    def __init__(self, lane: Lane) -> None:
        lane.hub.begin()
        super().__init__(lane)

    def command(self, folder: Path) -> Command:
        built = super().command(folder)
        return Command(built.module, [*built.arguments, "--push_to_hub", "--hub_dataset_id", self.repo_id])

    @cached_property
    def _store(self) -> Path:
        folder = self.lane.folder / "store-to-push"
        folder.mkdir()
        ended = self.lane.commands.run(super().command(folder), folder=folder)
        assert ended.code == 0, ended.stderr
        return folder / "store"

    def prepare(self, folder: Path) -> None:
        self.lane.remove_repo(self.repo_id, repo_type="dataset")
        shutil.copytree(self._store, folder / "store")

    def result(self, folder: Path) -> dict[str, str]:
        return self.lane.read_repo(self.repo_id, repo_type="dataset")

    def is_partial_allowed(self, found: dict[str, str], expected: dict[str, str]) -> bool:
        return set(found) <= {".gitattributes", "commits"} or found == expected


class Train(Scenario):
    """Four steps with a checkpoint after every second one."""

    name = "train"

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
        self.inputs = lane.model_inputs

    def arguments(self, folder: Path) -> list[str]:
        base_model, dataset = self.lane.model_inputs
        arguments = [
            "--config", ROOT / "training/configs/quickstart.yaml", "--dataset_name", dataset, "--model_name_or_path",
            base_model, "--base_model_id", "user/base", "--output_dir", folder / "run", "--max_steps", 4,
            "--save_steps", 2, "--logging_steps", 1, "--lora_r", 4, "--eval_strategy", "no", "--max_eval_samples", 0,
            "--per_device_train_batch_size", 2, "--seed", 3, "--report_to", "none",
        ]  # fmt: skip
        return list(map(str, arguments))

    def command(self, folder: Path) -> Command:
        return Command("training.sft", self.arguments(folder))

    def result(self, folder: Path) -> dict[str, str]:
        """The adapter, if it is complete, and the loss of each step."""
        run = folder / "run"
        if not (run / "adapter_config.json").is_file():
            return {}
        found = hashes(run, "[!.]*")
        card = re.sub(r"(?m)^\| time \|.*$", "", (run / "README.md").read_text())
        found["README.md"] = hashlib.sha256(card.encode()).hexdigest()
        del found["log.csv"]
        rows = csv.DictReader((run / "log.csv").open())
        return found | {"losses": json.dumps([(row["step"], row["loss"]) for row in rows if row["loss"]])}

    def is_partial_allowed(self, found: dict[str, str], expected: dict[str, str]) -> bool:
        return found in ({}, expected)

    def is_input(self, file: str) -> bool:
        return file == "run/README.md"  # edits by hand are kept

    def remember(self, folder: Path) -> int:
        """The step of the newest complete checkpoint."""
        from training.checkpoints import find_damage

        complete = [one for one in (folder / "run").glob("checkpoint-*") if find_damage(one) is None]
        return max((int(one.name.partition("-")[2]) for one in complete), default=0)

    def check_rerun(self, folder: Path, memory: int, ended: Ended) -> str | None:
        resumed = re.search(r"resuming at step (\d+)/", ended.stdout + ended.stderr)
        at = int(resumed[1]) if resumed else 0
        return None if at == memory or memory == 4 else f"checkpoint {memory} was complete, resumed at {at}"


class TrainAndPush(Train):
    """The same, with a push of every checkpoint and of the adapter."""

    name = "train and push"
    repo_id = "local/trained"

    def prepare(self, folder: Path) -> None:
        self.lane.remove_repo(self.repo_id, repo_type="model")

    def arguments(self, folder: Path) -> list[str]:
        push = ["--push_to_hub", "true", "--hub_model_id", self.repo_id, "--hub_strategy", "every_save"]
        return [*super().arguments(folder), *push]

    def result(self, folder: Path) -> dict[str, str]:
        """The adapter's weights on the Hub: the card names the time of the training."""
        found = self.lane.read_repo(self.repo_id, repo_type="model")
        name = "adapter_model.safetensors"
        return {name: found[name]} if name in found else {}

    def is_partial_allowed(self, found: dict[str, str], expected: dict[str, str]) -> bool:
        return True  # the adapter of an earlier checkpoint


class TrainAndKeepState(TrainAndPush):
    """The same, with the complete state of the run: a rerun finds an empty disk."""

    name = "train and keep the state"
    repo_id = "local/kept"

    def arguments(self, folder: Path) -> list[str]:
        return [*super().arguments(folder)[:-1], "checkpoint"]

    def result(self, folder: Path) -> dict[str, str]:
        found = self.lane.read_repo(self.repo_id, repo_type="model")
        names = ("adapter_model.safetensors", "last-checkpoint/state.safetensors")
        return {name: found[name] for name in names if name in found}

    def remember(self, folder: Path) -> int:
        """The step of the state on the Hub."""
        shutil.rmtree(folder / "run", ignore_errors=True)
        with suppress(EntryNotFoundError, RepositoryNotFoundError), tempfile.TemporaryDirectory() as downloaded:
            file = self.lane.api.hf_hub_download(
                self.repo_id, "last-checkpoint/state.json", local_dir=downloaded, token=self.lane.hub.token
            )
            return int(json.loads(Path(file).read_bytes())["step"])
        return 0


class Predict(Scenario):
    """Eleven rows in three batches."""

    name = "predict"

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
        self.inputs = (lane.adapter, *lane.model_inputs)

    def arguments(self, folder: Path) -> list[str]:
        adapter, base_model, dataset = self.inputs
        arguments = ["--adapter", adapter, "--base_model", base_model, "--dataset", dataset, "--output",
                     folder / "s.csv", "--dtype", "float32", "--batch_size", "4"]  # fmt: skip
        return list(map(str, arguments))

    def command(self, folder: Path) -> Command:
        return Command("inference.predict", self.arguments(folder))

    def result(self, folder: Path) -> dict[str, str]:
        return hashes(folder, "s.*")


class PredictCopies(Predict):
    """With copies of the adapter and the dataset, which are damaged."""

    name = "predict from copies"

    def prepare(self, folder: Path) -> None:
        for source, name in zip(self.inputs, ("adapter", "base", "dataset"), strict=True):
            shutil.copytree(source, folder / name)

    def arguments(self, folder: Path) -> list[str]:
        copies = [str(folder / name) for name in ("adapter", "base", "dataset")]
        given = dict(zip(map(str, self.inputs), copies, strict=True))
        return [given.get(word, word) for word in super().arguments(folder)]

    def is_input(self, file: str) -> bool:
        return file.startswith(("adapter/", "base/", "dataset/"))


class PredictFromHub(Predict):
    """With an empty cache: adapter, base model and dataset are downloaded."""

    name = "predict from the Hub"

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
        lane.hub.begin()
        for source, (repo_id, repo_type) in zip(self.inputs, self.repos, strict=True):
            lane.api.create_repo(repo_id, repo_type=repo_type)
            lane.api.upload_folder(repo_id=repo_id, folder_path=source, repo_type=repo_type)
        self.inputs, self.caches = (), (lane.folder / "hf",)

    repos = (("local/adapter", "model"), ("local/base", "model"), ("local/dataset", "dataset"))

    def prepare(self, folder: Path) -> None:
        shutil.rmtree(self.caches[0], ignore_errors=True)

    def arguments(self, folder: Path) -> list[str]:
        self.inputs = tuple(Path(repo_id) for repo_id, _ in self.repos)
        words = super().arguments(folder)
        self.inputs = ()
        return words


class Calibrate(Scenario):
    """On 24 rows, with the calibration written to the adapter's folder."""

    name = "calibrate"

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
        self.inputs = lane.model_inputs

    def prepare(self, folder: Path) -> None:
        shutil.copytree(self.lane.adapter, folder / "adapter", ignore=shutil.ignore_patterns("checkpoint-*"))

    def command(self, folder: Path) -> Command:
        base_model, dataset = self.inputs
        arguments = ["--adapter", folder / "adapter", "--base_model", base_model, "--dataset", dataset, "--dtype",
                     "float32"]  # fmt: skip
        return Command("inference.calibrate", list(map(str, arguments)))

    def result(self, folder: Path) -> dict[str, str]:
        return hashes(folder / "adapter", "calibration.json")

    def is_input(self, file: str) -> bool:
        return file.startswith("adapter/")
