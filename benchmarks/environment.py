"""Virtual environments for the packages that a benchmark compares with."""

import subprocess
import sys
from pathlib import Path


def make_environment(folder: Path, *requirements: str) -> Path:
    """The Python of a virtual environment with these packages, which is created unless it exists."""
    python = folder / "bin" / "python"
    complete = folder / ".complete"
    if not complete.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True)
        complete.touch()
    return python
