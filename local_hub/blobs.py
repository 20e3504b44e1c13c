"""Regular files while they are sent. Clients that read slowly, or not at all, must not fill the memory."""

import os
import tempfile
import threading
from pathlib import Path
from weakref import WeakValueDictionary

from local_hub.repository import Repository


class BlobFile:
    """The content of a blob in a temporary file, which is gone as soon as no response uses it."""

    def __init__(self, content: bytes, *, tmp_dir: Path) -> None:
        descriptor, path = tempfile.mkstemp(dir=tmp_dir)
        self._file = os.fdopen(descriptor, "w+b", buffering=0)
        os.unlink(path)
        self._file.write(content)
        self.size = len(content)

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, start)


_lock = threading.Lock()
_opened: WeakValueDictionary[tuple[Path, str], BlobFile] = WeakValueDictionary()


def open_blob(repository: Repository, oid: str) -> BlobFile:
    """All responses with the same blob share one file."""
    key = repository.folder, oid
    with _lock:
        blob = _opened.get(key)
        if blob is None:
            blob = _opened[key] = BlobFile(repository.read_blob(oid), tmp_dir=repository.tmp_dir)
        return blob
