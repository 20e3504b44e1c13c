"""Serve images on loopback, fast enough not to be the bottleneck, in a process of its own.

python -m benchmarks.image_server --folder images      /7/photo.jpg is images/photo.jpg: one file with many URLs
python -m benchmarks.image_server                      every path is an image of its own, generated from the path
"""

import argparse
import asyncio
import hashlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

from PIL import Image


@contextmanager
def image_server(folder: Path | None = None, *, size: int = 224, log: Path | None = None) -> Iterator[str]:
    """Run this module as a process, which serves a folder, or generated images of `size` pixels; gives its URL."""
    arguments = ["--size", str(size)]
    arguments += ["--folder", str(folder)] if folder is not None else []
    arguments += ["--log", str(log)] if log is not None else []
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.image_server", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


def make_image(path: str, *, size: int = 224) -> bytes:
    """A JPEG of `size` x `size` pixels that depends on the path: about 10 kB at 224 px, about 100 kB at 1000 px."""
    cells = max(2, size // 16)
    colours = hashlib.shake_128(path.encode()).digest(cells * cells * 3)
    image = Image.frombytes("RGB", (cells, cells), colours).resize((size, size), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    return stream.getvalue()


async def serve(get_image: Callable[[str], bytes], *, log: TextIO | None) -> None:
    """Serve images by path on a free port, which is printed, until the parent process ends.

    `log` gets a line for each request: the time in seconds since 1970, and the path.
    """

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                path = request.split(b" ", 2)[1].decode()
                if log is not None:
                    log.write(f"{time.time():.4f} {path}\n")
                body = get_image(path)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body))
                writer.write(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="folder of images; default: images are generated")
    parser.add_argument("--size", type=int, default=224, help="width and height of generated images, in pixels")
    parser.add_argument("--log", type=Path, help="file to which the time and the path of each request are written")
    options = parser.parse_args()
    content = (
        {file.name: file.read_bytes() for file in options.folder.rglob("*") if file.is_file()}
        if options.folder
        else {}
    )

    def get_image(path: str) -> bytes:
        return content[path.rsplit("/", 1)[-1]] if options.folder else make_image(path, size=options.size)

    with nullcontext() if options.log is None else options.log.open("w", buffering=1) as log:
        asyncio.run(serve(get_image, log=log))


if __name__ == "__main__":
    main()
