"""PNG files, chunk by chunk: also those that no encoder writes."""

import io
import struct
import zlib

from PIL import Image


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def encode_png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 0, pixels: bytes = b"", chunks: bytes = b""
) -> bytes:
    """A PNG of any size, black if its pixels are not given."""
    row = (width * depth * {0: 1, 2: 3}[colour] + 7) // 8
    coder = zlib.compressobj(1)
    parts = [coder.compress(pixels)]
    remaining = 0 if pixels else height * (1 + row)
    while remaining > 0:
        parts.append(coder.compress(bytes(min(remaining, 2**20))))
        remaining -= 2**20
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks
        + chunk(b"IDAT", b"".join([*parts, coder.flush()])) + chunk(b"IEND", b"")
    )  # fmt: skip
