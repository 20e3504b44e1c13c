"""Change the modules that decide, one place at a time, and see whether a test fails: `make mutants`.

Prints a table, and the mutants that no test kills and that `survivors.md` does not explain. Fails if there is one, or
if fewer than 90 % of a module's mutants are killed. Verdicts that no longer apply are listed.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from tests.mutants.mutations import Mutant, mutate
from tests.mutants.survivors import FILE, read_survivors
from tests.mutants.workers import ROOT, Outcome, copy_repo, run_mutants

MIN_SHARE_KILLED = 0.9
RESULTS = ROOT / "runs" / "mutants"
# The arguments of pytest. The first failure ends the run, so what fails quickly comes first.
TESTS = {
    "product_vqa/task/quantity.py": "tests/product_vqa/task/test_quantity.py tests/dataset_builder/test_labels.py",
    "product_vqa/task/unit_conversion.py": "tests/product_vqa/task/test_unit_conversion.py",
    "product_vqa/task/schema.py": "tests/product_vqa/task/test_schema.py",
    "product_vqa/modeling/constrained_decoding.py": "tests/product_vqa/modeling/test_constrained_decoding.py",
    "product_vqa/modeling/collator.py": "tests/product_vqa/modeling/test_collator.py",
    "product_vqa/entity_f1/scoring.py": "tests/product_vqa/test_entity_f1.py",
    "product_vqa/bootstrap.py": "tests/product_vqa/test_bootstrap.py tests/inference/test_metrics.py",
    "product_vqa/documents.py": "tests/product_vqa/test_documents.py::test_the_limits_themselves_are_allowed "
    "tests/product_vqa/test_documents.py -m 'not faults'",
    "product_vqa/provenance.py": "tests/product_vqa/test_provenance.py",
    "product_vqa/atomic_io.py": "tests/product_vqa/test_atomic_io.py",
    "inference/metrics.py": "tests/inference/test_metrics.py",
    "dataset_builder/split.py": "tests/dataset_builder/test_split.py",
    "product_vqa/http/addresses.py": "tests/product_vqa/http/test_addresses.py",
    "product_vqa/http/connections.py": "tests/product_vqa/http/test_connections.py "
    "tests/product_vqa/http/test_fetching.py -k 'test_connections or private or looked_up_once or waited_for "
    "or nothing_is_sent'",
    "product_vqa/http/fetching.py": "tests/product_vqa/http/test_fetching.py "
    "tests/product_vqa/http/test_connections.py -k 'test_fetching or waited_for or gives_its_reason or label'",
    "training/checkpoints.py": "tests/training/test_checkpoints.py -m 'not faults' "
    "-k 'not resumed_run and not judged_by and not other_data and not however_a_file'",  # without those that train
    "local_hub/auth.py": "tests/local_hub/test_auth.py "
    "tests/local_hub/test_bodies.py::test_no_body_is_read_before_authorization "
    "tests/local_hub/test_bodies.py::test_no_body_is_read_of_an_upload_without_a_signature",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="part of a module's path; default: all modules")
    parser.add_argument("--again", action="store_true", help="resume: run only the mutants that no earlier run killed")
    options = parser.parse_args()
    modules = [name for name in TESTS if not options.modules or any(part in name for part in options.modules)]
    if not modules:
        parser.error(f"no module matches; choose from {', '.join(TESTS)}")

    verdicts = read_survivors(FILE.read_text())
    num_unexplained = 0
    too_few_killed = []
    totals: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_repo(Path(folder))
        _print_row("module", "mutants", "killed", "timeouts", "survived", "share", "s")
        for module in modules:
            outcomes = run_module(Path(folder), module, again=options.again)
            counts = Counter(outcome.result for outcome in outcomes.values())
            seconds = sum(outcome.seconds for outcome in outcomes.values())
            totals += counts + Counter({"seconds": round(seconds)})
            if _print_counts(module, counts, seconds) < MIN_SHARE_KILLED:
                too_few_killed.append(module)

            survivors = [mutant for mutant, outcome in outcomes.items() if outcome.result == "survived"]
            known = verdicts.pop(module, {})
            num_unexplained += sum(mutant not in known for mutant in survivors)
            for title, mutants in {
                "survived, without a verdict": [mutant for mutant in survivors if mutant not in known],
                "did not survive, so its verdict can go": [mutant for mutant in known if mutant not in survivors],
                "timeout": [mutant for mutant, outcome in outcomes.items() if outcome.result == "timeout"],
            }.items():
                for mutant in mutants:
                    print(f"{title}:\n{mutant}", flush=True)
    _print_counts("all", totals, totals.pop("seconds"))
    if unknown := verdicts.keys() - TESTS.keys():
        print(f"{FILE.name} names modules that are not mutated: {', '.join(sorted(unknown))}")
    if num_unexplained:
        print(f"{num_unexplained} mutants survived without a verdict in {FILE.relative_to(ROOT)}")
    if too_few_killed:
        print(f"fewer than {MIN_SHARE_KILLED:.0%} of the mutants are killed: {', '.join(too_few_killed)}")
    return 1 if unknown or num_unexplained or too_few_killed else 0


def run_module(copy: Path, module: str, *, again: bool) -> dict[Mutant, Outcome]:
    """Run the tests for each mutant of a module. With `again`, not for those that an earlier run killed."""
    texts = dict(mutate((copy / module).read_text()))
    outcomes: dict[Mutant, Outcome] = {}
    file = RESULTS / f"{module.replace('/', '.')}.jsonl"
    if again and file.is_file():
        earlier = {Mutant(*mutant): Outcome(*outcome) for mutant, outcome in map(json.loads, file.open())}
        outcomes = {
            mutant: outcome for mutant, outcome in earlier.items() if mutant in texts and outcome.result == "killed"
        }
    todo = [mutant for mutant in texts if mutant not in outcomes]
    ran = run_mutants(copy, module, [texts[mutant] for mutant in todo], tests=shlex.split(TESTS[module]))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a" if again else "w", buffering=1) as results:
        for mutant, outcome in zip(todo, tqdm(ran, total=len(todo), desc=module, disable=None), strict=True):
            results.write(json.dumps([mutant, outcome]) + "\n")
            outcomes[mutant] = outcome
    return outcomes


def _print_counts(name: str, counts: Counter[str], seconds: float) -> float:
    """Print a row of the table, and return the share of mutants that are killed."""
    killed = counts["killed"] + counts["timeout"]
    share = killed / max(1, counts.total())
    _print_row(name, counts.total(), killed, counts["timeout"], counts["survived"], f"{share:.1%}", round(seconds))
    return share


def _print_row(name: str, *cells: str | int) -> None:
    print(f"{name:46}", *(f"{cell:>9}" for cell in cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
