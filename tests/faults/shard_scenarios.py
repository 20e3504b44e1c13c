"""Builds in shards: one shard, and the merge of two."""

import shutil
from collections import Counter
from pathlib import Path

from tests.faults.commands import Command, Ended
from tests.faults.lane import Lane
from tests.faults.scenarios import Build, hashes


class BuildShard(Build):
    """The first of two shards of a build."""

    name = "build a shard"
    shard = "1/2"

    def command(self, folder: Path) -> Command:
        command = super().command(folder)
        return Command(command.module, [*command.arguments, "--shard", self.shard])

    def is_partial_allowed(self, found: dict[str, str], expected: dict[str, str]) -> bool:
        return found in ({}, expected)

    def is_read_back(self, file: str) -> bool:
        return file.startswith(("store/", "out/shards/"))

    def is_input(self, file: str) -> bool:
        return file.startswith("store/state.sqlite")


class MergeShards(Build):
    """The merge of two shards, which are in the output folder."""

    name = "merge shards"

    def __init__(self, lane: Lane) -> None:
        super().__init__(lane)
        self.made = self.folder / "made"
        self.made.mkdir()
        for shard in ("1/2", "2/2"):
            command = super().command(self.made)
            ended = lane.commands.learn(
                Command(command.module, [*command.arguments, "--shard", shard]), folder=self.made
            )
            assert ended.code == 0, ended.stderr
        shutil.rmtree(self.made / "store")
        self.before = hashes(self.made / "out")

    def command(self, folder: Path) -> Command:
        command = super().command(folder)
        return Command(command.module, [*command.arguments, "--merge", "2"])

    def prepare(self, folder: Path) -> None:
        shutil.copytree(self.made, folder, dirs_exist_ok=True)

    def is_partial_allowed(self, found: dict[str, str], expected: dict[str, str]) -> bool:
        return found in (self.before, expected)

    def is_read_back(self, file: str) -> bool:
        return file.startswith("out/shards/")

    def is_input(self, file: str) -> bool:
        return file.startswith("out/")

    def remember(self, folder: Path) -> tuple[set[str], Counter[str]]:
        return set(), self.lane.images.requests.copy()

    def check_rerun(self, folder: Path, memory: tuple[set[str], Counter[str]], ended: Ended) -> str | None:
        return "an image was downloaded" if self.lane.images.requests != memory[1] else None
