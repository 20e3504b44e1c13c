"""Find the schema that counts: of the dataset or adapter, else of `--schema`, else the challenge's."""

from pathlib import Path

from product_vqa.errors import InputError
from product_vqa.hub import Location, download, find_file, list_files
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import SCHEMA_FILE, format_schema, parse_schema, read_schema


def load_schema(location: Location, *, repo_type: str = "dataset") -> Schema:
    """The schema of a dataset or an adapter: its schema.yaml, or the challenge's if it has none.

    Raises InputError if the file is malformed, with the line.
    """
    if location.folder is None and SCHEMA_FILE not in list_files(location, repo_type=repo_type):
        return CHALLENGE  # without a download, which would warn that it found nothing
    folder = download(location, patterns=[SCHEMA_FILE], repo_type=repo_type)
    file = find_file(location, folder, SCHEMA_FILE)
    if file is None:
        return CHALLENGE
    try:
        return parse_schema(file.read_bytes(), name=f"{location}: {SCHEMA_FILE}")
    except OSError as error:
        raise InputError(
            f"{location}: its {SCHEMA_FILE} cannot be read ({error.strerror}); download it again"
        ) from error


def save_schema(schema: Schema, folder: Path) -> None:
    """Write schema.yaml into a folder, unless it is the challenge's, which a folder without the file has."""
    if schema != CHALLENGE:
        (folder / SCHEMA_FILE).write_text(format_schema(schema), encoding="utf-8")


def choose_schema(file: str | None, *, own: Schema | None = None, of: str = "") -> Schema:
    """The schema of `--schema FILE`, or what a dataset or an adapter brings, or the challenge's.

    Raises InputError if the file differs from what `of`, which has its `own`, brings in a way that matters.
    """
    given = read_schema(file) if file is not None else None
    if given is not None and own is not None and (differences := own.differences(given)):
        shown = "; ".join(differences[:3])
        raise InputError(f"`schema` {file} differs from the schema of {of}, which counts ({shown}): drop `schema`")
    return own or given or CHALLENGE
