import base64
import contextlib
import io
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from dataset_builder import build
from product_vqa import images
from product_vqa.errors import argument
from product_vqa.images import FORMATS, ImageError, as_image, load_image, to_rgb
from product_vqa.task.schema import CHALLENGE
from tests.commands import call
from tests.product_vqa.png_files import chunk, png
from tests.tiny import make_rows, write_rows

BLOCK = 16  # px: of one colour each, so that a lossy format loses little
GREYS = (0, 255, 128, 51)
WHITE, BLACK, RED, PINK = (255, 255, 255), (0, 0, 0), (255, 0, 0), (255, 204, 204)
COLOURS = ((10, 20, 30), (200, 0, 0), (0, 0, 200), WHITE)
PALETTE = [channel for colour in COLOURS for channel in colour]


def grey(*values: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((value,) * 3 for value in values)


# Four pixel values of each mode that Pillow has, and the colours that they are, worked out by hand.
MODES: dict[str, tuple[tuple, tuple]] = {
    "1": ((0, 255, 255, 255), grey(0, 255, 255, 255)),
    "L": (GREYS, grey(*GREYS)),
    "P": ((0, 1, 2, 3), COLOURS),
    "RGB": (COLOURS, COLOURS),
    "RGBX": (tuple((*colour, 9) for colour in COLOURS), COLOURS),
    "RGBA": (((0, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 51), (255, 0, 0, 51)), (BLACK, WHITE, (204,) * 3, PINK)),
    "RGBa": (((0, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 51), (51, 0, 0, 51)), (BLACK, WHITE, (204,) * 3, PINK)),
    "LA": (((0, 255), (0, 0), (0, 51), (255, 255)), grey(0, 255, 204, 255)),
    "La": (((0, 255), (0, 0), (0, 51), (255, 255)), grey(0, 255, 204, 255)),
    "PA": (((0, 255), (1, 0), (2, 255), (1, 255)), (COLOURS[0], WHITE, COLOURS[2], COLOURS[1])),
    "CMYK": (((255, 255, 255, 0), (0, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)), (BLACK, WHITE, RED, BLACK)),
    "YCbCr": (tuple((grey, 128, 128) for grey in GREYS), grey(*GREYS)),
    "HSV": (((0, 0, 0), (0, 0, 255), (0, 255, 255), (0, 51, 255)), (BLACK, WHITE, RED, PINK)),
    "LAB": (((0, 128, 128), (255, 128, 128)) * 2, (BLACK, WHITE) * 2),
    "I": ((0, 65535, 51400, 257), grey(0, 255, 200, 1)),
    "I;16": ((0, 65535, 51400, 257), grey(0, 255, 200, 1)),
    "I;16L": ((0, 65535, 51400, 257), grey(0, 255, 200, 1)),
    "I;16B": ((0, 65535, 51400, 257), grey(0, 255, 200, 1)),
    "I;16N": ((0, 65535, 51400, 257), grey(0, 255, 200, 1)),
    "F": ((0.0, 1.0, 0.5, 0.2), grey(0, 255, 128, 51)),
}
# One colour of an image without an alpha channel that is transparent: mode, `transparency`, colours.
KEYS: dict[str, tuple[str, object, tuple]] = {
    "P with a transparent colour": ("P", 0, (WHITE, *COLOURS[1:])),
    "P with an alpha for each colour": ("P", bytes([255, 0, 255, 255]), (COLOURS[0], WHITE, *COLOURS[2:])),
    "L with a transparent grey": ("L", 0, grey(255, 255, 128, 51)),
    "1 with transparent black": ("1", 0, grey(255, 255, 255, 255)),
    "RGB with a transparent colour": ("RGB", COLOURS[0], (WHITE, *COLOURS[1:])),
    "I;16 with a transparent grey": ("I;16", 51400, grey(0, 255, 255, 1)),
}
LOSSLESS = {"WEBP": {"lossless": True, "exact": True}, "JPEG": {"quality": 100, "subsampling": 0}}
LOSSLESS["AVIF"] = {"quality": 100, "subsampling": "4:4:4"}


def blocks(mode: str, values: tuple) -> Image.Image:
    """Three blocks by two; the first value at the top left alone, so that no turn or reflection looks the same."""
    image = Image.new("RGB" if mode == "I;16B" else mode, (3 * BLOCK, 2 * BLOCK))
    if mode.startswith("I;16"):  # which can neither be filled nor pasted
        order = ">u2" if mode == "I;16B" else "<u2"
        pixels = np.array([[0, 1, 2], [1, 2, 3]]).repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
        return Image.frombytes(mode, image.size, np.array(values)[pixels].astype(order).tobytes())
    if mode in ("P", "PA"):
        image.putpalette(PALETTE)
    for position, value in enumerate((values[0], values[1], values[2], values[1], values[2], values[3])):
        left, top = position % 3 * BLOCK, position // 3 * BLOCK
        image.paste(value, (left, top, left + BLOCK, top + BLOCK))
    return image


TURNED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Transpose that undoes what an orientation asks for


def turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(Image.Transpose(TURNED[orientation])) if orientation in TURNED else image


def encode(image: Image.Image, format: str, *, orientation: int = 1, **options) -> bytes:
    """Without an orientation of 1: the image turned as a camera that was held so stores it."""
    stream = io.BytesIO()
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    turned(image, orientation).save(stream, format, **LOSSLESS.get(format, {}), **options)
    return stream.getvalue()


SAVED_AS = {("I", "I;16"), ("I;16L", "I;16"), ("I;16B", "I;16"), ("YCbCr", "RGB"), ("RGBX", "RGB"), ("L", "P")}


def can_hold(format: str, mode: str) -> bool:
    """Whether an image comes back as it went in."""
    try:
        with Image.open(io.BytesIO(encode(blocks(mode, MODES[mode][0]), format))) as image:
            image.load()
            return image.mode == mode or (mode, image.mode) in SAVED_AS
    except (OSError, KeyError, ValueError, SystemError):
        return False


HELD = [(mode, format) for mode in MODES for format in FORMATS if can_hold(format, mode)]
ORIENTED = {"JPEG", "PNG", "WEBP", "TIFF", "AVIF"}  # formats that hold an orientation


def error(first: Image.Image, second: Image.Image) -> int:
    """The largest difference of any channel of any pixel."""
    assert first.size == second.size
    return int(np.abs(np.asarray(first, dtype=int) - np.asarray(second, dtype=int)).max())


def lossy(format: str) -> int:
    return 4 if format in ("JPEG", "AVIF") else 0


def test_the_table_has_every_mode_that_pillow_can_make() -> None:
    assert set(MODES) >= set(Image.MODES)
    assert len(HELD) == 43 and {format for _, format in HELD} == set(FORMATS)


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_any_mode_in_memory_becomes_rgb(mode: str) -> None:
    values, colours = MODES[mode]
    image = blocks(mode, values)
    before = image.tobytes()
    rgb = to_rgb(image)
    assert (type(rgb), rgb.mode, rgb.info) == (Image.Image, "RGB", {})
    assert error(rgb, blocks("RGB", colours)) <= (1 if mode == "LAB" else 0)
    assert (image.mode, image.tobytes()) == (mode, before)


@pytest.mark.parametrize(("mode", "format"), HELD, ids=[" ".join(held) for held in HELD])
def test_an_image_of_any_mode_format_and_orientation_becomes_upright_rgb(
    mode: str, format: str, tmp_path: Path
) -> None:
    values, colours = MODES[mode]
    expected = blocks("RGB", colours)
    for orientation in range(1, 9) if format in ORIENTED else (1,):
        data = encode(blocks(mode, values), format, orientation=orientation)
        image = load_image(data)
        assert (type(image), image.mode, image.info) == (Image.Image, "RGB", {})
        assert error(image, expected) <= (lossy(format) or (mode == "LAB")), orientation
        (tmp_path / "a.jpg").write_bytes(data)  # whatever its name
        for source in (io.BytesIO(data), tmp_path / "a.jpg"):
            with Image.open(source) as opened:
                assert to_rgb(opened).tobytes() == image.tobytes()


def test_the_code_in_the_adapters_card_makes_the_same_image(tmp_path: Path) -> None:
    card = (Path(__file__).parents[2] / "model_card.md").read_text()
    code = card[card.index("image = ImageOps") : card.index("inputs = processor(")]
    compared = 0
    for mode, format in HELD:
        if mode == "F":  # whose white is not one value
            continue
        # Pillow itself takes the sides of some TIFFs for each other.
        for orientation in (1, 6) if format in ORIENTED - {"TIFF"} else (1,):
            (tmp_path / "photo.jpg").write_bytes(encode(blocks(mode, MODES[mode][0]), format, orientation=orientation))
            names = {"Image": Image, "ImageOps": ImageOps}
            exec(code.replace('"photo.jpg"', repr(str(tmp_path / "photo.jpg"))), names)
            assert names["image"].mode == "RGB"
            assert error(names["image"], load_image((tmp_path / "photo.jpg").read_bytes())) <= 1, (mode, format)
            compared += 1
    assert compared == 64


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("format", ["PNG", "GIF", "memory"])
def test_a_transparent_colour_becomes_white(name: str, format: str) -> None:
    mode, key, colours = KEYS[name]
    image = blocks(mode, MODES[mode][0])
    if format == "GIF" and not (mode in ("P", "L") and isinstance(key, int)):
        pytest.skip("GIF has one transparent colour of a palette")
    if format == "memory":
        image.info["transparency"] = key
        assert error(to_rgb(image), blocks("RGB", colours)) == 0
    else:
        assert error(load_image(encode(image, format, transparency=key)), blocks("RGB", colours)) == 0


def test_a_transparent_colour_of_16_bits_a_channel_becomes_white() -> None:
    pixels = b"\0" + struct.pack(">6H", 0xC812, 0, 0, 0, 0, 65535)
    data = png(2, 1, depth=16, colour=2, pixels=pixels, chunks=chunk(b"tRNS", struct.pack(">3H", 0xC812, 0, 0)))
    assert np.asarray(load_image(data)).tolist() == [[[255, 255, 255], [0, 0, 255]]]


DEEP = [
    ("16 bits, all dark: still of 65535", np.array([[0, 255]], np.uint16), [0, 1]),
    ("32 bits that are 8", np.array([[0, 255]], np.int32), [0, 255]),
    ("32 bits that are 16", np.array([[256, 65535]], np.int32), [1, 255]),
    ("32 bits", np.array([[0, 2**30]], np.int32), [0, 255]),
    ("negative", np.array([[-5, 255]], np.int32), [0, 255]),
    ("black", np.array([[0, 0]], np.float32), [0, 0]),
    ("0 to 1", np.array([[0.5, 1]], np.float32), [128, 255]),
    ("0 to 255", np.array([[128, 255]], np.float32), [128, 255]),
    ("0 to 65535", np.array([[51400, 65535]], np.float32), [200, 255]),
    ("beyond", np.array([[1.2e6, 2e6]], np.float32), [153, 255]),
    ("not numbers", np.array([[np.nan, 1, np.inf, -np.inf]], np.float32), [0, 255, 255, 0]),
]


@pytest.mark.parametrize(("values", "expected"), [case[1:] for case in DEEP], ids=[case[0] for case in DEEP])
def test_more_than_8_bits_are_scaled_to_8(values: np.ndarray, expected: list[int]) -> None:
    image = Image.fromarray(values)
    for rgb in (to_rgb(image), load_image(encode(image, "TIFF"))):
        assert np.asarray(rgb)[0].tolist() == [[grey] * 3 for grey in expected]


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "jpeg"])
def test_a_tiff_whose_decoder_shows_memory_is_refused(compression: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB" if compression == "jpeg" else "1", (24, 16)).save(stream, "TIFF", compression=compression)
    with pytest.raises(ImageError, match=f"format_not_allowed: a TIFF with compression {compression}"):
        load_image(stream.getvalue())
    with pytest.raises(ImageError, match="format_not_allowed"), Image.open(stream) as image:
        as_image(image)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_deflate", "tiff_adobe_deflate"])
def test_a_tiff_of_another_compression_is_an_image(compression: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), "red").save(stream, "TIFF", compression=compression)
    assert load_image(stream.getvalue()).getpixel((12, 8))[0] > 250


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_the_image(format: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "white")]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert error(load_image(data), frames[0]) <= lossy(format) + (format == "GIF")


def test_the_comments_of_a_gif_are_skipped_whatever_their_length() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 99, 199])
    data = encode(image, "GIF", transparency=0)
    comment = b"!\xfe" + (b"\xff" + b"," * 255) * 110_000 + b"\0"
    screen = data.index(b",\0\0\0\0")
    start = time.process_time()
    for with_comment in (data[:screen] + comment + data[screen:], data[:-1] + comment + data[-1:]):
        assert load_image(with_comment).getcolors() == [(64, (9, 99, 199))]
    assert time.process_time() - start < 5


def test_of_a_jpeg_with_a_second_image_the_first_is_taken() -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "MPO", save_all=True, append_images=frames[1:], quality=100)
    assert Image.open(io.BytesIO(stream.getvalue())).format == "MPO"
    assert error(load_image(stream.getvalue()), frames[0]) <= 4


BROKEN_EXIF = [
    b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40,
    b"Exif\0\0",
    b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0",  # an orientation that is text
    b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0",  # 9
    b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x05\0\0\0\x01\0\0\0\x1a\0\0\0\0\0\0\0\6\0\0\0\0",  # 6 / 0
    b"Exif\0\0garbage!garbage!",  # for which Pillow raises SyntaxError
]


@pytest.mark.parametrize("exif", BROKEN_EXIF, ids=range(len(BROKEN_EXIF)))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_does_not_make_a_broken_image(format: str, exif: bytes) -> None:
    image = blocks("RGB", COLOURS)
    assert error(load_image(encode(image, format, exif=exif)), image) <= lossy(format)


def test_metadata_does_not_come_along() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x010F] = "maker"
    image = blocks("RGB", COLOURS)
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        data = encode(image, format, exif=exif, icc_profile=b"profile" * 20)
        assert Image.open(io.BytesIO(data)).getexif()
        loaded = load_image(data)
        assert (loaded.info, dict(loaded.getexif())) == ({}, {})


def test_an_image_that_is_rgb_already_is_not_copied() -> None:
    image = Image.new("RGB", (4, 4))
    assert to_rgb(image) is image
    image.info["comment"] = "private"
    assert to_rgb(image).info == {} and image.info == {"comment": "private"}


def tiff(**tags: int) -> bytes:
    known = {
        "width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offset": 273,
        "rows_per_strip": 278, "num_bytes": 279, "tile_width": 322, "tile_height": 323, "tile_offset": 324,
        "tile_bytes": 325,
    }  # fmt: skip
    tags = {"bits": 8, "compression": 8, "photometric": 1} | tags
    entries = b"".join(struct.pack("<HHII", known[name], 4, 1, value) for name, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(100)


def claimed_jpeg(width: int, height: int) -> bytes:
    data = encode(Image.new("L", (16, 16)), "JPEG")
    size = data.index(b"\xff\xc0") + 5
    return data[:size] + struct.pack(">HH", height, width) + data[size + 4 :]


def claimed_gif(width: int, height: int) -> bytes:
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\0\0\0,\0\0\0\0" + size + b"\0\x02\x02D\x01\0;"


BOMBS = {
    "a column": (lambda: png(1, 60_000_000), "side_too_long: 1x60000000"),
    "a line": (lambda: png(60_000_000, 1, pixels=b"\0"), "side_too_long: 60000000x1"),
    "175 megapixels": (lambda: png(17_500, 10_000, depth=1), "too_many_pixels: 17500x10000"),
    "2,500 megapixels": (lambda: png(50_000, 50_000, depth=1, pixels=b"\0"), "too_many_pixels"),
    "text": (lambda: png(4, 4, chunks=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**7)))), "image_unreadable"),
    "a profile": (lambda: png(4, 4, chunks=chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(10**7)))), "image_unr"),
    "many texts": (lambda: png(4, 4, chunks=90 * chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(10**6)))), "image_unr"),
    "JPEG": (lambda: claimed_jpeg(65_500, 65_500), "too_many_pixels"),
    "a high JPEG": (lambda: claimed_jpeg(8, 65_500), "side_too_long"),
    "GIF": (lambda: claimed_gif(65_535, 65_535), "too_many_pixels"),
    "a GIF of comments": (
        lambda: b"GIF89a" + bytes(7) + b"!\xfe" + (b"\xff" + bytes(255)) * 110_000 + b"\0;", "not_a_picture"
    ),
    "a high GIF": (lambda: claimed_gif(1, 65_535), "side_too_long"),
    "TIFF": (lambda: tiff(width=1, height=60_000_000, offset=8, rows_per_strip=60_000_000, num_bytes=9), "side_too"),
    "a TIFF of one huge strip": (
        lambda: tiff(width=9, height=9, offset=8, rows_per_strip=2**31 - 1, num_bytes=2**31 - 1), "image_unreadable"
    ),
    "a TIFF of one huge tile": (
        lambda: tiff(width=9, height=9, tile_width=2**20, tile_height=2**14, tile_offset=8, tile_bytes=9), "image_unr"
    ),
    "BMP": (
        lambda: b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 60_000_000, 1, 1, 24, 0, 0, 0, 0, 0, 0), "side_too_long"
    ),
    "too many bytes": (lambda: bytes(32 * 1024**2 + 1), "too_many_bytes: 33554433"),
}  # fmt: skip
MEASURE = textwrap.dedent("""
    import sys, time
    from benchmarks.memory import peak_bytes
    from product_vqa.images import ImageError, load_image
    assert not {"torch", "transformers", "datasets"} & sys.modules.keys()
    import PIL.Image; PIL.Image.init()
    for file in sys.argv[1:]:
        data = open(file, "rb").read()
        peak, start = peak_bytes(), time.process_time()
        try:
            load_image(data)
            reason = "loaded"
        except ImageError as error:
            reason = str(error)
        seconds = time.process_time() - start
        print(seconds, (peak_bytes() - peak) / 1024**2, reason, sep="\\t")
""")


@pytest.mark.slow
def test_an_image_beyond_the_limits_is_refused_in_a_second_and_in_100_mb(tmp_path: Path) -> None:
    files = []
    for number, (make, _) in enumerate(BOMBS.values()):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(make())
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, files)], capture_output=True, text=True, timeout=60, check=True
    )
    results = [line.split("\t") for line in done.stdout.splitlines()]
    for (name, (_, reason)), (seconds, megabytes, actual) in zip(BOMBS.items(), results, strict=True):
        assert actual.startswith(reason), name
        assert float(seconds) < 1 and float(megabytes) < 100, name


@pytest.mark.parametrize(("width", "height"), [(8_000, 8_000), (20_000, 3_200), (1, 20_000)])
def test_the_limits_are_those_that_the_documentation_names(width: int, height: int) -> None:
    assert (images.MAX_BYTES, images.MAX_PIXELS, images.MAX_SIDE) == (33_554_432, 64_000_000, 20_000)
    with images.open_image(png(width, height, depth=1, pixels=b"\0")) as image:  # not decoded
        assert image.size == (width, height)
    with pytest.raises(ImageError, match=r"too_many_pixels|side_too_long"):
        load_image(png(width + 1, height + 1, depth=1, pixels=b"\0"))


def test_an_opened_image_beyond_the_limits_is_refused_before_it_is_decoded() -> None:
    with Image.open(io.BytesIO(png(1, 100_000, pixels=b"\0"))) as image:
        with pytest.raises(ImageError, match="side_too_long: 1x100000"):
            to_rgb(image)
        assert image.tile  # still to be decoded


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"


def no_images() -> dict[str, bytes]:
    cases = {"empty": b"", "HTML": b"<!DOCTYPE html><title>Robot check</title>", "EPS": EPS}
    for format in ("ICO", "PPM", "TGA", "JPEG2000", "PCX", "PDF", "ICNS", "SGI", "DDS"):
        cases[format] = encode(Image.new("RGB", (32, 32), "red"), format)
    return cases


@pytest.mark.parametrize("name", no_images())
def test_other_formats_are_not_read_whatever_their_name(name: str, tmp_path: Path) -> None:
    data = no_images()[name]
    with pytest.raises(ImageError, match=r"^not_a_picture$"):
        load_image(data)
    if name not in ("empty", "HTML", "PDF"):
        (tmp_path / "photo.jpg").write_bytes(data)
        with Image.open(tmp_path / "photo.jpg") as opened, pytest.raises(ImageError, match=r"^format_not_allowed: "):
            to_rgb(opened)


def test_no_program_is_started_for_an_eps_that_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with Image.open(io.BytesIO(EPS)) as image, pytest.raises(ImageError, match="format_not_allowed: EPS"):
        to_rgb(image)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_an_image_error(format: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, format)
    load_image(data)
    with pytest.raises(ImageError):
        load_image(data[: int(len(data) * share)])


def test_an_image_without_pixels_or_of_a_closed_file_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="no_pixels: 0x5"):
        to_rgb(Image.new("RGB", (0, 5)))
    with Image.open(io.BytesIO(encode(blocks("RGB", COLOURS), "PNG"))) as image:
        pass
    with pytest.raises(ImageError, match="image_unreadable: "):
        to_rgb(image)


def test_a_stored_image_is_its_bytes_and_never_its_path(tmp_path: Path) -> None:
    data = encode(blocks("RGB", COLOURS), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    assert as_image({"bytes": data, "path": "/nowhere.png"}).tobytes() == blocks("RGB", COLOURS).tobytes()
    for path in (str(tmp_path / "a.png"), "https://host/a.png", None):
        with pytest.raises(ImageError, match=r"^no_bytes: "):
            as_image({"bytes": None, "path": path})
    for not_bytes in ("text", 5, [data]):
        with pytest.raises(ImageError, match=r"^not_an_image: "):
            as_image({"bytes": not_bytes})


@settings(max_examples=60)
@given(st.data())
def test_any_bytes_are_an_image_or_an_image_error(data: st.DataObject) -> None:
    whole = encode(blocks("RGB", COLOURS), data.draw(st.sampled_from(FORMATS)))
    position = data.draw(st.integers(0, len(whole)))
    patch = data.draw(st.binary(max_size=40))
    with contextlib.suppress(ImageError):
        image = load_image(whole[:position] + patch + whole[position + len(patch) :])
        assert (image.mode, image.info) == ("RGB", {})


def every_file() -> list[tuple[str, str, int]]:
    return [
        (mode, format, orientation)
        for mode, format in HELD
        for orientation in (range(1, 9) if format in ORIENTED else (1,))
    ]


def levels(pixel_values: "torch.Tensor") -> "torch.Tensor":  # noqa: F821
    """0 to 255, whether normalized yet or not."""
    return ((pixel_values + 1) * 127.5 if pixel_values.is_floating_point() else pixel_values).round().int()


def centres(image: Image.Image) -> Image.Image:
    """A pixel of each block, where chroma at half the resolution is not blurred across its edges."""
    return Image.fromarray(np.asarray(image)[BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every mode, format and orientation, and the datasets that build makes of them."""
    folder = tmp_path_factory.mktemp("entry_points")
    (folder / "images").mkdir()
    rows = ["image_link,group_id,entity_name,entity_value"]
    for number, (mode, format, orientation) in enumerate(every_file()):
        data = encode(blocks(mode, MODES[mode][0]), format, orientation=orientation)
        (folder / "images" / f"{number}.jpg").write_bytes(data)
        rows.append(f"https://shop.example/{number}.jpg,g,item_weight,{number + 1} gram")
    (folder / "train.csv").write_text("\n".join(rows))
    arguments = ["--train_csv", "train.csv", "--image_dir", "images", "--validation_size", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for size in ("0", "448"):
            call(build.main, patch, *arguments, "--image_size", size, "--output_dir", folder / size)
    rows = make_rows(len(every_file()))
    for number, row in enumerate(rows):
        row["image"] = {"bytes": (folder / "images" / f"{number}.jpg").read_bytes(), "path": None}
    write_rows(folder / "files" / "data" / "train-00000-of-00001.parquet", rows)
    return folder


@pytest.fixture(scope="module")
def processor(tiny_base: Path) -> "PaliGemmaProcessor":  # noqa: F821
    from product_vqa.hub import Location
    from product_vqa.modeling.loading import load_processor

    return load_processor(Location(str(tiny_base)))


@pytest.fixture(scope="module")
def read(built: Path, processor: Any) -> "torch.Tensor":  # noqa: F821
    """What the reader makes of each file, opened with Pillow by its name."""
    return read_tensors(processor, [Image.open(built / "images" / f"{n}.jpg") for n in range(len(every_file()))])


def read_tensors(processor: Any, values: list[Any]) -> "torch.Tensor":  # noqa: F821
    import torch

    from inference import AttributeReader

    class Tensors(AttributeReader):
        def answer(self, batch: Any, entity_names: Any, **_: Any) -> Any:
            return list(batch["pixel_values"][batch["image_index"]])

    return levels(torch.stack(Tensors(None, processor, schema=CHALLENGE).read_batch(values, ["width"] * len(values))))


@pytest.mark.slow
def test_the_reader_and_the_page_make_the_same_tensor_of_a_file(built: Path, processor: Any, read: Any) -> None:
    import torch

    from inference import demo

    files = [built / "images" / f"{number}.jpg" for number in range(len(every_file()))]
    assert torch.equal(read_tensors(processor, [file.read_bytes() for file in files]), read)
    assert torch.equal(read_tensors(processor, [demo.open_image(file) for file in files]), read)
    expected = read_tensors(processor, [blocks("RGB", MODES[mode][1]) for mode, _, _ in every_file()])
    for case, difference in zip(every_file(), (read - expected).abs().amax(dim=(1, 2, 3)), strict=True):
        assert difference <= 2 * (lossy(case[1]) or (case[0] == "LAB")), case
    assert len(files) == 302


# The datasets are of build's --image_size, and of the files as they are.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["448", "0", "files"])
def test_training_prediction_and_report_make_the_readers_tensor_of_a_file(
    built: Path, processor: Any, read: Any, name: str
) -> None:
    import torch

    from inference import report
    from inference.dataloader import RowBatches
    from product_vqa.dataset import load_split
    from product_vqa.hub import Location
    from product_vqa.modeling.collator import TrainingCollator

    with argument("dataset"):
        dataset = load_split(Location(str(built / name)), "train")
    trained = levels(TrainingCollator(processor, CHALLENGE)(list(dataset))["pixel_values"])
    batch = RowBatches(dataset, processor=processor, batch_size=len(dataset), schema=CHALLENGE)[0]
    assert batch.failures == [None] * 302
    assert torch.equal(levels(batch.inputs["pixel_values"])[batch.inputs["image_index"]], trained)
    if name == "448":  # stored as JPEG
        assert (trained - read).abs().max() <= 8
    else:
        assert torch.equal(trained, read)
    for number, (row, case) in enumerate(zip(dataset, every_file(), strict=True)):
        assert row["image_link"].endswith(f"/{number}.jpg")
        image = load_image((built / "images" / f"{number}.jpg").read_bytes())
        wrong = row | {"prediction": "", "reference": "", "confidence": 0, "kind": ""}
        thumbnail = report._error(wrong, row["image"], question="", reader=None, box=None)
        shown = Image.open(io.BytesIO(base64.b64decode(thumbnail["thumbnail"])))
        assert error(centres(shown), centres(image)) <= 12, case
        if name != "files":  # and for those who have the dataset alone
            plain = datasets.Image().decode_example(row["image"]).convert("RGB")
            assert error(plain, image) <= (8 if name == "448" else 0), case
