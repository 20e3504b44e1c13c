"""Inject faults into every command and print what happened: `python -m tests.faults --part 1/4 --seed 0`.

A table of kind, injections and outcomes; exit code 1 if anything was lost, looked complete and was not, hung, or ended
in more than one line.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.commands import ROOT, NoShimError
from tests.faults.damage import make_damages
from tests.faults.injections import Outcome, inject, undisturbed
from tests.faults.kinds import Trial, make_kinds
from tests.faults.lane import Lane
from tests.faults.plan import SCENARIOS, choose, is_possible, why_skipped
from tests.faults.scenarios import Scenario


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--part", default="1/1", help="one of N equal parts: I/N (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="parts of this part that run at once (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the points of each kind (default: %(default)s)")
    parser.add_argument("--points", type=int, default=6, help="most points per kind and scenario (default: 6)")
    parser.add_argument("--only", default="", help="scenarios whose name matches this pattern")
    parser.add_argument("--kind", default="", help="kinds whose name matches this pattern")
    parser.add_argument("--kept", type=Path, help="folder for what is left by an injection that found a fault")
    parser.add_argument("--report", type=Path, help="write the outcomes to this file as JSON")
    return parser.parse_args(argv)


def run_part(
    arguments: argparse.Namespace, folder: Path, scenarios: Sequence[type[Scenario]] = SCENARIOS
) -> list[Outcome]:
    """Every injection whose number falls into this part."""
    part, parts = map(int, arguments.part.split("/"))
    lane = Lane(folder, seed=arguments.seed)
    outcomes: list[Outcome] = []
    number = 0
    try:
        for make in scenarios:
            if not re.search(arguments.only, make.name):
                continue
            trial = Trial(make(lane))
            expected = undisturbed(trial)
            for kind in [*make_kinds(), *make_damages()]:
                if not re.search(arguments.kind, kind.name) or not is_possible(kind, trial.scenario):
                    continue
                if reason := why_skipped(kind):
                    print(f"skipped: {kind.name}: {reason}", flush=True)
                    continue
                trial.reset()
                points = choose(
                    kind.points(trial.scenario, trial), lane.random(kind.name, make.name), arguments.points
                )
                for point in points:
                    number += 1
                    if number % parts != part - 1:
                        continue
                    try:
                        outcome = inject(trial, kind, point, expected, kept=arguments.kept)
                    except Exception as error:  # a fault of the harness: the other injections are made
                        outcome = Outcome(make.name, kind.name, str(point), "?", f"HARNESS: {error!r}", 0.0)
                    outcomes.append(outcome)
                    if outcome.fault:
                        print(f"FAULT {make.name} | {kind.name} | {outcome.point} | {outcome.fault}", flush=True)
    finally:
        lane.close()
    return outcomes


def run_parts_at_once(arguments: argparse.Namespace, folder: Path) -> list[Outcome]:
    part, parts = map(int, arguments.part.split("/"))
    reports = [folder / f"{job}.json" for job in range(arguments.jobs)]
    processes = []
    for job, report in enumerate(reports):
        own = f"{(part - 1) * arguments.jobs + job + 1}/{parts * arguments.jobs}"
        options = {"part": own, "report": report} | {
            name: getattr(arguments, name) for name in ("seed", "points", "only", "kind", "kept")
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        processes.append(subprocess.Popen([sys.executable, "-m", "tests.faults", *words], cwd=ROOT))
    codes = [process.wait() for process in processes]
    assert all(report.exists() for report in reports), f"a job ended with {codes}"
    return [Outcome(**one) for report in reports for one in json.loads(report.read_text())]


def format_table(outcomes: list[Outcome]) -> str:
    """One line per kind, and one for all."""
    endings = ("killed", "ended", "refused", "completed")
    lines = [f"{'kind':38} {'injections':>10} " + " ".join(f"{one:>9}" for one in (*endings, "faults", "seconds"))]
    for kind in [*dict.fromkeys(one.kind for one in outcomes), "all"]:
        chosen = [one for one in outcomes if kind in ("all", one.kind)]
        count: Counter[Any] = Counter(one.outcome for one in chosen)
        faults, seconds = sum(one.fault is not None for one in chosen), sum(one.seconds for one in chosen)
        numbers = [*(count[one] for one in endings), faults, round(seconds)]
        lines.append(f"{kind:38} {len(chosen):10} " + " ".join(f"{number:9}" for number in numbers))
    return "\n".join(lines)


def enter_namespace() -> None:
    """Run again where disks can be mounted that nobody else sees, if that is allowed."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    if "FAULTS_NAMESPACE" in os.environ or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        return
    os.environ["FAULTS_NAMESPACE"] = "1"
    os.execvp("unshare", [*unshare, sys.executable, "-m", "tests.faults", *sys.argv[1:]])


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    arguments.kept = arguments.kept or Path(tempfile.gettempdir(), "faults-kept")
    start = time.monotonic()
    try:
        run = run_parts_at_once if arguments.jobs > 1 else run_part
        outcomes = run(arguments, folder)
    except NoShimError as error:
        print(f"skipped: {error}")
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.report:
        arguments.report.write_text(json.dumps([asdict(one) for one in outcomes]))
    if not arguments.report or arguments.jobs > 1:
        print(format_table(outcomes))
        faults = sum(one.fault is not None for one in outcomes)
        kinds, seconds = len({one.kind for one in outcomes}), time.monotonic() - start
        print(
            f"seed {arguments.seed}, part {arguments.part}: {len(outcomes)} injections of {kinds} kinds, "
            f"{faults} faults, {seconds:.0f} s"
        )
    return int(any(one.fault for one in outcomes) or not outcomes)


if __name__ == "__main__":
    enter_namespace()
    sys.exit(main())
