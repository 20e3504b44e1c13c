"""The case that a worker is at, in shared memory: it survives the worker's death, and its parent can read it."""

import mmap
import struct
from pathlib import Path

from tests.fuzz.mutation import MAX_BYTES

_HEADER = struct.Struct("<qqI")  # cases begun, number of the case, its length
_SIZE = _HEADER.size + 2 * MAX_BYTES


class Slot:
    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(bytes(_SIZE))
        with file.open("r+b") as stream:
            self._memory = mmap.mmap(stream.fileno(), _SIZE)

    def write(self, begun: int, number: int, data: bytes) -> None:
        length = min(len(data), 2 * MAX_BYTES)
        _HEADER.pack_into(self._memory, 0, begun, number, length)
        self._memory[_HEADER.size : _HEADER.size + length] = data[:length]

    def read(self) -> tuple[int, int, bytes]:
        """How many cases were begun, and the number and bytes of the last one."""
        begun, number, length = _HEADER.unpack_from(self._memory)
        return begun, number, self._memory[_HEADER.size : _HEADER.size + length]
