import hashlib
import logging
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_builder.row_filter import DatasetRow, FilteredRows
from dataset_builder.split import MIN_OVERSIZE_ROWS, components, hold_out, split_rows
from dataset_builder.stored_image import StoredImage
from product_vqa.tables.rows import Row

COLUMNS = ["index", "image_link", "sha256", "phash", "group_id", "entity_name", "entity_value"]


def frame(*rows: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def many_rows(number: int, *, per_link: int = 2, seed: int = 0) -> pd.DataFrame:
    """Rows about number / per_link images, three entities of unequal size among them."""
    rng = random.Random(seed)
    entities = rng.choices(["item_weight", "height", "voltage"], [80, 15, 5], k=number)
    return frame(
        *((n, f"l{n % (number // per_link)}", None, None, "g", entities[n], f"{n}.0 gram") for n in range(number))
    )


def test_rows_with_one_url_or_bytes_or_hash_or_answer_next_to_each_other_belong_together() -> None:
    rows = frame(
        (0, "a", "s0", 10, "g", "width", "1.0 inch"),
        (1, "a", "s1", 11, "g", "height", "1.0 inch"),  # the url of the one before
        (2, "b", "s2", 12, "g", "width", "2.0 inch"),
        (3, "c", "s2", 13, "g", "width", "3.0 inch"),  # its bytes
        (4, "d", "s4", 14, "g", "width", "4.0 inch"),
        (5, "e", "s5", 14, "g", "width", "5.0 inch"),  # its hash
        (6, "f", "s6", 16, "g", "width", "6.0 inch"),
        (7, "h", "s7", 17, "g", "width", "6.0 inch"),  # group, entity and value
        (8, "i", "s8", 18, "G", "width", "6.0 inch"),  # another group
        (9, "j", "s9", 19, "g", "width", "6.0 inch"),  # as rows 6 and 7, but not next to them
    )
    for order in (range(10), random.Random(0).sample(range(10), 10)):
        component = components(rows.iloc[list(order)].reset_index(drop=True))
        together: dict[int, set[int]] = {}
        for position, number in zip(order, component, strict=True):
            together.setdefault(number, set()).add(position)
        assert sorted(map(sorted, together.values())) == [[0, 1], [2, 3], [4, 5], [6, 7], [8], [9]]


def test_of_rows_with_one_index_their_order_decides_which_follow_each_other() -> None:
    """The splits of a dataset from elsewhere may each begin at 0."""
    rows = frame(*((n % 2, f"l{n}", None, None, "g", "width", f"{n // 50}.0 inch") for n in range(100)))
    assert len(set(components(rows))) == 4  # of each index, the first 25 rows and the others


def test_chains_are_followed_to_their_end() -> None:
    rows = frame(*((n, f"l{n // 2}", f"s{(n + 1) // 2}", n, "g", "width", f"{n}.0 inch") for n in range(1000)))
    assert len(set(components(rows))) == 1


def test_what_is_not_known_joins_nothing() -> None:
    rows = frame(*((n, f"l{n}", None, None, "g", "width", "") for n in range(5)))
    assert len(set(components(rows))) == 5
    assert len(set(components(rows.drop(columns=["sha256", "phash"])))) == 5


@pytest.mark.parametrize("validation_size", [0.0, 0.001, 0.05, 0.5, 0.99, 1.0])
def test_the_share_of_rows_is_what_was_asked(validation_size: float) -> None:
    is_held_out, _ = hold_out(many_rows(1000), validation_size=validation_size, seed=0)
    assert abs(is_held_out.sum() - round(validation_size * 1000)) <= 2  # all components have two rows


def test_every_entity_gives_its_share() -> None:
    rows = many_rows(4000)
    is_held_out, _ = hold_out(rows, validation_size=0.1, seed=0)
    for entity, part in rows.groupby("entity_name"):
        assert is_held_out[part.index].mean() == pytest.approx(0.1, abs=0.015), entity


def test_the_shares_of_many_entities_are_not_all_rounded_up() -> None:
    """A tenth of two rows is up to one row of each entity, and a tenth of ten rows is one row."""
    rows = frame(*((n, f"l{n}", None, None, "g", f"entity {n // 2}", f"{n}.0 inch") for n in range(10)))
    assert [hold_out(rows, validation_size=size, seed=0)[0].sum() for size in (0.1, 0.2, 0.3, 0.5)] == [1, 2, 3, 5]


def test_a_component_that_is_too_large_stays_in_train_and_is_named() -> None:
    rows = many_rows(1000)
    rows.loc[100:119, "phash"] = 7  # 20 rows, and 20 others that have their urls
    is_held_out, oversize = hold_out(rows, validation_size=0.9, seed=0)
    assert [(part.rows, part.example) for part in oversize] == [(40, "l100")]
    joined = rows["image_link"].isin([f"l{number}" for number in range(100, 120)])
    assert joined.sum() == 40
    assert not is_held_out[joined].any()
    assert abs(is_held_out.sum() - 900) <= 2
    is_held_out, oversize = hold_out(rows, validation_size=0.0, seed=0)
    assert not is_held_out.any() and oversize == []


@pytest.mark.parametrize(("number", "allowed"), [(100, 10), (4000, 20)])  # or 0.5 % of the rows, if that is more
def test_ten_rows_or_half_a_percent_of_the_rows_can_be_held_out_together(number: int, allowed: int) -> None:
    urls = ["a"] * allowed + ["b"] * (allowed + 1) + [f"l{n}" for n in range(number - 2 * allowed - 1)]
    rows = frame(*((n, url, None, None, "g", "width", f"{n}.0 inch") for n, url in enumerate(urls)))
    _, oversize = hold_out(rows, validation_size=0.5, seed=0)
    assert [(part.rows, part.example) for part in oversize] == [(allowed + 1, "b")]


def held_out_in_turn(urls: list[str]) -> list[str]:
    """The URLs in the order in which a growing validation split takes them. None shares an image with another."""
    rows = frame(*((n, url, None, None, "g", "width", f"{n}.0 inch") for n, url in enumerate(urls)))
    order: list[str] = []
    for size in range(1, len(urls) + 1):
        is_held_out, _ = hold_out(rows, validation_size=size / len(urls), seed=7)
        order += [url for url in rows["image_link"][is_held_out] if url not in order]
        assert len(order) == size
    return order


def test_images_are_taken_in_the_order_of_the_hashes_of_their_names() -> None:
    """A split stays the same in later versions. Hashes: `printf '7 1.jpg' | sha256sum`, 7 is the seed."""
    one, two, three, four, five, six, seven = (
        "http://a.example/x/1.jpg",  # a0d203bb
        "http://a.example/x/2.jpg?size=1",  # f287062d, of `2.jpg?size=1`
        "http://a.example/x/3.jpg#top?x#y",  # 1fdfffce, of `3.jpg`
        "4.jpg",  # b00fc5e1
        "/x/5.jpg",  # 989c839d
        "http://a.example/x/6.jpg?of=y/7.jpg",  # ac626fbe, of `6.jpg?of=y/7.jpg`
        "http://a.example?size=6",  # 3d3e1931, of `?size=6`
    )
    assert held_out_in_turn([one, two, three, four, five, six, seven]) == [three, seven, five, one, six, four, two]


def test_of_images_of_one_name_the_hashes_of_their_folders_decide_from_the_last_to_the_first() -> None:
    one, two, three, other, another = (
        "http://z.example/1/main.jpg",  # 6a310c46, of `1`
        "http://a.example//2//main.jpg",  # 8847ccf9, of `2`
        "http://a.example/3/main.jpg",  # 0f3dc674, of `3`
        "http://a.example/http://b.example/4/main.jpg",  # 85e77972, of `4`, then e5819b94, of `b.example`
        "http://a.example/http://c.example/4/main.jpg",  # 85e77972, of `4`, then aee1e947, of `c.example`
    )
    assert held_out_in_turn([one, two, three, other, another]) == [three, one, another, other, two]


def test_images_that_differ_only_in_their_host_are_taken_in_the_order_of_their_urls() -> None:
    urls = ["HTTP://c.example/main.jpg", "HTTP://b.example/main.jpg"]  # not in that of the hashes of the hosts
    assert held_out_in_turn(urls) == urls[::-1]


def test_a_component_is_ranked_by_the_first_of_its_images_whatever_their_order() -> None:
    rows = many_rows(1000)
    rows["sha256"] = [str(n % 500 // 5) for n in range(1000)]  # five images each
    held_out = [
        set(part["image_link"][hold_out(part, validation_size=0.3, seed=0)[0]]) for part in (rows, rows.iloc[::-1])
    ]
    assert held_out[0] == held_out[1] and len(held_out[0]) > 130


def test_the_rows_are_divided_and_large_groups_are_named(caplog: pytest.LogCaptureFixture) -> None:
    urls = ["http://x/a"] * 11 + ["http://x/b"] * 13 + [f"http://x/{n}" for n in range(76)]
    labelled = tuple(
        DatasetRow(Row(n, n, url, "g", "width", "x"), f"{n}.0 inch", StoredImage(1, 2, 3, sha256(url), hash(url)))
        for n, url in enumerate(urls)
    )
    test = tuple(DatasetRow(Row(n, n, "http://x/0", "g", "width", ""), "", None) for n in range(2))
    filtered = FilteredRows(labelled, test, ())
    with caplog.at_level(logging.WARNING, logger="dataset_builder.split"):
        splits = split_rows(filtered, validation_size=0.1, seed=0)
    assert [record.name for record in caplog.records] == ["dataset_builder.split"]
    assert caplog.messages == [
        "2 groups of related rows are too large to be held out, and stay in train with 24 rows; the largest has 13 "
        "rows, for example http://x/b"
    ]
    assert [(part.rows, part.example) for part in splits.oversize] == [(13, "http://x/b"), (11, "http://x/a")]
    assert {split: len(rows) for split, rows in splits.rows.items()} == {"train": 90, "validation": 10, "test": 2}
    assert sorted([*splits.rows["train"], *splits.rows["validation"]]) == list(labelled)
    assert splits.rows["test"] == test
    assert split_rows(filtered, validation_size=0.1, seed=1).rows["validation"] != splits.rows["validation"]
    table = splits.as_frame()
    assert list(table.index) == list(range(102))
    assert list(table["split"]) == ["train"] * 90 + ["validation"] * 10 + ["test"] * 2
    assert list(table["index"]) == [row.row.index for rows in splits.rows.values() for row in rows]


def test_a_split_without_rows_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    row = DatasetRow(Row(0, 0, "http://x/0", "g", "width", "x"), "1.0 inch", StoredImage(1, 2, 3, sha256("s"), 4))
    splits = split_rows(FilteredRows((row,), (), ()), validation_size=0.0, seed=0)
    assert splits.rows == {"train": (row,)} and splits.oversize == () and not caplog.messages


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does() -> None:
    rows = many_rows(1000)
    shuffled = rows.sample(frac=1, random_state=1)
    first, second = (
        set(part["image_link"][hold_out(part, validation_size=0.1, seed=0)[0]]) for part in (rows, shuffled)
    )
    assert first == second
    other = set(rows["image_link"][hold_out(rows, validation_size=0.1, seed=1)[0]])
    assert len(first & other) < 0.5 * len(first)  # by chance a tenth of them


HOSTS = [
    "http://127.0.0.1:{number}/",
    "https://shop.example/",
    "HTTPS://cdn{number}.example:8080/some/folder/",
    "file:///home/user{number}/",
    "",
]


@pytest.mark.parametrize("name", ["{n}.jpg", "image?id={n}", "{n}/main.jpg", "{n}/main.jpg?size=large#top"])
def test_the_split_does_not_depend_on_the_host_port_or_folder_that_serves_the_images(name: str) -> None:
    rows = many_rows(1000)
    names = [name.format(n=url) for url in rows["image_link"]]
    held_out = []
    for number, host in enumerate(HOSTS):
        moved = rows.assign(image_link=[host.format(number=9000 + number).rstrip("/") + "/" + part for part in names])
        held_out.append(hold_out(moved, validation_size=0.1, seed=0)[0])
    assert len(held_out) == 5
    assert all((part == held_out[0]).all() for part in held_out)
    assert abs(held_out[0].sum() - 100) <= 2


def test_images_of_one_name_are_drawn_evenly() -> None:
    rows = many_rows(1000)
    rows["image_link"] = [f"https://shop.example/{url}/main.jpg" for url in rows["image_link"]]
    is_held_out = hold_out(rows, validation_size=0.5, seed=0)[0]
    assert 150 < is_held_out[:500].sum() < 350  # and not the first half of them


def test_nothing_is_taken_from_nothing() -> None:
    is_held_out, oversize = hold_out(frame(), validation_size=0.5, seed=0)
    assert is_held_out.dtype == np.bool_ and len(is_held_out) == 0 and oversize == []


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=150, max_size=300),
    validation_size=st.floats(0.05, 0.9),
    seed=st.integers(0, 9),
)
def test_any_components_give_the_size_asked_within_a_tenth_and_none_crosses(
    sizes: list[int], validation_size: float, seed: int
) -> None:
    urls = [f"l{number}" for number, size in enumerate(sizes) for _ in range(size)]
    entities = random.Random(seed).choices(["width", "height", "voltage"], [80, 15, 5], k=len(urls))
    rows = frame(*((n, url, None, None, "g", entities[n], f"{n}.0 inch") for n, url in enumerate(urls)))
    is_held_out, oversize = hold_out(rows, validation_size=validation_size, seed=seed)
    assert set(rows["image_link"][is_held_out]).isdisjoint(rows["image_link"][~is_held_out])
    too_large = [size for size in sizes if size > MIN_OVERSIZE_ROWS]
    assert sorted(part.rows for part in oversize) == sorted(too_large)
    wanted = min(validation_size * len(rows), len(rows) - sum(too_large))
    assert is_held_out.sum() >= 0.9 * wanted - 3
    assert is_held_out.sum() <= 1.1 * wanted + 1
