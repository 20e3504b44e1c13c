"""The steps of the quickstart: public commands that are printed, run and timed."""

import os
import subprocess
import sys
import time
from pathlib import Path

from product_vqa.errors import InputError


class Steps:
    """Runs commands one after the other and prints each one as a user would type it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.seconds: dict[str, float] = {}  # by step

    def run(self, name: str, title: str, *command: str | Path | int) -> None:
        """Run a command to its end. Raises InputError if it fails."""
        self._run(name, title, command, stdout=None)

    def output(self, name: str, title: str, *command: str | Path | int) -> str:
        """Run a command to its end and return what it prints. Raises InputError if it fails."""
        return self._run(name, title, command, stdout=subprocess.PIPE)

    def _run(self, name: str, title: str, command: tuple[str | Path | int, ...], *, stdout: int | None) -> str:
        program, *arguments = map(str, command)
        print(f"\n== {len(self.seconds) + 1}. {title}\n$ {' '.join([program, *arguments])}", flush=True)
        next_to_python = Path(sys.executable).parent / program
        start = time.perf_counter()
        completed = subprocess.run(
            [next_to_python if next_to_python.is_file() else program, *arguments],
            env=os.environ | self.environment,
            stdout=stdout,
            text=True,
        )
        self.seconds[name] = round(time.perf_counter() - start, 1)
        if completed.returncode != 0:
            raise InputError(
                f"step {name!r} failed with exit code {completed.returncode}; see its output above for the reason"
            )
        return completed.stdout or ""
