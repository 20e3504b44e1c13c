"""What a shard is."""

import pytest

from product_vqa.errors import InputError
from product_vqa.sharding import MergeOptions, ShardOptions, all_shards, missing_message, parse_shard


def test_shards_take_turns() -> None:
    owned = [[position for position in range(10) if parse_shard(f"{number}/3").owns(position)] for number in (1, 2, 3)]
    assert owned == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert parse_shard("2/6").suffix == "00001-of-00006"
    assert [str(shard) for shard in all_shards(2)] == ["1/2", "2/2"]


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "1/0", "-1/2", "1/2/3", " 1/2", "1/99999", "\u0661/2"])
def test_what_is_not_a_shard_is_named(text: str) -> None:
    with pytest.raises(InputError, match="is not a shard: expected I/N"):
        parse_shard(text)


def test_shards_and_their_merge_are_two_steps() -> None:
    assert ShardOptions().chosen is None
    assert ShardOptions(shard="1/2").chosen == parse_shard("1/2")
    with pytest.raises(InputError, match="`shard` and `merge` are two steps"):
        MergeOptions(shard="1/2", merge=2)


def test_missing_shards_are_listed_with_what_to_do() -> None:
    message = missing_message(all_shards(30)[5:], where="user/predictions")
    assert message.startswith("user/predictions lacks 25 of 30 shards (6/30, 7/30, ") and "15/30 ...)" in message
