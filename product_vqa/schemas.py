"""Find the schema that counts: of the dataset or adapter, else of `--schema`, else the challenge's."""

from pathlib import Path

from product_vqa.documents import read_bytes
from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location, download, find_file, list_files
from product_vqa.task.attributes import Schema
from product_vqa.task.schema import CHALLENGE
from product_vqa.task.schema_file import SCHEMA_FILE, format_schema, parse_schema, read_schema
from product_vqa.task.yaml_nodes import MAX_BYTES


def load_schema(location: Location, *, repo_type: str = "dataset") -> Schema:
    """The schema of a dataset or an adapter: its schema.yaml, or the challenge's if it has none.

    Raises InputError if the file is malformed, with the line.
    """
    if location.folder is None and SCHEMA_FILE not in list_files(location, repo_type=repo_type):
        return CHALLENGE  # without a download, which would warn that it found nothing
    return schema_of(location, download(location, patterns=[SCHEMA_FILE], repo_type=repo_type))


def schema_of(location: Location, folder: Path) -> Schema:
    """What `load_schema` returns, from the folder that the dataset or adapter was downloaded to."""
    file = find_file(location, folder, SCHEMA_FILE)
    if file is None:
        return CHALLENGE
    try:
        content = read_bytes(file, max_bytes=MAX_BYTES)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise InputError(f"{location}: its {SCHEMA_FILE} cannot be read ({reason}); download it again") from error
    return parse_schema(content, name=f"{location}: {SCHEMA_FILE}")


def save_schema(schema: Schema, folder: Path) -> None:
    """Write schema.yaml into a folder, unless it is the challenge's, which a folder without the file has."""
    file = folder / SCHEMA_FILE
    if schema == CHALLENGE:
        file.unlink(missing_ok=True)
    else:
        file.write_text(format_schema(schema), encoding="utf-8")


def choose_schema(file: str | None, *, own: Schema | None = None, of: str = "") -> Schema:
    """The schema of `--schema FILE`, or what a dataset or an adapter brings, or the challenge's.

    Raises InputError if the file differs from what `of`, which has its `own`, brings in a way that matters.
    """
    given = read_schema(file) if file is not None else None
    if given is None or own is None:
        return own or given or CHALLENGE
    if differences := own.differences(given, names=dict.fromkeys((*own.names, *given.names))):
        shown = "; ".join(differences[:3])
        raise InputError(f"`schema` {file} differs from the schema of {of}, which counts ({shown}): drop `schema`")
    return own
