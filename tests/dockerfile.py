"""The instructions of the Dockerfile, and the files that it copies."""

import re

from tests.commands import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    (line.split()[0], line.split(maxsplit=1)[1])
    for line in re.sub(r"\\\n", "", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE)).splitlines()
    if line.strip()
]


def copied() -> list[str]:
    return [name for word, rest in INSTRUCTIONS if word == "COPY" for name in rest.split()[:-1]]
