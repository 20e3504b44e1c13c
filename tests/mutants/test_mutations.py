"""The mutants of a module, and the verdicts on those that survive."""

import ast
import re

import pytest

from tests.mutants.__main__ import TESTS
from tests.mutants.mutations import Mutant, mutate
from tests.mutants.survivors import FILE, read_survivors
from tests.mutants.workers import ROOT

MODULE = '''
LIMIT = 3

class Number:
    @property
    def is_large(self) -> bool:
        """Text of no consequence."""
        return self.value > LIMIT

def add(a, b):
    a += 1
    a += 1
'''


def test_a_mutant_is_one_change_of_one_place_in_or_outside_of_a_function() -> None:
    mutants = dict(mutate(MODULE))
    assert Mutant("", "LIMIT = 3", "LIMIT = 4") in mutants
    assert Mutant("add", "a += 1", "a -= 1", 2) in mutants
    method = Mutant("Number.is_large", "return self.value > LIMIT", "return self.value >= LIMIT")
    assert mutants[method] == MODULE.replace("value > LIMIT", "value >= LIMIT")
    assert str(method) == "@@ Number.is_large\n- return self.value > LIMIT\n+ return self.value >= LIMIT"
    assert not any("consequence" in mutant.removed for mutant in mutants)


def test_verdicts_are_read_as_mutants_are_printed() -> None:
    mutants = list(dict(mutate(MODULE)))
    assert len(mutants) == 9
    text = "# Survivors\n\n## a.py\n\n### equivalent: they are\n\n```diff\n{}\n```\n".format(
        "\n".join(map(str, mutants))
    )
    assert read_survivors(text) == {"a.py": dict.fromkeys(mutants, "equivalent: they are")}
    with pytest.raises(ValueError, match="two verdicts for\n@@ module\n- LIMIT = 3"):
        read_survivors(text + "### accepted: again\n" + str(mutants[0]))
    with pytest.raises(ValueError, match="'no idea' does not begin with one of"):
        read_survivors("## a.py\n### no idea\n")


def test_every_module_its_tests_and_the_survivors_exist() -> None:
    for module, tests in TESTS.items():
        ast.parse((ROOT / module).read_text())
        files = re.findall(r"tests/[\w/]+\.py", tests)
        assert files and all((ROOT / file).is_file() for file in files), module
    assert read_survivors(FILE.read_text()).keys() <= TESTS.keys()
