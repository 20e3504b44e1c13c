"""Pictures over HTTP on loopback, fast enough not to be what is measured. In a process of its own.

python -m benchmarks.picture_server --folder images      /7/photo.jpg is images/photo.jpg: one file under many links
python -m benchmarks.picture_server                      every path is a picture of its own, made of its name
"""

import argparse
import asyncio
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image


def made_picture(path: str, *, size: int = 224) -> bytes:
    """A JPEG of `size` x `size` pixels: 224 make about 10 kB, 1000 about 100 kB."""
    cells = size // 16
    colours = hashlib.shake_128(path.encode()).digest(cells * cells * 3)
    image = Image.frombytes("RGB", (cells, cells), colours).resize((size, size), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    return stream.getvalue()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, picture: Callable[[str], bytes]) -> None:
    try:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            body = picture(request.split(b" ", 2)[1].decode())
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve(picture: Callable[[str], bytes]) -> None:
    server = await asyncio.start_server(lambda *streams: answer(*streams, picture), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent = os.getppid()
    while os.getppid() == parent:  # ends with whoever started it
        await asyncio.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.folder:
        content = {file.name: file.read_bytes() for file in options.folder.rglob("*") if file.is_file()}
        asyncio.run(serve(lambda path: content[path.rsplit("/", 1)[-1]]))
    else:
        asyncio.run(serve(made_picture))


if __name__ == "__main__":
    main()
