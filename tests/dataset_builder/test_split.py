import random

import pytest

from dataset_builder.split import validation_links

# 1,000 rows about 800 links: 200 links have two rows
LINKS = [f"https://shop.example/{number % 800}.jpg" for number in range(1000)]


def rows_of(taken: set[str]) -> int:
    return sum(link in taken for link in LINKS)


@pytest.mark.parametrize("validation_size", [0.0, 0.001, 0.05, 0.5, 0.99])
def test_the_share_of_rows_is_what_was_asked(validation_size: float):
    taken = validation_links(LINKS, validation_size=validation_size, seed=0)
    assert 0 <= rows_of(taken) - round(validation_size * 1000) <= 1  # at most one row too many: the last link's second


def test_the_order_of_the_rows_does_not_matter():
    shuffled = random.Random(1).sample(LINKS, len(LINKS))
    assert validation_links(shuffled, validation_size=0.1, seed=0) == validation_links(
        LINKS, validation_size=0.1, seed=0
    )


def test_another_seed_takes_other_links():
    first, second = (validation_links(LINKS, validation_size=0.1, seed=seed) for seed in (0, 1))
    assert len(first & second) < 0.5 * len(first)  # by chance a tenth of them


def test_nothing_is_taken_from_nothing():
    assert validation_links([], validation_size=0.5, seed=0) == set()
