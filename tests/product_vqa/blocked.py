"""A Python without the packages of the extras, as somebody has it who installed this project to read only."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from tests.commands import ROOT

# Finders answer None for a blocked package, as if it were not there; an import hook that raises would also break the
# questions of libraries for what is installed.
_BLOCK = """
import json, sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

blocked = set(json.loads(sys.argv.pop(1)))
assert not blocked & sys.modules.keys()
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path if hasattr(finder, "find_spec")]
"""


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def _closure(names: set[str]) -> set[str]:
    """These packages and all that they require, without extras."""
    found: set[str] = set()
    while names:
        name = names.pop()
        found.add(name)
        try:
            required = {_name(text) for text in requires(name) or [] if "extra ==" not in text}
        except PackageNotFoundError:  # for another platform
            continue
        names |= required - found
    return found


def blocked_imports() -> list[str]:
    """The imports of what only the extras bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {_name(text) for extra in ("build", "train", "predict", "nf4")
              for text in project["optional-dependencies"][extra]}  # fmt: skip
    only = extras - _closure(set(map(_name, project["dependencies"]))) - {project["name"]}
    return sorted(
        package
        for package, distributions in packages_distributions().items()
        if only & {name.lower().replace("_", "-") for name in distributions}
    )


def run_without_extras(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program, which finds its arguments in sys.argv[1:], where the extras are not installed."""
    return subprocess.run(
        [sys.executable, "-c", _BLOCK + program, json.dumps(blocked_imports()), *map(str, arguments)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
