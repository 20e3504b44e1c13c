"""The folder of a build: which files are in it, whether it can be written, and where it is until it is complete."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataset_builder.build_shards import IMAGES_FILE, SHARDS_FOLDER, STATES_FILE
from dataset_builder.build_shards import MANIFEST_FILE as SHARD_MANIFEST_FILE
from product_vqa.cards import CARD_FILE
from product_vqa.documents import DocumentError, read_json
from product_vqa.errors import InputError, argument, first_line
from product_vqa.machine_errors import explain_machine_error
from product_vqa.paths import writable_folder
from product_vqa.quoting import one_line
from product_vqa.task.columns import SPLITS
from product_vqa.task.schema_file import SCHEMA_FILE

MANIFEST_FILE = "build.json"
ROWS_FOLDER = "rows"  # the rows without their images, one Parquet file per split
OCR_FOLDER = "ocr"  # the texts of the images, one Parquet file per split; the name of the configuration, too
DROPPED_FILE = "left_out.csv"

_WRITTEN = re.compile(
    f"({'|'.join(map(re.escape, (CARD_FILE, MANIFEST_FILE, DROPPED_FILE, SCHEMA_FILE)))})"
    rf"|(data|{OCR_FOLDER})/({'|'.join(SPLITS)})-\d{{5}}-of-\d{{5}}\.parquet"
    rf"|{ROWS_FOLDER}/({'|'.join(SPLITS)})\.parquet"
)
# Of build_shards; the second form is what a kill while one was replaced leaves.
_SHARD = re.compile(
    rf"{SHARDS_FOLDER}/(\d{{5}}-of-\d{{5}}|\.\d{{5}}-of-\d{{5}}\.old)/"
    f"({'|'.join(map(re.escape, (SHARD_MANIFEST_FILE, STATES_FILE)))}|{IMAGES_FILE.pattern})"
)
_WRITTEN_BY_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")  # wherever somebody looks into a folder


def check_output_dir(path: str | Path) -> Path:
    """The folder of a build. Its parent is created. Raises InputError if no dataset can be written there."""
    with argument("output_dir"):
        if "::" in str(path) or "://" in str(path):  # to `datasets`, an archive within another or a server
            raise InputError(f"{path}: a folder of this machine without `::` and `://` in its name is needed")
        folder = Path(path).resolve()
        if "::" in str(folder):
            raise InputError(f"{folder}: has `::` in its name; choose another folder")
        writable_folder(folder.parent)
        if folder.exists():
            if not folder.is_dir():
                raise InputError(f"{folder}: is a file; choose another name")
            writable_folder(folder)
        return folder


def read_earlier_manifest(folder: Path) -> Any:
    """The content of the manifest of the earlier build in `folder`.

    None if the folder is missing, or holds nothing but shards. Raises InputError if anything else is there.
    """
    with argument("output_dir"):
        if not folder.exists() or {entry.name for entry in folder.iterdir()} <= {SHARDS_FOLDER}:
            check_own_files(folder)
            return None
        try:
            content = read_json(folder / MANIFEST_FILE)
        except (OSError, DocumentError):
            content = None
        if not isinstance(content, dict) or not isinstance(content.get("fingerprint"), str):
            raise InputError(
                f"{folder}: contains files that are not an earlier build of this command; "
                "choose another folder, or empty it yourself"
            )
        check_own_files(folder)
        return content


def check_no_shards(folder: Path) -> None:
    """Raise InputError if shards of a build are in the folder, which a build would replace."""
    if (folder / SHARDS_FOLDER).is_dir():
        raise InputError(
            f"`output_dir` {folder}: contains shards that are not merged yet; set `merge` to their number, choose "
            "another folder, or delete them"
        )


def is_written(name: str) -> bool:
    """Whether a build writes a file of this name (with `/`), and may replace or remove it."""
    return bool(_WRITTEN.fullmatch(name))


def check_own_files(folder: Path) -> None:
    """Raise InputError if `folder` contains a file that no build writes: replacing the folder would remove it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_file = path.is_symlink() or not path.is_dir()
        if is_file and not is_written(name) and not _SHARD.fullmatch(name) and path.name not in _WRITTEN_BY_SYSTEMS:
            raise InputError(
                f"{folder}: contains {one_line(name)}, which no build writes and this one would remove; move it "
                "elsewhere, or choose another folder"
            )


# ---- While it is written ------------------------------------------------------------------------------------------


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder next to `folder`, so on the same disk, for a build in progress.

    It is removed at the end, or, after a kill, when the next build starts. With `image_dir` it briefly takes twice the
    bytes of the images: as resized files and as Parquet.
    """
    remove_temporary(folder)
    temporary = _temporary(folder)
    try:
        temporary.mkdir()
        yield temporary
    finally:
        remove_temporary(folder)


def remove_temporary(folder: Path) -> None:
    """Remove the temporary folder of a build that was killed."""
    shutil.rmtree(_temporary(folder), ignore_errors=True)


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.building")


@contextmanager
def texts_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder next to `folder` for texts of images while they are read. Unlike the temporary folder, it is
    kept after an error or a kill, so that no image is read again; removed once the block has ended."""
    texts = folder.with_name(f".{folder.name}.texts")
    texts.mkdir(exist_ok=True)
    yield texts
    shutil.rmtree(texts, ignore_errors=True)


@contextmanager
def write_errors_explained(folder: Path, *, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise InputError where the dataset cannot be written to `folder`. `also`: what libraries raise for that."""
    try:
        yield
    except BrokenPipeError:  # of the console
        raise
    except (OSError, *also) as error:  # type: ignore[misc]  # of types that only the caller knows
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, InputError):  # datasets wraps errors
            cause = cause.__cause__
        if isinstance(cause, InputError):  # an image of the store has changed
            raise InputError(*cause.args) from error
        reason = explain_machine_error(error, folder) or f"{folder}: cannot be written ({first_line(cause)})"
        raise InputError(f"`output_dir` {reason}") from error
