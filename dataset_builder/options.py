"""The options that several commands share. Nothing heavy is imported here, so that `--help` answers at once."""

from dataclasses import dataclass, field, replace

from dataset_builder.labels import RANGE_POLICIES
from product_vqa.errors import InputError

TRAIN_CSV_HELP = "Labelled rows: a CSV, plain or compressed (gzip, bzip2, xz, zip)."
TEST_CSV_HELP = "Rows to predict: a CSV, plain or compressed (gzip, bzip2, xz, zip)."


@dataclass
class TableOptions:
    train_csv: str | None = field(default=None, metadata={"help": TRAIN_CSV_HELP})
    test_csv: str | None = field(default=None, metadata={"help": TEST_CSV_HELP})

    def __post_init__(self) -> None:
        if self.train_csv is None and self.test_csv is None:
            raise InputError("no rows: give `train_csv`, `test_csv`, or both")


@dataclass
class ImageSourceOptions:
    image_dir: str | None = field(
        default=None, metadata={"help": "Folder of images, each named like the last part of its URL."}
    )
    image_store: str | None = field(
        default=None, metadata={"help": "Folder of downloaded images. Missing images are downloaded first."}
    )

    def __post_init__(self) -> None:
        if (self.image_dir is None) == (self.image_store is None):
            raise InputError("give exactly one source of images: `image_dir` or `image_store`")


@dataclass
class ImageOptions:
    image_size: int = field(
        default=448,
        metadata={"help": "Images are resized to fit a square of this many pixels a side. 0 keeps their size."},
    )

    def __post_init__(self) -> None:
        if self.image_size != 0 and not 32 <= self.image_size <= 8192:
            raise InputError(f"`image_size` must be 0 or between 32 and 8192, got {self.image_size}")


@dataclass
class FetchOptions:
    connections: int = field(default=32, metadata={"help": "Number of images downloaded at the same time."})
    requests_per_second: float | None = field(
        default=None,
        metadata={
            "help": "Send at most so many requests per second to one host, from all shards together. Unset: as many "
            "as the connections take."
        },
    )
    retry_failed: bool = field(
        default=False, metadata={"help": "Retry URLs that failed in earlier runs and could succeed now."}
    )
    allow_private_hosts: bool = field(
        default=False,
        metadata={"help": "Download from loopback and private addresses too. Only for URLs that you wrote yourself."},
    )

    def __post_init__(self) -> None:
        if not 1 <= self.connections <= 256:
            raise InputError(f"`connections` must be between 1 and 256, got {self.connections}")
        if self.requests_per_second is not None and not 1e-6 <= self.requests_per_second <= 1e6:
            raise InputError(
                f"`requests_per_second` must be between 0.000001 and 1000000, got {self.requests_per_second}"
            )

    def of_one_shard(self, count: int) -> "FetchOptions":
        """The options of one of `count` shards, which together keep the rate."""
        rate = self.requests_per_second
        return self if rate is None else replace(self, requests_per_second=rate / count)


@dataclass
class SelectionOptions:
    """How labels are read, and which rows are held out."""

    ranges: str = field(
        default="leave_out",
        metadata={
            "help": "What to do with a label like `[100.0, 240.0] volt`: leave_out drops its row, first or last reads "
            "that number."
        },
    )
    validation_size: float = field(
        default=0.05, metadata={"help": "Share of the labelled rows to hold out for validation. 0: none."}
    )
    seed: int = field(default=0, metadata={"help": "Seed that decides which rows are held out."})

    def __post_init__(self) -> None:
        if self.ranges not in RANGE_POLICIES:
            raise InputError(f"`ranges` must be one of {', '.join(RANGE_POLICIES)}, got {self.ranges}")
        if not 0 <= self.validation_size < 1:
            raise InputError(f"`validation_size` must be at least 0 and less than 1, got {self.validation_size}")
