import contextlib
import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from PIL.PngImagePlugin import PngInfo

from dataset_builder import image_preparation
from dataset_builder.image_preparation import PreparedImage, prepare_image
from product_vqa.images import ImageError, load_image
from tests.dataset_builder.files import huge_png, jpeg


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def decode(prepared: PreparedImage) -> Image.Image:
    image = Image.open(io.BytesIO(prepared.data))
    assert image.size == (prepared.width, prepared.height)
    return image


def scene(size: tuple[int, int] = (600, 400)) -> Image.Image:
    """Smooth colours and a black corner at the top left."""
    x, y = np.meshgrid(np.linspace(60, 250, size[0]), np.linspace(60, 250, size[1]))
    image = Image.fromarray(np.stack([x, y, 310 - x], axis=-1).astype(np.uint8))
    image.paste("black", (0, 0, size[0] // 4, size[1] // 4))
    return image


def difference(first: Image.Image, second: Image.Image) -> float:
    """Mean absolute difference, of 255."""
    assert first.size == second.size
    pixels = [np.asarray(image.convert("RGB"), dtype=float) for image in (first, second)]
    return float(np.abs(pixels[0] - pixels[1]).mean())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_usual_formats_become_an_rgb_jpeg_and_without_a_size_a_jpeg_or_a_png(format: str, mode: str) -> None:
    data = encode(Image.new(mode, (20, 10), "white"), format)
    resized = prepare_image(data, image_size=448)
    image = decode(resized)
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (20, 10))
    assert difference(image, Image.new("RGB", (20, 10), "white")) < 2
    assert (resized.data == data) == (format == "JPEG" and mode == "RGB")  # there was nothing to do
    original = prepare_image(data, image_size=0)
    assert decode(original).format == ("JPEG" if format == "JPEG" else "PNG")
    assert (original.data == data) == (format in ("JPEG", "PNG"))  # there was nothing to remove


SIZES = [
    ((1400, 700), 448, (448, 224)), ((700, 1400), 448, (224, 448)), ((448, 448), 448, (448, 448)),
    ((449, 449), 448, (448, 448)), ((224, 224), 448, (224, 224)), ((3000, 4), 448, (448, 1)),
    ((1400, 700), 0, (1400, 700)), ((900, 900), 64, (64, 64)),
]  # fmt: skip


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize(("size", "image_size", "expected"), SIZES)
def test_an_image_is_resized_to_fit_a_square_and_never_enlarged(
    format: str, size: tuple[int, int], image_size: int, expected: tuple[int, int]
) -> None:
    assert decode(prepare_image(encode(scene(size), format), image_size=image_size)).size == expected


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(600, 400), (60, 40)])
def test_an_image_is_turned_upright(format: str, orientation: int, size: tuple[int, int]) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Transpose that undoes what the orientation asks for
    upright = scene(size)
    turned = upright.transpose(Image.Transpose(back[orientation])) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if format in ("JPEG", "WEBP") else {}
    image = decode(prepare_image(encode(turned, format, exif=exif, **options), image_size=448))
    expected = upright.copy()
    expected.thumbnail((448, 448))
    assert difference(image, expected) < 4
    assert image.getexif().get(0x0112, 1) == 1


def rgba(colour: tuple[int, ...]) -> Image.Image:
    return Image.new("RGBA", (40, 40), colour)


MODES = [
    ("cmyk", encode(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
    ("palette", encode(Image.new("RGB", (40, 40), (10, 200, 30)).quantize(), "PNG"), (10, 200, 30)),
    ("transparent", encode(rgba((255, 0, 0, 0)), "PNG"), (255, 255, 255)),
    ("half transparent", encode(rgba((0, 0, 0, 128)), "PNG"), (127, 127, 127)),
    ("grey and alpha", encode(Image.new("LA", (40, 40), (0, 0)), "PNG"), (255, 255, 255)),
    ("transparent colour", encode(Image.new("RGB", (40, 40), (9, 9, 9)), "PNG", transparency=(9, 9, 9)), (255,) * 3),
    ("transparent palette", encode(Image.new("P", (40, 40), 0), "PNG", transparency=0), (255, 255, 255)),
    ("16 bit", encode(Image.fromarray(np.full((40, 40), 51400, np.uint16)), "PNG"), (200, 200, 200)),
    ("16 bit, dark", encode(Image.fromarray(np.full((40, 40), 255, np.uint16)), "TIFF"), (1, 1, 1)),
    ("32 bit", encode(Image.fromarray(np.full((40, 40), 51400, np.int32)), "TIFF"), (200, 200, 200)),
    ("float", encode(Image.fromarray(np.full((40, 40), 0.5, np.float32)), "TIFF"), (128, 128, 128)),
    ("one bit", encode(Image.new("1", (40, 40), 1), "PNG"), (255, 255, 255)),
    ("animated", encode(Image.new("RGB", (40, 40), "red"), "GIF", save_all=True,
                        append_images=[Image.new("RGB", (40, 40), "blue")]), (255, 0, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("data", "colour"), [case[1:] for case in MODES], ids=[case[0] for case in MODES])
def test_any_mode_becomes_rgb_on_white(data: bytes, colour: tuple[int, ...]) -> None:
    image = decode(prepare_image(data, image_size=32))
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert difference(image, Image.new("RGB", (32, 32), colour)) < 2.5


@pytest.mark.parametrize("data", [case[1] for case in MODES], ids=[case[0] for case in MODES])
def test_without_a_size_no_pixel_changes(data: bytes) -> None:
    assert load_image(prepare_image(data, image_size=0).data).tobytes() == load_image(data).tobytes()


def test_a_jpeg_keeps_what_says_how_its_colours_are_coded() -> None:
    """Not as luminance and chroma: only the Adobe segment says so where the channels are not named R, G and B."""
    data = bytearray(encode(scene(), "JPEG", quality=90, keep_rgb=True))
    header, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    for name, positions in zip((1, 2, 3), ((10, 5), (13, 7), (16, 9)), strict=True):
        data[header + positions[0]] = data[scan + positions[1]] = name
    assert difference(load_image(bytes(data)), scene()) < 4
    for image_size in (0, 1000):
        stored = prepare_image(bytes(data), image_size=image_size).data
        assert load_image(stored).tobytes() == load_image(bytes(data)).tobytes()


SECRET = b"52.5200 N, 13.4050 E"


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">%s</x:xmpmeta>' % SECRET


PNG_TEXT = PngInfo()


PNG_TEXT.add_text("where", SECRET.decode())


PNG_TEXT.add_text("where else", SECRET.decode(), zip=True)


def telling_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    exif.get_ifd(0x8825)[1] = "N"
    if orientation != 1:
        exif[0x0112] = orientation
    return exif


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def telling_jpeg(image: Image.Image, *, orientation: int = 1, **options: Any) -> bytes:
    """A JPEG with its place in every segment that can hold one, between its scans, and behind its end."""
    data = encode(
        image, "JPEG", quality=90, exif=telling_exif(orientation), comment=SECRET, icc_profile=SECRET * 10, xmp=XMP,
        **options,
    )  # fmt: skip
    hidden = [
        segment(0xE0, b"JFXX\0\x10" + SECRET),
        *(segment(0xE0 + n, SECRET) for n in range(3, 16)),
        segment(0xFE, SECRET),
    ]
    data = data[:2] + b"".join(hidden) + data[2:]
    if options.get("progressive"):
        second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
        data = data[:second] + segment(0xFE, SECRET) + segment(0xED, SECRET) + data[second:]
    return data + SECRET + data


@pytest.mark.parametrize("image_size", [448, 1000, 0])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_of_a_jpeg_nothing_is_kept_but_the_image(
    image_size: int, orientation: int, progressive: bool, mode: str
) -> None:
    data = telling_jpeg(scene().convert(mode), orientation=orientation, progressive=progressive)
    assert data.count(SECRET) > 30
    stored = prepare_image(data, image_size=image_size).data
    assert SECRET not in stored
    with Image.open(io.BytesIO(stored)) as image:
        assert set(image.info) <= {
            "jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "adobe", "adobe_transform", "progressive",
            "progression", "exif",
        }  # fmt: skip
        assert dict(image.getexif()) == ({0x0112: orientation} if (image_size, orientation) == (0, 6) else {})
    if image_size == 0 or (image_size, orientation, mode) == (1000, 1, "RGB"):  # the compressed pixels are the same
        assert load_image(stored).tobytes() == load_image(data).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [448, 1000, 0])
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {"pnginfo": PNG_TEXT, "icc_profile": SECRET * 10}), ("GIF", {"comment": SECRET}), ("BMP", {}),
        ("WEBP", {"xmp": XMP, "icc_profile": SECRET * 10, "lossless": True}), ("AVIF", {"xmp": XMP}), ("TIFF", {}),
    ],
)  # fmt: skip
def test_of_any_other_format_nothing_is_kept_but_the_image(
    format: str, options: dict[str, Any], image_size: int
) -> None:
    if format not in ("GIF", "BMP"):
        options = options | {"exif": telling_exif()}
    data = encode(scene(), format, **options) + SECRET
    stored = prepare_image(data, image_size=image_size).data
    assert SECRET in data and SECRET not in stored
    with Image.open(io.BytesIO(stored)) as image:
        assert dict(image.getexif()) == {}
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi"}
    if image_size == 0:
        assert load_image(stored).tobytes() == load_image(data).tobytes()


def test_the_preview_of_a_jpeg_does_not_come_along() -> None:
    preview = bytes(range(48))
    data = encode(scene(), "JPEG", quality=90)
    assert data[2:11] == b"\xff\xe0\0\x10JFIF\0"
    data = data[:4] + struct.pack(">H", 64) + data[6:18] + b"\x04\x04" + preview + data[20:]
    stored = prepare_image(data, image_size=0).data
    assert preview not in stored
    assert stored[18:20] == b"\0\0"  # its width and height
    assert load_image(stored).tobytes() == load_image(data).tobytes()


def test_coloured_print_keeps_its_edges() -> None:
    """Red lines of one pixel on blue: chroma at half the resolution would make one violet of them."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2, 0] = pixels[:, 1::2, 2] = 255
    print_ = Image.fromarray(pixels)
    prepared = prepare_image(encode(print_, "PNG"), image_size=448)
    with decode(prepared) as image, Image.open(io.BytesIO(encode(print_, "JPEG", quality=95))) as other:
        assert isinstance(image, JpegImageFile) and isinstance(other, JpegImageFile)
        assert get_sampling(image) == 0  # 4:4:4
        assert image.quantization == other.quantization
    assert difference(decode(prepared), print_) < 15
    assert difference(Image.open(io.BytesIO(encode(print_, "JPEG", quality=95, subsampling="4:2:0"))), print_) > 60


def test_broken_exif_does_not_make_a_broken_image() -> None:
    data = encode(scene((900, 300)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert decode(prepare_image(data, image_size=448)).size == (448, 149)
    assert not decode(prepare_image(data, image_size=0)).info.get("exif")


def test_images_that_look_the_same_have_one_hash_and_others_have_another() -> None:
    first = scene((900, 700))
    hashes = {
        prepare_image(data, image_size=size).phash
        for data in (encode(first, "JPEG", quality=95), encode(first, "PNG"), encode(first.resize((450, 350)), "PNG"))
        for size in (448, 0)
    }
    assert len(hashes) == 1
    assert -(2**63) <= min(hashes) < 2**63
    assert prepare_image(encode(first.rotate(90, expand=True), "PNG"), image_size=448).phash not in hashes


BAD = [
    (b"", "not_a_picture"),
    (b"<!DOCTYPE html><title>Robot check</title>", "not_a_picture"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_a_picture"),  # Pillow would start Ghostscript
    (jpeg()[:-200], "image_unreadable: OSError: image file is truncated"),
    (jpeg()[:40], "image_unreadable: OSError: Truncated File Read"),
    (jpeg(size=(900, 600))[:-200], "image_unreadable: OSError: image file is truncated"),
    (encode(Image.new("1", (9000, 9000)), "PNG"), "too_many_pixels: 9000x9000"),
    (huge_png(50_000, 50_000), "too_many_pixels: Image size (2500000000 pixels)"),
    (huge_png(1, 60_000_000), "side_too_long: 1x60000000"),
]


@pytest.mark.parametrize("image_size", [448, 0])
@pytest.mark.parametrize(("data", "reason"), BAD, ids=[case[-1] for case in BAD])
def test_data_that_cannot_be_decoded_completely_is_not_an_image(data: bytes, reason: str, image_size: int) -> None:
    with pytest.raises(ImageError) as failure:
        prepare_image(data, image_size=image_size)
    assert str(failure.value).startswith(reason)


def test_an_image_of_too_many_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_preparation, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match="too_many_bytes: "):
        prepare_image(jpeg(), image_size=448)


@given(data=st.binary(max_size=300), position=st.integers(0, 900), image_size=st.sampled_from([0, 32]))
def test_any_bytes_are_an_image_or_an_image_error(data: bytes, position: int, image_size: int) -> None:
    with contextlib.suppress(ImageError):
        prepare_image(data, image_size=image_size)
    broken = jpeg()[:position] + data + jpeg()[position + len(data) :]
    with contextlib.suppress(ImageError):
        prepare_image(broken, image_size=image_size)


@settings(max_examples=50)
@given(length=st.integers(100, len(jpeg(size=(300, 200))) - 1))
def test_a_reduced_decode_refuses_what_a_full_decode_refuses(length: int) -> None:
    """The end-of-image marker alone may be missing: Pillow accepts that either way."""
    data = jpeg(size=(300, 200))[:length]
    try:
        Image.open(io.BytesIO(data)).load()
        is_complete = True
    except OSError:
        is_complete = False
    for image_size in (0, 32):
        if is_complete:
            prepare_image(data, image_size=image_size)
        else:
            with pytest.raises(ImageError):
                prepare_image(data, image_size=image_size)
