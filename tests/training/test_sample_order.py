"""The order of samples: each once in an epoch, known in advance, by row groups that one rank reads, and shuffled."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.sample_order import BufferedSampler, BufferedShuffle, choose_samples

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=40)
SAMPLES_PER_STEP = st.integers(1, 12)


def make_shuffle(sizes: list[int], *, buffer_size: int = 40, seed: int = 0) -> BufferedShuffle:
    return BufferedShuffle(np.repeat(np.arange(len(sizes)), sizes), buffer_size, seed)


def num_steps(shuffle: BufferedShuffle, samples_per_step: int) -> int:
    return -(-len(shuffle.row_groups) // samples_per_step)


@settings(max_examples=100)
@given(SIZES, SAMPLES_PER_STEP, st.integers(1, 200), st.integers(0, 3))
def test_an_epoch_has_each_sample_and_fills_its_last_step_with_some_of_another_shuffle(
    sizes: list[int], samples_per_step: int, buffer_size: int, epoch: int
) -> None:
    shuffle = make_shuffle(sizes, buffer_size=buffer_size)
    steps = num_steps(shuffle, samples_per_step)
    order = shuffle.order(epoch, num_steps=steps, samples_per_step=samples_per_step)
    assert order.shape == (steps, samples_per_step)
    uses = Counter(order.ravel().tolist())
    assert set(uses) == set(range(sum(sizes)))
    assert sum(uses.values()) - len(uses) == order.size - sum(sizes) < samples_per_step
    again = make_shuffle(sizes, buffer_size=buffer_size).order(
        epoch, num_steps=steps, samples_per_step=samples_per_step
    )
    assert (order == again).all()


@settings(max_examples=100)
@given(SIZES, SAMPLES_PER_STEP)
def test_without_the_last_step_no_sample_occurs_twice(sizes: list[int], samples_per_step: int) -> None:
    shuffle = make_shuffle(sizes)
    steps = sum(sizes) // samples_per_step
    order = shuffle.order(0, num_steps=steps, samples_per_step=samples_per_step)
    assert len(set(order.ravel().tolist())) == steps * samples_per_step


def test_epochs_and_seeds_differ() -> None:
    orders = [
        make_shuffle([5] * 20, seed=seed).order(epoch, num_steps=25, samples_per_step=4).tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert all(one != other for number, one in enumerate(orders) for other in orders[:number])


def test_a_buffer_that_holds_all_rows_shuffles_all_of_them() -> None:
    """Of 2,000 epochs of 8 samples, each pair of samples is in the first step about 2,000 / 28 = 71 times."""
    shuffle = make_shuffle([2, 2, 2, 2], buffer_size=8)
    pairs: Counter[frozenset[int]] = Counter()
    for epoch in range(2000):
        pairs[frozenset(shuffle.order(epoch, num_steps=4, samples_per_step=2)[0].tolist())] += 1
    assert len(pairs) == 28
    assert min(pairs.values()) > 40 and max(pairs.values()) < 110


def test_rows_are_mixed_with_those_of_other_row_groups() -> None:
    """Among 64 successive samples of 10,000 in a buffer, those of a row group of 100 would occur once at most."""
    shuffle = make_shuffle([100] * 300, buffer_size=10_000)
    order = shuffle.order(0, num_steps=468, samples_per_step=64)
    per_step = [Counter(shuffle.row_groups[step].tolist()).most_common(1)[0][1] for step in order]
    assert np.mean(per_step) < 3
    assert len(set(shuffle.row_groups[order[0]].tolist())) > 40


@settings(max_examples=100)
@given(SIZES, st.sampled_from([1, 2, 3, 4]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 100))
def test_the_samples_of_a_step_do_not_depend_on_how_they_are_divided(
    sizes: list[int], num_ranks: int, batch_size: int, accumulated: int, buffer_size: int
) -> None:
    shuffle = make_shuffle(sizes, buffer_size=buffer_size)
    samples = num_ranks * batch_size * accumulated
    steps = num_steps(shuffle, samples)
    sampler = BufferedSampler(
        shuffle, num_steps=steps, samples_per_step=samples, batch_size=batch_size, num_ranks=num_ranks
    )
    sampler.set_epoch(1)
    yielded = list(sampler)
    assert len(yielded) == len(sampler)
    by_step = np.array(yielded).reshape(steps, samples)
    expected = shuffle.order(1, num_steps=steps, samples_per_step=samples)
    assert (np.sort(by_step) == np.sort(expected)).all()
    # accelerate gives batch i to rank i % num_ranks.
    batches = np.array(yielded).reshape(-1, batch_size)
    for rank in range(num_ranks):
        assert sampler.of_rank(rank).tolist() == batches[rank::num_ranks].ravel().tolist()


@settings(max_examples=50)
@given(st.integers(20, 60), st.sampled_from([1, 2, 4, 8]), st.integers(0, 3))
def test_each_row_group_is_read_by_one_rank_and_few_are_open(num_groups: int, num_ranks: int, epoch: int) -> None:
    """A lane of another rank begins within a row group: only there, two ranks read one."""
    shuffle = make_shuffle([10] * num_groups, buffer_size=160)
    assert shuffle.num_lanes(8) == 8
    steps = num_steps(shuffle, 8)
    sampler = BufferedSampler(
        shuffle, num_steps=steps, samples_per_step=8, batch_size=8 // num_ranks, num_ranks=num_ranks
    )
    sampler.set_epoch(epoch)
    readers: Counter[int] = Counter()
    for rank in range(num_ranks):
        groups = shuffle.row_groups[sampler.of_rank(rank)]
        readers.update(set(groups.tolist()))
        first = {group: index for index, group in reversed(list(enumerate(groups.tolist())))}
        last = {group: index for index, group in enumerate(groups.tolist())}
        needed = [
            sum(int((groups[index:] == group).sum()) for group in first if first[group] <= index <= last[group])
            for index in range(0, len(groups), 5)
        ]
        assert max(needed) <= shuffle.rows_in_memory(samples_per_step=8, num_ranks=num_ranks)
    filled = steps * 8 - 10 * num_groups  # with rows of another shuffle
    assert sum(readers.values()) <= num_groups + (num_ranks - 1) + filled


def test_row_groups_larger_than_the_buffer_are_shuffled_one_after_the_other() -> None:
    shuffle = make_shuffle([50, 50, 50], buffer_size=10)
    assert shuffle.num_lanes(4) == 1
    order = shuffle.order(0, num_steps=37, samples_per_step=4).ravel()
    groups = shuffle.row_groups[order]
    assert all(len(set(groups[start : start + 10].tolist())) <= 2 for start in range(0, 140, 10))


@pytest.mark.parametrize(("buffer_size", "is_problem"), [(49, True), (199, True), (200, False), (500, False)])
def test_row_groups_that_are_too_large_for_the_buffer_are_a_problem(buffer_size: int, is_problem: bool) -> None:
    shuffle = make_shuffle([50] * 9, buffer_size=buffer_size)
    assert (shuffle.num_lanes(64) == 1) == (is_problem or buffer_size == 500)
    problem = shuffle.describe_problem()
    assert (problem is not None) == is_problem
    assert problem is None or ("up to 50 rows" in problem and "Set it to 200 or more" in problem)


@settings(max_examples=100)
@given(SIZES, st.integers(1, 500), st.integers(0, 3))
def test_as_many_rows_as_asked_for_are_chosen_from_few_row_groups(sizes: list[int], number: int, seed: int) -> None:
    rows = choose_samples(np.array(sizes), number, seed=seed)
    assert len(set(rows.tolist())) == len(rows) == min(number, sum(sizes))
    assert rows.tolist() == sorted(rows.tolist())
    groups = Counter(np.repeat(np.arange(len(sizes)), sizes)[rows].tolist())
    assert sum(uses < sizes[group] for group, uses in groups.items()) <= 1
    assert rows.tolist() == choose_samples(np.array(sizes), number, seed=seed).tolist()


def test_of_no_row_groups_none_are_chosen() -> None:
    assert choose_samples(np.array([], dtype=np.int64), 5, seed=0).tolist() == []


def test_the_seed_chooses_the_row_groups() -> None:
    sizes = np.array([10] * 100)
    drawn = [choose_samples(sizes, 50, seed=seed).tolist() for seed in (0, 1)]
    assert drawn[0] != drawn[1] and max(drawn[0]) > 100
