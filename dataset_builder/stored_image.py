"""What a dataset knows of each of its images, in little memory."""

import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

_PACKED = struct.Struct(">32sqiiq")  # the hash first: sorted, they are in the order of their hashes
_TABLE = np.dtype([("", "V32"), ("num_bytes", ">i8"), ("width", ">i4"), ("height", ">i4"), ("phash", ">i8")])
_MISSING = bytes(_PACKED.size)


class StoredImage(bytes):
    """What is known about an image without reading its file. Images are equal if all of it is.

    A dataset holds one for each of its URLs: 112 bytes, where a tuple of the five values would take 370.
    """

    __slots__ = ()
    FIELDS = ("num_bytes", "width", "height", "sha256", "phash")

    def __new__(cls, num_bytes: int, width: int, height: int, sha256: str, phash: int) -> "StoredImage":
        """`sha256` has 64 hexadecimal digits, and `phash` 64 bits with a sign."""
        return super().__new__(cls, _PACKED.pack(bytes.fromhex(sha256), num_bytes, width, height, phash))

    def __getnewargs__(self) -> tuple[Any, ...]:  # for a copy by pickle
        return tuple(self.as_dict().values())

    def __repr__(self) -> str:
        return f"StoredImage({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"

    @property
    def digest(self) -> bytes:
        """The 32 bytes of `sha256`."""
        return self[:32]

    @property
    def sha256(self) -> str:
        return self.digest.hex()

    @property
    def num_bytes(self) -> int:
        return int(_PACKED.unpack(self)[1])

    @property
    def width(self) -> int:
        return int(_PACKED.unpack(self)[2])

    @property
    def height(self) -> int:
        return int(_PACKED.unpack(self)[3])

    @property
    def phash(self) -> int:
        return int(_PACKED.unpack(self)[4])

    @staticmethod
    def unpack(images: Iterable["StoredImage | None"]) -> np.ndarray:
        """The values of many images, by the names of FIELDS but the hash; those of a missing image are 0."""
        return np.frombuffer(b"".join(image or _MISSING for image in images), dtype=_TABLE)

    def as_dict(self) -> dict[str, Any]:
        digest, num_bytes, width, height, phash = _PACKED.unpack(self)
        return dict(zip(self.FIELDS, (num_bytes, width, height, digest.hex(), phash), strict=True))
