"""Targets: image files of each format, and files of every format mixed."""

import io
import random
import re
from functools import partial

import numpy as np
from PIL import Image

from product_vqa.images import FORMATS, MAX_PIXELS, MAX_SIDE, ImageError, as_image, load_image
from tests.fuzz.target import Target

_REASON = re.compile(r"[a-z_]+(: .*)?")


def fuzz_image(data: bytes) -> None:
    """A file is an RGB image within the limits, without metadata, or refused with a reason of one line."""
    try:
        image = load_image(data)
    except ImageError as error:
        message = str(error)
        assert _REASON.fullmatch(message), message
        assert len(message) < 300
        return
    width, height = image.size
    assert type(image) is Image.Image and image.mode == "RGB" and not image.info
    assert 0 < width * height <= MAX_PIXELS and max(width, height) <= MAX_SIDE
    image.getpixel((width - 1, height - 1))
    if width * height < 10_000:
        for byte in (0x00, 0xFF):  # a decoder that shows memory that it has not written to shows this
            freed = [
                bytes([byte]) * size for size in (48, width * height // 8 + 1, width * height, 3 * width * height)
            ]
            del freed
            assert as_image({"bytes": data, "path": "/etc/passwd"}).tobytes() == image.tobytes(), "not deterministic"
        assert as_image(image) is image


def _pixels(mode: str, *, size: tuple[int, int] = (24, 16)) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    image = Image.fromarray(values, "RGBA")
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    if mode in ("I", "F"):
        return image.convert("L").convert(mode)
    return image.convert("RGB").convert(mode) if mode in ("P", "CMYK", "YCbCr", "LAB", "1") else image.convert(mode)


def _save(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a description"
    return exif.tobytes()


def seeds_of(format: str) -> list[bytes]:
    rgb, frames = _pixels("RGB"), [_pixels("RGB"), _pixels("RGB").rotate(180)]
    if format == "JPEG":
        files = [_save(_pixels(mode), format, quality=30) for mode in ("RGB", "L", "CMYK")]
        files += [_save(rgb, format, progressive=True), _save(rgb, format, exif=_exif(6), comment=b"x", dpi=(72, 72))]
        return [*files, _save(rgb, "MPO", save_all=True, append_images=frames[1:])]
    if format == "PNG":
        files = [_save(_pixels(mode), format) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I")]
        files += [_save(_pixels("P"), format, transparency=3), _save(rgb, format, exif=_exif(5))]
        return [*files, _save(frames[0], format, save_all=True, append_images=frames[1:], duration=10)]
    if format == "WEBP":
        files = [_save(_pixels(mode), format, lossless=lossless) for mode in ("RGB", "RGBA") for lossless in (0, 1)]
        files += [_save(frames[0], format, save_all=True, append_images=frames[1:])]
        return [*files, _save(rgb, format, exif=_exif(3), icc_profile=b"x" * 200)]
    if format == "GIF":
        files = [_save(_pixels("P"), format), _save(_pixels("P"), format, transparency=1, comment=b"y" * 300)]
        return [*files, _save(frames[0], format, save_all=True, append_images=frames[1:], loop=0)]
    if format == "BMP":
        return [_save(_pixels(mode), format) for mode in ("1", "L", "P", "RGB", "RGBA")]
    if format == "TIFF":
        files = [
            _save(_pixels(mode), format) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "LAB")
        ]
        files += [
            _save(rgb, format, compression=name)
            for name in ("tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits", "jpeg")
        ]
        files += [_save(_pixels("1"), format, compression=name) for name in ("group3", "group4", "tiff_ccitt")]
        return [
            *files,
            _save(rgb, format, exif=_exif(8)),
            _save(frames[0], format, save_all=True, append_images=frames),
        ]
    assert format == "AVIF"
    files = [_save(_pixels(mode, size=(16, 16)), format, speed=10) for mode in ("RGB", "RGBA", "L")]
    return [*files, _save(_pixels("RGB", size=(16, 16)), format, speed=10, exif=_exif(7))]


def _all_seeds() -> list[bytes]:
    """Every format, formats that are not allowed, and what looks like an image."""
    files = [file for format in FORMATS for file in seeds_of(format)]
    files += [
        _save(_pixels("RGB"), format) for format in ("PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "PDF", "EPS", "ICNS")
    ]
    return [*files, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html></html>", b"", b"%!PS-Adobe"]


_WORDS = {
    "JPEG": (b"\xff\xd8\xff", b"\xff\xc0\x00\x11\x08", b"\xff\xc2", b"\xff\xda", b"\xff\xd9", b"\xff\xe1",
    b"Exif\x00\x00",
             b"\xff\xe2", b"MPF\x00", b"ICC_PROFILE\x00", b"Adobe", b"\xff\xdd\x00\x04\x00\x01", b"\xff\xfe\xff\xff"),
    "PNG": (b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"eXIf", b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"acTL", b"fcTL",
            b"fdAT", b"gAMA", b"pHYs", b"\x00\x00\x00\x0d"),
    "WEBP": (b"RIFF", b"WEBP", b"VP8 ", b"VP8L", b"VP8X", b"AL" b"PH", b"ANIM", b"ANMF", b"EXIF", b"ICCP", b"XMP "),
    "GIF": (b"GIF87a", b"GIF89a", b"!\xf9\x04", b",\x00\x00\x00\x00", b"!\xfe", b"NETSCAPE2.0", b";", b"\x00"),
    "BMP": (b"BM", b"\x28\x00\x00\x00", b"\x0c\x00\x00\x00", b"\x7c\x00\x00\x00", b"\x01\x00\x00\x00",
    b"\x02\x00\x00\x00"),
    "TIFF": (b"II*\x00", b"MM\x00*", b"II+\x00", b"\x03\x01", b"\x11\x01", b"\x01\x01\x04\x00", b"\x12\x01\x03\x00"),
    "AVIF": (b"ftypavif", b"ftypavis", b"meta", b"iloc", b"iinf", b"iprp", b"ispe", b"av1C", b"mdat", b"irot",
    b"imir"),
}  # fmt: skip


def _generate_gif(rng: random.Random) -> bytes:
    """Blocks of a GIF in any order and number."""
    blocks = [
        b"!\xf9\x04\x01\x00\x00\x00\x00", b"!\xfe\x03abc\x00", b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00",
        b",\x00\x00\x00\x00\x02\x00\x02\x00\x00\x02\x03\x44\x02\x05\x00", b"\x00", b";", b"!\x01\x00",
        b",\x01\x00\x01\x00\xff\xff\xff\xff\x87" + bytes(768) + b"\x08\x01\x00\x00",
    ]  # fmt: skip
    head = rng.choice((b"GIF89a", b"GIF87a")) + bytes((2, 0, 2, 0, rng.choice((0, 0x80, 0x87, 0xF7)), 0, 0))
    palette = rng.randbytes(6 << (head[10] & 7)) if head[10] & 0x80 else b""
    return head + palette + b"".join(rng.choice(blocks) for _ in range(rng.randrange(12)))


TARGETS = [
    Target(
        f"image_{format.lower()}", fuzz_image, partial(seeds_of, format), words=_WORDS[format],
        generate=_generate_gif if format == "GIF" else None,
    )
    for format in FORMATS
]  # fmt: skip
TARGETS.append(Target("image_any", fuzz_image, _all_seeds, words=sum(_WORDS.values(), ())))
