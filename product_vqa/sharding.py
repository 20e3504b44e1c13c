"""A part of the work for one of several machines: shard `2/6` is the second of six."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from product_vqa.errors import InputError, argument

MAX_SHARDS = 9999
_SHARD = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")


@dataclass(frozen=True)
class Shard:
    number: int  # from 1
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def suffix(self) -> str:
        """As `datasets` numbers files: `00001-of-00006` for shard 2/6."""
        return f"{self.number - 1:05d}-of-{self.count:05d}"

    @classmethod
    def of_url(cls, url: str, count: int) -> "Shard":
        """The shard that a URL belongs to, by a hash: the same in whatever CSV it is."""
        digest = hashlib.sha256(url.encode(errors="surrogatepass")).digest()
        return cls(int.from_bytes(digest[:8], "big") % count + 1, count)

    def owns_url(self, url: str) -> bool:
        return self.of_url(url, self.count) == self

    def owns(self, position: int) -> bool:
        """Whether the item at this position is of this shard: the shards take turns."""
        return position % self.count == self.number - 1


@dataclass
class ShardOptions:
    """Which part of the work is done here. By default, all of it."""

    shard: str | None = field(
        default=None, metadata={"help": "Do a part of the work only: 2/6 is the second of six. For several machines."}
    )

    def __post_init__(self) -> None:
        with argument("shard"):
            parse_shard(self.shard or "1/1")

    @property
    def chosen(self) -> Shard | None:
        return None if self.shard is None else parse_shard(self.shard)


@dataclass
class MergeOptions(ShardOptions):
    """Which part of the work is done here, or that the parts are merged."""

    merge: int | None = field(
        default=None, metadata={"help": "Merge the results of so many shards, which were made with the same options."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard is not None and self.merge is not None:
            raise InputError("`shard` and `merge` are two steps: first each shard, then the merge")
        if self.merge is not None and not 1 <= self.merge <= MAX_SHARDS:
            raise InputError(f"`merge` must be between 1 and {MAX_SHARDS}, got {self.merge}")


def parse_shard(text: str) -> Shard:
    """`2/6` -> Shard(2, 6). Raises InputError for anything else."""
    found = _SHARD.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"{text!r} is not a shard: expected I/N, such as 2/6 for the second of six")
    return Shard(int(found[1]), int(found[2]))


def all_shards(count: int) -> list[Shard]:
    return [Shard(number, count) for number in range(1, count + 1)]


def missing_message(missing: Iterable[Shard], *, where: str) -> str:
    """What to do where some shards were not found."""
    shards = list(missing)
    listed = ", ".join(map(str, shards[:10])) + (" ..." if len(shards) > 10 else "")
    count = shards[0].count
    return f"{where} lacks {len(shards)} of {count} shards ({listed}): run the same command with `shard` for them"
