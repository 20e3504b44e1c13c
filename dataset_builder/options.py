"""The options that the commands share. Nothing heavy is imported here: `--help` answers at once."""

from dataclasses import dataclass, field

from product_vqa.errors import InputError


@dataclass
class TableOptions:
    train_csv: str | None = field(
        default=None, metadata={"help": "labelled rows: .csv, or that as .gz, .bz2, .xz or .zip"}
    )
    test_csv: str | None = field(
        default=None, metadata={"help": "rows to be answered: .csv, or that as .gz, .bz2, .xz or .zip"}
    )

    def __post_init__(self) -> None:
        if self.train_csv is None and self.test_csv is None:
            raise InputError("no rows: give --train_csv FILE, --test_csv FILE, or both")


@dataclass
class PictureOptions:
    image_size: int = field(
        default=448, metadata={"help": "pictures are fitted into a square of so many pixels; 0 keeps their size"}
    )

    def __post_init__(self) -> None:
        if self.image_size != 0 and not 32 <= self.image_size <= 8192:
            raise InputError(f"--image_size must be 0 or between 32 and 8192, got {self.image_size}")


@dataclass
class FetchOptions:
    connections: int = field(default=32, metadata={"help": "pictures fetched at the same time"})
    retry_failed: bool = field(
        default=False, metadata={"help": "try again what failed in earlier runs and could succeed"}
    )
    allow_private_hosts: bool = field(
        default=False,
        metadata={"help": "fetch from loopback and private addresses too; only for links that you wrote yourself"},
    )

    def __post_init__(self) -> None:
        if not 1 <= self.connections <= 256:
            raise InputError(f"--connections must be between 1 and 256, got {self.connections}")
