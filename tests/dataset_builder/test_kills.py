"""A build that is killed at some moment and rerun gives the same files as an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset_builder.image_store import ImageStore
from tests.dataset_builder.files import TEST_COLUMNS, TRAIN_COLUMNS, jpeg, write_csv
from tests.dataset_builder.image_server import ImageServer, slowly

NUM_IMAGES = 80
NUM_LABELLED = 60


class Builds:
    """Builds from one server, each with a store and an output folder of its own."""

    def __init__(self, server: ImageServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        names = [f"/{number}.jpg" for number in range(NUM_IMAGES)]
        server.answers |= {
            name: slowly(jpeg(number, size=(600, 400)), pause_s=0.05) for number, name in enumerate(names)
        }
        del server.answers["/7.jpg"], server.answers["/70.jpg"]  # 404
        self.urls = [server.url + name for name in names]
        labelled, unlabelled = self.urls[:NUM_LABELLED], self.urls[NUM_LABELLED:]
        write_csv(
            folder / "train.csv",
            TRAIN_COLUMNS,
            [[url, "g", "width", f"{number + 1} inch"] for number, url in enumerate(labelled)],
        )
        write_csv(
            folder / "test.csv",
            TEST_COLUMNS,
            [[number, url, "g", "width"] for number, url in enumerate(unlabelled)],
        )

    def start(self, name: str) -> subprocess.Popen[bytes]:
        arguments = [
            "--train_csv", self.folder / "train.csv", "--test_csv", self.folder / "test.csv", "--connections", "4",
            "--image_store", self.folder / name / "store", "--output_dir", self.folder / name / "out",
            "--allow_private_hosts", "--validation_size", "0.2",
        ]  # fmt: skip
        (self.folder / name).mkdir(exist_ok=True)
        command = [sys.executable, "-m", "dataset_builder.build", *map(str, arguments)]
        with (self.folder / name / "log").open("w") as log:
            return subprocess.Popen(command, stderr=log, stdout=log, start_new_session=True)

    def finish(self, name: str) -> dict[str, bytes]:
        process = self.start(name)
        assert process.wait(timeout=120) == 0, (self.folder / name / "log").read_text()
        assert not list((self.folder / name).glob(".*"))
        out = self.folder / name / "out"
        return {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}

    def kill(self, name: str, process: subprocess.Popen[bytes]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)

    def stored(self, name: str) -> set[str]:
        """The paths whose outcome is in the store, an image or a reason."""
        if not (self.folder / name / "store" / "state.sqlite").is_file():
            return set()
        store = ImageStore(self.folder / name / "store")
        return {url.removeprefix(self.server.url) for url in self.urls if store.state(url).reason != "not_fetched"}


def check_restart(builds: Builds, name: str, undisturbed: dict[str, bytes]) -> None:
    """No url whose outcome was stored is asked for again, and the build is the undisturbed one, byte for byte."""
    known = builds.stored(name)
    before = builds.server.requests.copy()
    assert builds.finish(name) == undisturbed
    asked = builds.server.requests - before
    assert set(asked).isdisjoint(known)
    assert set(asked) | known == {url.removeprefix(builds.server.url) for url in builds.urls}
    assert set(asked.values()) <= {1}


@pytest.mark.faults
def test_a_killed_build_resumes_and_gives_the_same_files(server: ImageServer, tmp_path: Path) -> None:
    builds = Builds(server, tmp_path)
    undisturbed = builds.finish("undisturbed")
    assert len(undisturbed) == 9
    already = server.requests.total()
    process = builds.start("killed")
    deadline = time.monotonic() + 60
    while server.requests.total() < already + 30 and time.monotonic() < deadline:
        time.sleep(0.01)
    builds.kill("killed", process)
    assert 15 < len(builds.stored("killed")) < NUM_IMAGES
    check_restart(builds, "killed", undisturbed)


@pytest.mark.faults
def test_two_builds_at_once_into_one_folder_end_well_also_if_one_is_killed(
    server: ImageServer, tmp_path: Path
) -> None:
    builds = Builds(server, tmp_path)
    undisturbed = builds.finish("undisturbed")
    rng = random.Random(0)
    for number in range(10):
        name = f"together{number}"
        processes = []
        for _ in range(2):
            processes.append(builds.start(name))
            time.sleep(rng.uniform(0, 1))
        if number % 2:
            time.sleep(rng.uniform(0, 3))
            builds.kill(name, processes[number % 4 == 1])
        codes = [process.wait(timeout=120) for process in processes]
        log = (tmp_path / name / "log").read_text()
        assert set(codes) <= {0, 2, -9} and "Traceback" not in log, log
        assert 0 in codes or -9 in codes
        out = tmp_path / name / "out"
        if 0 in codes:
            assert {
                file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()
            } == undisturbed
        assert builds.finish(name) == undisturbed


@pytest.mark.faults
def test_a_build_survives_twenty_kills_at_random_moments(server: ImageServer, tmp_path: Path) -> None:
    builds = Builds(server, tmp_path)
    start = time.monotonic()
    undisturbed = builds.finish("undisturbed")
    duration_s = time.monotonic() - start
    rng = random.Random()
    num_unfinished = 0
    for number in range(60):
        if number >= 20 and num_unfinished >= 15:  # or else too little was killed
            break
        process = builds.start(f"killed{number}")
        time.sleep(rng.uniform(0.2, 0.95) * duration_s)
        builds.kill(f"killed{number}", process)
        num_unfinished += not (tmp_path / f"killed{number}" / "out" / "README.md").exists()
        check_restart(builds, f"killed{number}", undisturbed)
    assert num_unfinished >= 15
