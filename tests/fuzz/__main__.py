"""Fuzz what reads strangers' bytes, and print a table: python -m tests.fuzz [--cases N | --seconds S] [--target T]

Exit code 0: no finding. 1: findings; each case is a file in --findings, and its line to paste is printed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.guided import is_available, run_guided
from tests.fuzz.runner import Limits, Result, run_targets
from tests.fuzz.targets import CASES, NAMES

COLUMNS = (
    f"{'target':22} {'cases':>9} {'cases/s':>8} {'crashes':>7} {'hangs':>5} {'slowest':>8} {'peak MB':>8} "
    f"{'before cases':>12}"
)


def format_row(result: Result) -> str:
    rate = result.cases / max(result.seconds, 1e-9)
    return (
        f"{result.target:22} {result.cases:>9,} {rate:>8,.0f} {result.count('crash'):>7} {result.count('hang'):>5} "
        f"{result.slowest_s:>6.2f} s {result.peak_mb:>8,} {result.base_mb:>12,}"
    )


def save_findings(result: Result, *, folder: Path, seed: int) -> None:
    for finding in result.findings:
        data = finding.data.encode("latin-1")
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{result.target}-{seed}-{finding.number}.bin"
        file.write_bytes(data)
        print(f"\n{finding.kind} in {result.target}, case {finding.number}: {finding.place}\n{finding.detail[-2500:]}")
        print(f"The case is {file} ({len(data)} bytes); to repeat it:")
        content = repr(data) if len(data) < 2000 else f"open({str(file)!r}, 'rb').read()"
        print(f"    from tests.fuzz.targets import load_target; load_target({result.target!r}).fuzz({content})")


def _run(cases: dict[str, int], *, limits: Limits, jobs: int, is_guided: bool) -> Iterator[Result]:
    if not is_guided:
        yield from run_targets(cases, limits=limits, jobs=jobs)
        return
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda name: run_guided(name, limits=limits, folder=Path(folder)), cases)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", type=int, help="of each target; the default is that of the table, 2.5 million in all"
    )
    parser.add_argument("--seconds", type=float, default=3600, help="at most, for each target (default: %(default)s)")
    parser.add_argument("--target", choices=NAMES, nargs="+", default=NAMES, metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="targets at once (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=4, help="CPU seconds of one case (default: %(default)s)")
    parser.add_argument("--memory_mb", type=int, default=2048, help="for the cases of a target (default: %(default)s)")
    parser.add_argument("--guided", action="store_true", help="cases by atheris instead, for --seconds of each target")
    parser.add_argument("--findings", type=Path, default=Path("runs/fuzz"), help="folder (default: %(default)s)")
    options = parser.parse_args()

    cases = {name: options.cases or CASES[name] for name in options.target}
    limits = Limits(options.seed, options.seconds, options.limit, options.memory_mb)
    started = time.monotonic()
    results = []
    if options.guided and not is_available():
        sys.exit("atheris is not installed: pip install atheris (Linux on x86_64 only)")
    print(COLUMNS, flush=True)
    for result in _run(cases, limits=limits, jobs=options.jobs, is_guided=options.guided):
        print(format_row(result), flush=True)
        results.append(result)
    total = Result("all")
    for result in results:
        total.cases += result.cases
        total.seconds += result.seconds
        total.peak_mb = max(total.peak_mb, result.peak_mb)
        total.base_mb = max(total.base_mb, result.base_mb)
        total.slowest_s = max(total.slowest_s, result.slowest_s)
        total.findings += result.findings
    print(format_row(total))
    print(f"seed {options.seed}, {(time.monotonic() - started) / 60:.1f} minutes on {options.jobs} processes")
    for result in results:
        save_findings(result, folder=options.findings, seed=options.seed)
    return 1 if total.findings else 0


if __name__ == "__main__":
    sys.exit(main())
