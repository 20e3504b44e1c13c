"""The order of samples of a run that reads its rows by row group: a shuffle buffer over row numbers, known in advance.

An epoch visits the row groups in a random order. They form one stream of rows, which is divided into *lanes* of equal
length, and each lane into blocks of consecutive rows that are shuffled: all blocks at one point of the epoch are the
shuffle buffer. Each optimizer step takes the same number of samples from each lane.

Only row numbers are shuffled, so that the order is known before any row is read: a run resumes at its next sample, and
row groups are read ahead. The samples of a step depend on the seed and on their number, not on how they are divided
among ranks and batches. Each rank takes its own lanes: it reads its own row groups only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler


@dataclass(frozen=True)
class BufferedShuffle:
    """A shuffle of samples within a buffer of about `buffer_size` samples, over all ranks."""

    row_groups: np.ndarray  # (N,) the row group of each sample
    buffer_size: int
    seed: int

    def order(self, epoch: int, *, num_steps: int, samples_per_step: int) -> np.ndarray:
        """Return the samples of each step of an epoch, (num_steps, samples_per_step); those of a lane are adjacent.

        If the samples are fewer, some of another shuffle follow them; if they are more, the last ones are dropped.
        """
        rng = np.random.default_rng((self.seed, epoch))
        stream = self._stream(rng)
        total = num_steps * samples_per_step
        while len(stream) < total:
            stream = np.concatenate([stream, self._stream(rng)])
        lanes = self.num_lanes(samples_per_step)
        by_lane = stream[:total].reshape(lanes, total // lanes)
        block = np.arange(by_lane.shape[1]) // max(1, self.buffer_size // lanes)
        within = np.lexsort((rng.random(by_lane.shape), np.broadcast_to(block, by_lane.shape)))
        shuffled = np.take_along_axis(by_lane, within, axis=1)
        by_step = shuffled.reshape(lanes, num_steps, samples_per_step // lanes).swapaxes(0, 1)
        return by_step.reshape(num_steps, samples_per_step)

    def num_lanes(self, samples_per_step: int) -> int:
        """Return the number of lanes: it divides `samples_per_step`, and a block has two row groups or more.

        With shorter blocks, most rows in memory would be the rest of a row group that a block begins or ends with.
        There is one lane only where row groups are larger than that, and where the buffer holds all samples, which are
        then shuffled completely.
        """
        if len(self.row_groups) <= self.buffer_size:
            return 1
        most = min(samples_per_step, self.buffer_size // (2 * self._largest_row_group()))
        return max((n for n in range(1, most + 1) if samples_per_step % n == 0), default=1)

    def rows_in_memory(self, *, samples_per_step: int, num_ranks: int) -> int:
        """Return how many rows a rank holds: its part of the buffer, and of each lane the rest of a row group."""
        lanes, largest = self.num_lanes(samples_per_step), self._largest_row_group()
        return -(-(self.buffer_size + lanes * largest) // min(num_ranks, lanes)) + largest

    def describe_problem(self) -> str | None:
        """Describe what is wrong where row groups are so large that there is one lane; None if nothing is."""
        if len(self.row_groups) <= self.buffer_size:
            return None
        needed = 4 * self._largest_row_group()  # two lanes
        if self.buffer_size >= needed:
            return None
        return (
            f"The row groups have up to {needed // 4} rows, which is too much for `shuffle_buffer_size` "
            f"{self.buffer_size}: successive steps take their samples from the same row groups, and each rank reads "
            f"all of them. Set it to {needed} or more, or write the dataset with smaller row groups."
        )

    def _largest_row_group(self) -> int:
        return int(np.bincount(self.row_groups).max())

    def _stream(self, rng: np.random.Generator) -> np.ndarray:
        """Return all samples, by row group, in a random order of row groups."""
        positions = rng.permutation(int(self.row_groups.max()) + 1)  # of the row groups
        return np.argsort(positions[self.row_groups], kind="stable")


class BufferedSampler(Sampler[int]):
    """Yields the samples of an epoch in the batches of all ranks: batch i is for rank i % num_ranks.

    accelerate divides the batches of any sampler so.
    """

    def __init__(
        self,
        shuffle: BufferedShuffle,
        *,
        num_steps: int,
        samples_per_step: int,
        batch_size: int,
        num_ranks: int,
        reference: Callable[[int], int] = int,
    ) -> None:
        """`reference` makes what is yielded of a sample (`training.streaming.StreamedRows.reference`)."""
        self.epoch = 0
        self._shuffle, self._reference = shuffle, reference
        self._shape = num_steps, samples_per_step
        self._batch_size, self._num_ranks = batch_size, num_ranks

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        num_steps, samples_per_step = self._shape
        return num_steps * samples_per_step

    def __iter__(self) -> Iterator[int]:
        batches = self._batches()  # (steps, ranks, accumulated batches, samples)
        yield from map(self._reference, batches.swapaxes(1, 2).ravel().tolist())

    def of_rank(self, rank: int) -> np.ndarray:
        """Return the samples of one rank in the epoch, in their order."""
        return self._batches()[:, rank].ravel()

    def _batches(self) -> np.ndarray:
        num_steps, samples_per_step = self._shape
        order = self._shuffle.order(self.epoch, num_steps=num_steps, samples_per_step=samples_per_step)
        return order.reshape(num_steps, self._num_ranks, -1, self._batch_size)


def choose_samples(num_rows: np.ndarray, number: int, *, seed: int) -> np.ndarray:
    """Choose `number` rows of as few row groups as possible: complete row groups in a random order.

    `num_rows` (G,) has the number of rows of each row group. Returns the rows in ascending order.
    """
    starts = np.cumsum(num_rows) - num_rows
    order = np.random.default_rng(seed).permutation(len(num_rows))
    rows = [np.arange(starts[group], starts[group] + num_rows[group]) for group in order]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *rows])[:number])
