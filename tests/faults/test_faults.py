"""A share of the injections of `make faults`, and the harness itself."""

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.__main__ import format_table, parse_arguments, run_part
from tests.faults.commands import Command, Ended, NoShimError, compile_shim
from tests.faults.injections import Outcome, outcome_of
from tests.faults.kinds import make_kinds
from tests.faults.plan import SCENARIOS, choose
from tests.faults.scenarios import MISSED, Scenario, hashes


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        compile_shim(tmp_path_factory.mktemp("shim"))
    except NoShimError as error:
        pytest.skip(str(error))


def run(folder: Path, scenarios: list[type[Scenario]], *options: str) -> list[Outcome]:
    return run_part(parse_arguments([*options, "--kept", str(folder / "kept")]), folder, scenarios)


@pytest.mark.slow
def test_a_share_of_the_injections_loses_nothing(shim: None, tmp_path: Path) -> None:
    seed = random.randrange(1000)
    kinds = "SIGKILL at a (file|write)|ENOSPC from"
    outcomes = run(
        tmp_path, SCENARIOS, "--only", "^build$|local_hub", "--kind", kinds, "--points", "1", "--seed", str(seed)
    )
    assert [one for one in outcomes if one.fault] == [], f"seed {seed}"
    assert len(outcomes) == 6
    assert Counter(one.outcome for one in outcomes)[MISSED] <= 1


class Careless(Scenario):
    name = "careless"

    def command(self, folder: Path) -> Command:
        return Command("tests.faults.careless", [str(folder)])

    def result(self, folder: Path) -> dict[str, str]:
        return hashes(folder / "out")


def test_a_careless_command_is_found_out(shim: None, tmp_path: Path) -> None:
    """At its second to fourth write: killed, and the file looks complete; the disk is full, and it ends with 0."""
    outcomes = run(tmp_path, [Careless], "--kind", "SIGKILL at a write|ENOSPC at one write|EIO at one file")
    faults = Counter((one.kind, (one.fault or "").split()[0].rstrip(",")) for one in outcomes if one.fault)
    assert faults["SIGKILL at a write", "LOOKS"] == 4
    assert faults["ENOSPC at one write", "WRONG:"] == 4
    assert faults["EIO at one file operation", "TRACEBACK"] == 2  # of mkdir and of open
    killed = [one for one in outcomes if one.kind == "SIGKILL at a write"]
    assert [one.point for one in killed] == [f"{number} write /out/result.txt" for number in (1, 2, 3, 4)]
    assert "SIGKILL at a write                              4         4" in format_table(outcomes)


@pytest.mark.parametrize(
    ("code", "stderr", "outcome"),
    [
        (0, "a warning\n", "completed"),
        (2, "log\nerror: no space\n", "refused"),
        (2, "error: no space\nerror: again\n", "EXIT 2 with 2 error lines"),
        (1, "Traceback (most recent call last):\n", "TRACEBACK"),
        (0, "Traceback (most recent call last):\n", "TRACEBACK"),
        (-9, "", "killed"),
        (-11, "", "EXIT -11 with 0 error lines"),
        (130, "Interrupted.\n", "ended"),
    ],
)
def test_how_a_run_ended_is_judged_by_its_code_and_its_lines(code: int, stderr: str, outcome: str) -> None:
    assert outcome_of(Ended(code, False, "", stderr, [], 0.0)) == outcome


def test_points_are_spread_evenly_and_repeat_with_their_seed() -> None:
    chosen = choose(range(100), random.Random(1), 10)
    assert chosen == choose(range(100), random.Random(1), 10)
    assert [point // 10 for point in chosen] == list(range(10))
    assert choose(range(5), random.Random(1), 10) == [0, 1, 2, 3, 4]


def test_kinds_and_scenarios_have_names_of_their_own() -> None:
    assert len({kind.name for kind in make_kinds()}) == len(make_kinds()) > 30
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS) == 13
