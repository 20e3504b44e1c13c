"""The options of the commands. Nothing heavy is imported here, so that `--help` answers at once."""

import re
from dataclasses import dataclass, field, replace

from product_vqa.engine import EngineOptions
from product_vqa.errors import InputError
from product_vqa.sharding import MAX_SHARDS, MergeOptions
from product_vqa.tables.layout import COLUMNS_HELP, WIDE_HELP
from product_vqa.task.quantity import RANGE_POLICIES

TRAIN_CSV_HELP = "Labelled rows: a CSV, JSON Lines (both may be compressed), Parquet, or user/name:split."
SCHEMA_HELP = (
    "Attributes, and what may be answered about each: a schema.yaml. Default: the challenge's eight attributes."
)
STATED, LABELS = "stated", "labels"  # how it is known that an image does not show an attribute
TEST_CSV_HELP = "Rows to predict: a CSV, JSON Lines (both may be compressed), Parquet, or user/name:split."


@dataclass
class TableOptions:
    train_csv: str | None = field(default=None, metadata={"help": TRAIN_CSV_HELP})
    test_csv: str | None = field(default=None, metadata={"help": TEST_CSV_HELP})
    schema: str | None = field(default=None, metadata={"help": SCHEMA_HELP})
    wide: bool = field(default=False, metadata={"help": WIDE_HELP})
    columns: str | None = field(default=None, metadata={"help": COLUMNS_HELP})

    def __post_init__(self) -> None:
        if self.train_csv is None and self.test_csv is None:
            raise InputError("no rows: give `train_csv`, `test_csv`, or both")


@dataclass
class ImageSourceOptions:
    image_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of images. image_link is a path in it, or a URL whose last part is the name of a file."
        },
    )
    image_store: str | None = field(
        default=None, metadata={"help": "Folder of downloaded images. Missing images are downloaded first."}
    )

    def __post_init__(self) -> None:
        if (self.image_dir is None) == (self.image_store is None):
            raise InputError("give exactly one source of images: `image_dir` or `image_store`")


@dataclass
class BuildSourceOptions(ImageSourceOptions, EngineOptions):
    """Where the images come from, and who downloads them."""

    ray_shards: int | None = field(
        default=None,
        metadata={
            "help": "With --engine ray: number of parts of the work, the same when the command is rerun. Default: one "
            "per 1,000 images; at most 100 where shards meet on the Hub, which makes a commit of each."
        },
    )
    shards_url: str | None = field(
        default=None,
        metadata={
            "help": "With --engine ray: where workers put what they downloaded: s3://bucket/build, or any URL of "
            "fsspec. Default: with --push_to_hub a branch of the repo, else --output_dir, which all machines must see."
        },
    )

    def __post_init__(self) -> None:
        EngineOptions.__post_init__(self)
        if not self.is_ray:
            ImageSourceOptions.__post_init__(self)
            return
        if self.image_dir is not None or self.image_store is not None:
            raise InputError(
                "with `engine` ray, give neither `image_dir` nor `image_store`: the workers download the images, each "
                "to its own disk"
            )
        if self.ray_shards is not None and not 1 <= self.ray_shards <= MAX_SHARDS:
            raise InputError(f"`ray_shards` must be between 1 and {MAX_SHARDS}, got {self.ray_shards}")
        if self.shards_url is not None and "://" not in self.shards_url:
            raise InputError(
                f"`shards_url` {self.shards_url} must be a URL like s3://bucket/build; use `output_dir` for a folder"
            )

    @property
    def ray_options(self) -> tuple[str, ...]:
        return (*super().ray_options, "ray_shards", "shards_url")


@dataclass
class BuildOptions:
    output_dir: str = field(metadata={"help": "Folder to create, or an earlier build to replace."})
    download: bool = field(
        default=True,
        metadata={"help": "Download missing images. If false, rows whose image is not in the store are dropped."},
    )
    ocr: bool = field(
        default=False,
        metadata={
            "help": "Also read the texts of all images, while they have their full size, and publish them as the "
            "configuration ocr. Seconds per image and core; needs the extra ocr. Not with --shard, --merge and "
            "--engine ray: read the images of the dataset that they make with dataset_builder.ocr."
        },
    )
    push_to_hub: bool = field(default=False, metadata={"help": "Publish the dataset as --hub_dataset_id."})
    hub_dataset_id: str | None = field(default=None, metadata={"help": "Dataset repo to push to (user/name)."})
    hub_private_repo: bool = field(
        default=True, metadata={"help": "Create the repo as private. If false, everyone can see it."}
    )
    license: str | None = field(
        default=None,
        metadata={
            "help": "License of the images, for the card: an identifier like cc-by-4.0 or mit, or other together with "
            "--license_name."
        },
    )
    license_name: str | None = field(
        default=None, metadata={"help": "Name of a license without an identifier. Requires --license other."}
    )

    def __post_init__(self) -> None:
        if self.push_to_hub and not self.hub_dataset_id:
            raise InputError("`push_to_hub` needs `hub_dataset_id` user/name")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise InputError(
                f"`license` {self.license} is not a license identifier of the Hub. Identifiers look like cc-by-4.0 "
                "(lower-case letters, digits, and - . + only). For a license without an identifier, pass `license` "
                "other and `license_name` NAME"
            )
        if (self.license == "other") != bool(self.license_name):
            raise InputError("`license` other and `license_name` NAME must be used together")


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
    unit_spellings: bool = field(
        default=False,
        metadata={
            "help": "Read labels as catalogues write them (341 g, 12 fl oz, 1,5 kg), too. Without it, units need the "
            "challenge's names (gram). Not for a --schema: its units have their own spellings."
        },
    )
    validation_size: float = field(
        default=0.05, metadata={"help": "Share of the labelled rows to hold out for validation. 0: none."}
    )
    seed: int = field(default=0, metadata={"help": "Seed that decides which rows are held out."})
    unanswered: float = field(
        default=0.0,
        metadata={
            "help": "Share of the labelled rows, of each attribute, whose image does not show the attribute: their "
            "answer is empty, and a model learns to be silent. 0: what train_csv has."
        },
    )
    unanswered_from: str = field(
        default=STATED,
        metadata={
            "help": "How it is known that an image does not show an attribute. stated: the row's entity_value is "
            "empty; labels: the image has labels, and none for it (only if images have one for all that they show); "
            "else a file with image_link, entity_name and shown, the probability that the image shows it."
        },
    )
    unanswered_below: float = field(
        default=0.1, metadata={"help": "The probability in that file below which an attribute is not shown."}
    )
    corrections: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Decisions about labels of train_csv, as the page of dataset_builder.audit saves them: CSVs with "
            "image_link, entity_name, entity_value (the label now), decision (keep, correct or drop) and new_value. "
            "Several are applied one after the other."
        },
    )

    @property
    def is_unanswered_file(self) -> bool:
        return bool(self.unanswered) and self.unanswered_from not in (STATED, LABELS)

    def __post_init__(self) -> None:
        if not 0 <= self.unanswered <= 0.9:
            raise InputError(f"`unanswered` must be at least 0 and at most 0.9, got {self.unanswered}")
        if not 0 <= self.unanswered_below <= 1:
            raise InputError(f"`unanswered_below` must be at least 0 and at most 1, got {self.unanswered_below}")
        if self.ranges not in RANGE_POLICIES:
            raise InputError(f"`ranges` must be one of {', '.join(RANGE_POLICIES)}, got {self.ranges}")
        if not 0 <= self.validation_size < 1:
            raise InputError(f"`validation_size` must be at least 0 and less than 1, got {self.validation_size}")


def check_machines(
    options: BuildOptions, source: BuildSourceOptions, shards: MergeOptions, fetch_options: FetchOptions
) -> None:
    """Raise InputError for options that a build on several machines, or by Ray, does not have."""
    has_shards = shards.shard is not None or shards.merge is not None
    if options.ocr and (source.is_ray or has_shards):
        raise InputError(
            "`ocr` reads the images of a build on one machine: drop `shard`, `merge` and `engine` ray, or drop `ocr` "
            "and read the images of the dataset that they make with dataset_builder.ocr"
        )
    if not source.is_ray:
        return
    if has_shards:
        raise InputError("`engine` ray makes all shards and merges them: drop `shard` and `merge`")
    if not options.download:
        raise InputError("`engine` ray downloads the images: drop `download` false, or drop `engine` ray")
    if fetch_options.retry_failed:
        raise InputError(
            "`retry_failed` needs the `image_store` of a build without Ray; with `engine` ray, another `output_dir` "
            "downloads everything again"
        )
