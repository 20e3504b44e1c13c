"""A hub that is started by its command, not by `LocalHub`."""

import subprocess
import sys
from pathlib import Path

from tests.commands import ROOT


def start_hub(root: Path, *, environment: dict[str, str]) -> tuple["subprocess.Popen[str]", str]:
    """Start a hub on a free port. Returns its process and the line that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "local_hub", "--root", str(root), "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, process.stdout.readline()


def parse_variables(line: str) -> dict[str, str]:
    return dict(word.split("=") for word in line.split() if "=" in word)
