"""A share of `make fuzz`, and the fuzzer itself: it notices each kind of failure, and repeats each case."""

import random

import pytest

from tests.fuzz.cases import case_maker
from tests.fuzz.mutation import MAX_BYTES, mutate
from tests.fuzz.runner import Limits, Result, run_targets
from tests.fuzz.targets import CASES, NAMES, load_target

# Cases of each target in `make test`; without those that take longest to import or to run.
SHARE = {
    "quantity": 1000, "label": 1000, "index": 1000, "prediction": 1000, "train_csv": 60, "test_csv": 60,
    "image_any": 150, "image_gif": 50, "server_answer": 100, "json": 500, "yaml": 200, "front_matter": 200,
    "card_merge": 40, "hub_card": 100, "hub_route": 60, "hub_body": 60, "hub_commit": 40, "calibration": 100,
    "task_file": 100, "card_configs": 50, "shard_manifest": 40, "shard_states": 40, "shard_images": 40,
    "prediction_shard": 100, "run_state": 60, "lease": 100, "vote_weights": 100,
    "schema": 200, "pattern": 300,
}  # fmt: skip


@pytest.mark.parametrize("name", SHARE)
def test_no_case_of_a_share_is_a_finding(name: str) -> None:
    target = load_target(name)
    make = case_maker(target, seed=1)
    for number in range(SHARE[name]):
        data = make(number)
        try:
            target.fuzz(data)
        except BaseException as error:
            error.add_note(f"case {number}: load_target({name!r}).fuzz({data!r})")
            raise


def test_a_full_run_has_two_million_cases_and_many_of_each_target() -> None:
    assert sum(CASES.values()) >= 2_000_000
    assert min(CASES.values()) >= 20_000
    assert set(SHARE) <= set(NAMES)


@pytest.mark.parametrize("name", ["quantity", "train_csv", "image_png", "server_answer", "hub_commit"])
def test_a_case_is_repeated_from_its_target_seed_and_number(name: str) -> None:
    target = load_target(name)
    first, again, other = (case_maker(target, seed=seed) for seed in (7, 7, 8))
    numbers = range(len(target.seeds()), 300)
    cases = [first(number) for number in numbers]
    assert cases == [again(number) for number in numbers]
    assert len(set(cases)) > 0.5 * len(cases)
    assert cases != [other(number) for number in numbers]


def test_mutations_stay_within_the_limit() -> None:
    rng = random.Random(0)
    sizes = [len(mutate(rng, b"x,1\n" * 50, seeds=[b"y"], words=[b"w"], max_bytes=500)) for _ in range(5000)]
    assert max(sizes) <= MAX_BYTES
    assert 1 <= sum(size > 500 for size in sizes) <= 50  # one in 500 is large


def run_broken(kind: str, *, cases: int = 3, case_s: float = 60, memory_mb: int = 500) -> Result:
    limits = Limits(seed=0, seconds=60, case_s=case_s, memory_mb=memory_mb)
    (result,) = run_targets({f"broken_{kind}": cases}, limits=limits, jobs=1)
    return result


@pytest.mark.slow
def test_an_error_outside_the_contract_is_a_finding_and_is_minimized() -> None:
    result = run_broken("raise")
    assert (result.cases, result.count("crash"), result.count("hang")) == (3, 1, 0)
    (finding,) = result.findings
    assert (finding.number, finding.data) == (1, "x")
    assert finding.place.startswith("KeyError at tests/fuzz/broken.py:")


@pytest.mark.faults
def test_a_target_that_keeps_to_its_contract_has_no_findings() -> None:
    result = run_broken("not", cases=2000)
    assert (result.cases, result.findings) == (2000, [])
    assert 10 < result.peak_mb < 1000


@pytest.mark.faults
@pytest.mark.parametrize(
    ("kind", "expected", "place"),
    [
        ("compute", "hang", ""),  # CPU time above the limit
        ("wait", "hang", "HangError at tests/fuzz/broken.py"),  # no progress, without CPU time
        ("die", "crash", "exit code -11 at 1"),  # a segmentation fault: Python raises nothing
    ],
)
def test_hangs_and_deaths_are_findings_and_the_next_cases_run(kind: str, expected: str, place: str) -> None:
    result = run_broken(kind, case_s=0.3)
    assert result.cases == 3
    (finding,) = result.findings
    assert (finding.kind, finding.number) == (expected, 1)
    assert "x" in finding.data
    assert place in finding.place


@pytest.mark.faults
def test_memory_above_the_limit_is_a_finding() -> None:
    result = run_broken("leak", cases=300, memory_mb=100)
    assert {finding.place.split()[0] for finding in result.findings} - {"exit"} == {"MemoryError"}
    assert result.peak_mb < result.base_mb + 150
