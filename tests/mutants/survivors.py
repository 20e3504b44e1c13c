"""Read `survivors.md`: the mutants that no test kills, each with the reason why that is accepted."""

import re
from pathlib import Path

from tests.mutants.mutations import Mutant

FILE = Path(__file__).with_name("survivors.md")
VERDICTS = ("equivalent: ", "performance: ", "message: ", "accepted: ")


def read_survivors(text: str) -> dict[str, dict[Mutant, str]]:
    """Return the verdict of each mutant, by module.

    `## module`, `### verdict: reason`, and below it mutants in the form of `Mutant.__str__`. Raises ValueError for a
    verdict of another kind, and for two verdicts on one mutant.
    """
    survivors: dict[str, dict[Mutant, str]] = {}
    for module, module_text in _sections("## ", text):
        survivors[module] = {}
        for verdict, verdict_text in _sections("### ", module_text):
            if not verdict.startswith(VERDICTS):
                raise ValueError(f"{verdict!r} does not begin with one of {VERDICTS}")
            for head, lines in _sections("@@ ", verdict_text):
                function, _, number = head.partition(" #")
                removed, added = (
                    "\n".join(line[2:] for line in lines.splitlines() if line.startswith(sign)) for sign in "-+"
                )
                mutant = Mutant("" if function == "module" else function, removed, added, int(number or 1))
                if mutant in survivors[module]:
                    raise ValueError(f"{module} has two verdicts for\n{mutant}")
                survivors[module][mutant] = verdict
    return survivors


def _sections(mark: str, text: str) -> list[tuple[str, str]]:
    """Return the heading and the text of each section."""
    parts = re.split(f"^{mark}", text, flags=re.MULTILINE)[1:]
    return [(heading, rest) for heading, _, rest in (part.partition("\n") for part in parts)]
