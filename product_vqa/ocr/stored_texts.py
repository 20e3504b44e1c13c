"""The texts of images that a dataset has in its configuration `ocr`: nobody needs to read the images again.

The dataset may be a stranger's. Its files are checked before they are read, and each row when it is asked for.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from product_vqa.dataset import DAMAGED, OCR_CONFIG, download_splits, find_splits
from product_vqa.errors import InputError, first_line
from product_vqa.hub import Location, list_files
from product_vqa.ocr.image_text import MAX_BOXES, ImageText, clean_text
from product_vqa.ocr.text_files import COLUMNS, ENGINE_KEY
from product_vqa.parquet_files import ParquetError, check_parquet
from product_vqa.quoting import one_line

_COLUMNS = ("width", "height", "texts")
_HASH = {"sha256": ("BYTE_ARRAY",)}
_MAX_ROW_GROUPS = 16  # in memory: a prediction asks for images in about the order of the files


def load_texts(location: Location, split: str) -> "StoredTexts | None":
    """The texts of a split's images; None if the dataset has none. Only their files are downloaded.

    The card names the files, or else they are `ocr/{split}-*.parquet`. Raises InputError for files that are damaged,
    and for those of different engines.
    """
    names = find_splits(location, config=OCR_CONFIG).get(split) or [
        name
        for name in list_files(location, repo_type="dataset")
        if name.startswith(f"{OCR_CONFIG}/{split}-") and name.endswith(".parquet")
    ]
    if not names:
        return None
    return StoredTexts(location, names, download_splits(location, {split: names})[split])


class StoredTexts:
    """The texts of images by their URLs. Row groups are read as they are needed; any number of threads may ask."""

    def __init__(self, location: Location, names: Sequence[str], paths: Sequence[Path]) -> None:
        self._location, self._names, self._paths = location, names, paths
        self._files: list[pq.ParquetFile] = []
        self._rows: dict[str, int] = {}  # image_link -> its row, counted over all files
        self._groups: list[tuple[int, int]] = []  # file and row group
        self._columns: list[list[str]] = []  # of each file
        group_sizes: list[int] = []
        engines = []
        for number, (name, path) in enumerate(zip(names, paths, strict=True)):
            try:
                present = check_parquet(path, COLUMNS | _HASH)
                if missing := [column for column in COLUMNS if column not in present]:
                    raise ParquetError(f"it has no {', '.join(missing)}")
                file = pq.ParquetFile(path)
                links = file.read(columns=["image_link"]).column("image_link").cast(pa.string()).to_pylist()
                engines.append((file.schema_arrow.metadata or {}).get(ENGINE_KEY, b"").decode("utf-8", "replace"))
                metadata = file.metadata
            except (ParquetError, *DAMAGED) as error:
                raise _texts_error(location, name, error) from error
            start = sum(group_sizes)
            for row, link in enumerate(links):
                if link is None:
                    raise _texts_error(location, name, f"the image_link of row {row} is null")
                self._rows.setdefault(link, start + row)
            self._files.append(file)
            self._columns.append([*_COLUMNS, *(name for name in _HASH if name in present)])
            self._groups += [(number, group) for group in range(metadata.num_row_groups)]
            group_sizes += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if len(set(engines)) > 1:
            raise _texts_error(location, ", ".join(names), "texts of different OCR engines")
        self._starts = [0, *accumulate(group_sizes)]
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()
        self.description = clean_text(engines[0]) or "unknown"

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:  # a worker opens the files itself
        return StoredTexts, (self._location, self._names, self._paths)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, image_link: str) -> bool:
        return image_link in self._rows

    def find(self, image_link: str, sha256: str | None = None) -> ImageText | None:
        """The texts of the image of a URL; None if the dataset has none for it.

        With the `sha256` of the image, also None if they were read in another one, which was at the URL before. Raises
        InputError, with the file and the row, for what is not the texts of an image.
        """
        row = self._rows.get(image_link)
        if row is None:
            return None
        group = bisect_right(self._starts, row) - 1
        try:
            values = self._table(group).slice(row - self._starts[group], 1)
            _check_lengths(values.column("texts"))
            found = values.to_pylist()[0]
            is_other = sha256 is not None and found.get("sha256") not in (None, sha256)
            return None if is_other else ImageText.from_dict(found)
        except DAMAGED as error:
            file, _ = self._groups[group]
            where = f"row {row - self._starts[self._groups.index((file, 0))]}: {first_line(error)}"
            raise _texts_error(self._location, self._names[file], where) from error

    def hashes(self) -> dict[str, str | None]:
        """The SHA-256 of each image, by its URL, in which its texts were read; None where it is not known."""
        found: dict[str, str | None] = {}
        for file, name, columns in zip(self._files, self._names, self._columns, strict=True):
            try:
                is_known = "sha256" in columns
                table = file.read(columns=["image_link", *(["sha256"] if is_known else [])])
                links = table.column("image_link").cast(pa.string()).to_pylist()
                known = table.column("sha256").cast(pa.string()).to_pylist() if is_known else [None] * len(links)
            except (ParquetError, *DAMAGED) as error:
                raise _texts_error(self._location, name, error) from error
            for link, sha256 in zip(links, known, strict=True):
                found.setdefault(link, sha256)
        return found

    def _table(self, group: int) -> pa.Table:
        with self._lock:
            if group in self._tables:
                self._tables.move_to_end(group)
            else:
                file, number = self._groups[group]
                self._tables[group] = self._files[file].read_row_group(number, columns=self._columns[file])
                if len(self._tables) > _MAX_ROW_GROUPS:
                    self._tables.popitem(last=False)
            return self._tables[group]


def _texts_error(location: Location, name: str, reason: Exception | str) -> InputError:
    """The error for a file of texts that is damaged. The rest of the dataset may be as it should be."""
    text = reason if isinstance(reason, str) else first_line(reason)
    return InputError(
        f"{location}: {one_line(name)}: {one_line(text, max_length=300)}; read the images again with "
        "dataset_builder.ocr, or remove the file and do without its texts"
    )


def _check_lengths(texts: pa.ChunkedArray) -> None:
    """Raise ValueError, before objects are made of them, for more texts or corners than an image has."""
    for chunk in texts.chunks:
        if (pc.max(pc.list_value_length(chunk)).as_py() or 0) > MAX_BOXES:
            raise ValueError(f"more than {MAX_BOXES} texts")
        corners = pc.list_value_length(chunk.flatten().field("corners"))
        if not pc.all(pc.equal(corners, 8), min_count=0).as_py():
            raise ValueError("a text has not eight numbers as its corners")
