"""Files written by other libraries are read to the exact sample, and ours come back from theirs."""

import errno
import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as PILImage
from PIL import ImageFile, ImageOps

import ddfm.io
from ddfm._checks import DDFMError
from ddfm.io import (
    encode_image,
    from_array,
    from_pil,
    list_images,
    raster,
    read_image,
    write_bytes,
    write_image,
)
from ddfm.io.files import uninterrupted

H, W = 23, 31
RNG = np.random.default_rng(0)
RGB8 = RNG.integers(0, 256, (H, W, 3)).astype(np.uint8)
RGB16 = RNG.integers(0, 65536, (H, W, 3)).astype(np.uint16)
ALPHA8 = RNG.integers(0, 256, (H, W)).astype(np.uint8)
ALPHA16 = RNG.integers(0, 65536, (H, W)).astype(np.uint16)
GREY8, GREY16 = RGB8[..., 0], RGB16[..., 0]


def levels(data, bits):
    """Samples of ``bits`` bits that a float image stands for; exact ones have no remainder to speak of."""
    scaled = data.astype(np.float64) * (2**bits - 1)
    assert np.abs(scaled - np.rint(scaled)).max() < 0.01
    return np.rint(scaled).astype(np.uint8 if bits == 8 else np.uint16)


def saved(folder, image, name, **options):
    path = folder / name
    (PILImage.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


def encoded(image, kind, **options):
    file = io.BytesIO()
    (PILImage.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, **options)
    return file.getvalue()


def read_bytes(folder, content, name):
    path = folder / name
    path.write_bytes(content)
    return read_image(path)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(array, color_type, extra=b"", depth=16):
    """A PNG by hand, after the specification: signature, IHDR, IDAT with filter 0, IEND."""
    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], depth, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# --- what others write, we read -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff", "a.bmp", "a.PNG"])
@pytest.mark.parametrize("array", [GREY8, RGB8], ids=["grey", "rgb"])
def test_eight_bits_by_pillow(tmp_path, array, name):
    image = read_image(saved(tmp_path, array, name))
    assert image.data.dtype == np.float32 and image.bit_depth == 8 and image.alpha is None
    assert image.size == (H, W) and image.is_color == (array.ndim == 3) and image.notes == ()
    np.testing.assert_array_equal(levels(image.data, 8), array)


def test_lossless_webp_by_pillow(tmp_path):
    image = read_image(saved(tmp_path, RGB8, "a.webp", lossless=True))
    np.testing.assert_array_equal(levels(image.data, 8), RGB8)
    assert image.format == "WEBP"


@pytest.mark.parametrize("array", [GREY8, RGB8], ids=["grey", "rgb"])
def test_jpeg_as_pillow_decodes_it(tmp_path, array):
    path = saved(tmp_path, array, "a.jpg", progressive=True)
    np.testing.assert_array_equal(levels(read_image(path).data, 8), np.asarray(PILImage.open(path)))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_alpha_is_kept_apart(tmp_path, name):
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    image = read_image(saved(tmp_path, np.dstack([RGB8, ALPHA8]), name, **options))
    np.testing.assert_array_equal(levels(image.data, 8), RGB8)
    np.testing.assert_array_equal(levels(image.alpha, 8), ALPHA8)


def test_grey_with_alpha(tmp_path):
    image = read_image(saved(tmp_path, np.dstack([GREY8, ALPHA8]), "a.png"))
    np.testing.assert_array_equal(levels(image.data, 8), GREY8)
    np.testing.assert_array_equal(levels(image.alpha, 8), ALPHA8)


def test_opaque_alpha_is_dropped_with_a_note(tmp_path):
    image = read_image(saved(tmp_path, np.dstack([RGB8, np.full_like(GREY8, 255)]), "a.png"))
    assert image.alpha is None and "opaque alpha dropped" in image.notes


def test_equal_channels_are_grey(tmp_path):
    image = read_image(saved(tmp_path, np.dstack([GREY8] * 3), "a.png"))
    assert image.data.shape == (H, W) and "equal channels: read as grey" in image.notes
    np.testing.assert_array_equal(levels(image.data, 8), GREY8)
    almost = np.dstack([GREY8] * 3)
    almost[3, 4, 1] ^= 1
    assert read_image(saved(tmp_path, almost, "b.png")).is_color


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_palette(tmp_path, name):
    image = PILImage.fromarray(RGB8).quantize(16)
    result = read_image(saved(tmp_path, image, name))
    np.testing.assert_array_equal(levels(result.data, 8), np.asarray(image.convert("RGB")))
    assert "palette expanded" in result.notes


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))], ids=["index", "table"])
def test_palette_with_transparency(tmp_path, transparency):
    image = PILImage.fromarray(RGB8).quantize(16)
    result = read_image(saved(tmp_path, image, "a.png", transparency=transparency))
    index = np.asarray(image)
    table = np.where(np.arange(16) == 3, 0, 255) if transparency == 3 else np.arange(0, 160, 10)
    np.testing.assert_array_equal(levels(result.alpha, 8), table[index])
    np.testing.assert_array_equal(levels(result.data, 8), np.asarray(image.convert("RGB")))


def test_one_transparent_colour(tmp_path):
    rgb = RGB8.copy()
    rgb[2, 3] = (9, 8, 7)
    result = read_image(saved(tmp_path, rgb, "a.png", transparency=(9, 8, 7)))
    np.testing.assert_array_equal(result.alpha == 0, (rgb == (9, 8, 7)).all(axis=2))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_one_bit(tmp_path, name):
    result = read_image(saved(tmp_path, PILImage.fromarray(GREY8 > 100), name))
    np.testing.assert_array_equal(result.data, (GREY8 > 100).astype(np.float32))


def test_four_bit_grey_png(tmp_path):
    values = GREY8[:, :30] >> 4
    packed = (values[:, ::2] << 4) | values[:, 1::2]
    header = struct.pack(">IIBBBBB", 30, H, 4, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    result = read_bytes(tmp_path, b"\x89PNG\r\n\x1a\n" + body, "a.png")
    np.testing.assert_allclose(result.data, values / 15, atol=1e-7)


def test_cmyk_jpeg_is_converted_with_a_note(tmp_path):
    image = PILImage.fromarray(RGB8).convert("CMYK")
    path = saved(tmp_path, image, "a.jpg", quality=95)
    result = read_image(path)
    np.testing.assert_array_equal(levels(result.data, 8), np.asarray(PILImage.open(path).convert("RGB")))
    assert "CMYK converted to RGB" in result.notes


@pytest.mark.parametrize("array", [GREY16, RGB16], ids=["grey", "rgb"])
@pytest.mark.parametrize("extra", [b"", chunk(b"gAMA", struct.pack(">I", 45455))], ids=["plain", "gamma"])
def test_sixteen_bit_png_by_hand(tmp_path, array, extra):
    image = read_bytes(tmp_path, png(array, 0 if array.ndim == 2 else 2, extra), "a.png")
    assert image.bit_depth == 16
    np.testing.assert_array_equal(levels(image.data, 16), array)


@pytest.mark.parametrize("array", [GREY16[..., None], RGB16], ids=["grey", "rgb"])
def test_sixteen_bit_png_with_alpha(tmp_path, array):
    full = np.concatenate([array, ALPHA16[..., None]], axis=2)
    image = read_bytes(tmp_path, imagecodecs.png_encode(full), "a.png")
    np.testing.assert_array_equal(levels(image.data, 16), array.squeeze())
    np.testing.assert_array_equal(levels(image.alpha, 16), ALPHA16)


def test_sixteen_bit_png_with_a_transparent_colour(tmp_path):
    key = struct.pack(">HHH", *(int(v) for v in RGB16[4, 5]))
    image = read_bytes(tmp_path, png(RGB16, 2, chunk(b"tRNS", key)), "a.png")
    np.testing.assert_array_equal(levels(image.data, 16), RGB16)
    assert image.alpha[4, 5] == 0 and image.alpha.sum() == H * W - 1


TIFFS = {
    "plain": {},
    "big": {"bigtiff": True},
    "motorola": {"byteorder": ">"},
    "deflate": {"compression": "zlib", "predictor": True, "rowsperstrip": 5},
    "lzw": {"compression": "lzw"},
    "tiles": {"tile": (16, 16)},
}


@pytest.mark.parametrize("options", TIFFS.values(), ids=TIFFS)
@pytest.mark.parametrize("array", [GREY8, RGB8, GREY16, RGB16], ids=["grey8", "rgb8", "grey16", "rgb16"])
def test_tiff_layouts(tmp_path, array, options):
    kind = "rgb" if array.ndim == 3 else "minisblack"
    image = read_bytes(tmp_path, tiff(array, photometric=kind, **options), "a.tif")
    assert image.bit_depth == array.dtype.itemsize * 8 and image.notes == ()
    np.testing.assert_array_equal(levels(image.data, image.bit_depth), array)


def test_tiff_planes_and_alpha(tmp_path):
    full = np.dstack([RGB16, ALPHA16])
    planes = np.ascontiguousarray(np.moveaxis(full, -1, 0))
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    for content in (tiff(full, **options), tiff(planes, planarconfig="separate", **options)):
        image = read_bytes(tmp_path, content, "a.tif")
        np.testing.assert_array_equal(levels(image.data, 16), RGB16)
        np.testing.assert_array_equal(levels(image.alpha, 16), ALPHA16)


def test_tiff_premultiplied_alpha_is_undone(tmp_path):
    alpha = np.maximum(ALPHA16, 1000) / 65535.0
    straight = RGB16 / 65535.0
    full = np.dstack([np.rint(straight * alpha[..., None] * 65535), alpha * 65535]).astype(np.uint16)
    content = tiff(full, photometric="rgb", extrasamples=["assocalpha"])
    image = read_bytes(tmp_path, content, "a.tif")
    # the product is rounded to a level, which the smallest alpha magnifies
    np.testing.assert_allclose(image.data, straight, atol=0.6 / 1000)
    assert "premultiplied alpha undone" in image.notes


def test_tiff_extra_channel_of_unknown_meaning_is_dropped(tmp_path):
    content = tiff(np.dstack([RGB8, ALPHA8]), photometric="rgb", extrasamples=["unspecified"])
    image = read_bytes(tmp_path, content, "a.tif")
    assert image.alpha is None and "extra channel of unknown meaning dropped" in image.notes
    np.testing.assert_array_equal(levels(image.data, 8), RGB8)


def test_tiff_white_is_zero(tmp_path):
    image = read_bytes(tmp_path, tiff(255 - GREY8, photometric="miniswhite"), "a.tif")
    np.testing.assert_array_equal(levels(image.data, 8), GREY8)
    assert "white is zero: inverted" in image.notes


def test_tiff_twelve_bits(tmp_path):
    values = GREY16[:, :30] >> 4
    pairs = values.reshape(H, 15, 2).astype(np.uint32)
    word = (pairs[..., 0] << 12) | pairs[..., 1]  # TIFF packs two samples into three bytes
    packed = np.stack([word >> 16, word >> 8 & 255, word & 255], axis=-1).astype(np.uint8)
    data = packed.tobytes()
    tags = [(256, 3, 30), (257, 3, H), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 3, H), (279, 4, len(data))]
    # a SHORT (3) fills the left half of the value field, which little-endian makes the same as a LONG (4)
    entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    content = head + data + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    image = read_bytes(tmp_path, content, "a.tif")
    np.testing.assert_allclose(image.data, values / 4095, atol=1e-7)
    assert image.bit_depth == 16


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiff_floats(tmp_path, dtype):
    values = RNG.random((H, W)).astype(dtype)
    image = read_bytes(tmp_path, tiff(values), "a.tif")
    np.testing.assert_array_equal(image.data, values.astype(np.float32))
    assert image.bit_depth == 16
    for bad in (values * 300, values - 0.5, np.where(values > 0.5, np.nan, values).astype(dtype)):
        with pytest.raises(DDFMError, match=r"a\.tif.*\[0, 1\]"):
            read_bytes(tmp_path, tiff(bad), "a.tif")


def test_tiff_in_jpeg_by_libtiff(tmp_path):
    smooth = np.add.outer(np.arange(H) * 5, np.arange(W) * 3)[..., None] + np.array([0, 30, 60])
    path = saved(tmp_path, smooth.astype(np.uint8), "a.tif", compression="jpeg")
    difference = np.asarray(PILImage.open(path)).astype(int) - levels(read_image(path).data, 8)
    assert np.abs(difference).max() <= 2  # two JPEG decoders


@pytest.mark.parametrize("kind", ["int16", "uint32", "cmyk", "five channels"])
def test_tiff_of_other_samples_is_refused(tmp_path, kind):
    five = np.dstack([RGB8, RGB8[..., :2]])
    contents = {
        "int16": lambda: tiff(GREY16.astype(np.int16)),
        "uint32": lambda: tiff(GREY16.astype(np.uint32)),
        "cmyk": lambda: tiff(np.dstack([RGB8, ALPHA8]), photometric="separated"),
        "five channels": lambda: tiff(five, photometric="rgb", planarconfig="contig"),
    }
    with pytest.raises(DDFMError, match=r"a\.tif: got .* expected .*\. \w+"):
        read_bytes(tmp_path, contents[kind](), "a.tif")


# --- orientation --------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png8", "png16", "webp", "tif"])
def test_orientation_is_applied(tmp_path, kind, orientation):
    exif = PILImage.Exif()
    exif[0x0112] = orientation
    image = PILImage.fromarray(RGB8)
    if kind == "png16":
        wide = RGB8.astype(np.uint16) * 257  # Pillow's 8 bits of it are RGB8
        path = tmp_path / "a.png"
        path.write_bytes(png(wide, 2, chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))))
    elif kind == "tif":
        path = tmp_path / "a.tif"
        path.write_bytes(tiff(RGB8, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]))
    else:
        options = {"lossless": True} if kind == "webp" else {}
        path = saved(tmp_path, image, f"a.{kind.removesuffix('8')}", exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(PILImage.open(path)))
    result = read_image(path)
    np.testing.assert_array_equal(np.rint(result.data * 255).astype(np.uint8), expected)
    assert (f"EXIF orientation {orientation} applied" in result.notes) == (orientation > 1)


def test_from_pil_applies_orientation():
    exif = PILImage.Exif()
    exif[0x0112] = 6
    image = PILImage.open(io.BytesIO(encoded(RGB8, "PNG", exif=exif)))
    np.testing.assert_array_equal(levels(from_pil(image).data, 8), np.rot90(RGB8, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_from_pil_reads_every_mode(mode):
    base = PILImage.fromarray(np.dstack([RGB8, ALPHA8]))
    picture = (base if mode.endswith("A") else base.convert("RGB")).convert(mode)
    target = "L" if mode in ("1", "L", "LA") else "RGB"
    result = from_pil(picture)
    np.testing.assert_array_equal(levels(result.data, 8), np.asarray(picture.convert(target)))
    if mode.endswith("A"):
        np.testing.assert_array_equal(levels(result.alpha, 8), ALPHA8)


def test_from_pil_of_wide_and_broken_images():
    for wide in (GREY16, GREY16.astype(np.int32)):
        np.testing.assert_array_equal(levels(from_pil(PILImage.fromarray(wide)).data, 16), GREY16)
    with pytest.raises(DDFMError, match="65535"):
        from_pil(PILImage.fromarray(GREY16.astype(np.int32) * 2))
    with pytest.raises(DDFMError, match=r"picture: .*damaged"):
        from_pil(PILImage.open(io.BytesIO(encoded(RGB8, "PNG")[:-400])), "picture")


# --- what we write, others read -----------------------------------------------------------------


def rows(path):
    """The samples of a file, without our reader."""
    if path.suffix == ".tif":
        return tifffile.imread(path)
    content = path.read_bytes()
    return imagecodecs.png_decode(content) if path.suffix == ".png" else np.asarray(PILImage.open(path))


@pytest.mark.parametrize("alpha", [None, ALPHA8], ids=["opaque", "alpha"])
@pytest.mark.parametrize("array", [GREY8, RGB8], ids=["grey", "rgb"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp"])
def test_eight_bit_round_trip(tmp_path, suffix, array, alpha):
    if alpha is not None and suffix == ".bmp":
        with pytest.raises(DDFMError, match="alpha"):
            encode_image(array / 255, suffix, alpha=alpha / 255)
        return
    path = tmp_path / f"a{suffix}"
    write_image(path, array / 255, alpha=None if alpha is None else alpha / 255)
    result = read_image(path)
    np.testing.assert_array_equal(levels(result.data, 8), array)
    if alpha is not None:
        np.testing.assert_array_equal(levels(result.alpha, 8), alpha)
    if suffix != ".webp":  # which has no grey of its own
        np.testing.assert_array_equal(rows(path), array if alpha is None else np.dstack([array, alpha]))


@pytest.mark.parametrize("alpha", [None, ALPHA16], ids=["opaque", "alpha"])
@pytest.mark.parametrize("array", [GREY16, RGB16], ids=["grey", "rgb"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_round_trip(tmp_path, suffix, array, alpha):
    path = tmp_path / f"a{suffix}"
    data = (array / 65535).astype(np.float32)
    write_image(path, data, bit_depth=16, alpha=None if alpha is None else alpha / 65535)
    np.testing.assert_array_equal(rows(path), array if alpha is None else np.dstack([array, alpha]))
    result = read_image(path)
    np.testing.assert_array_equal(result.data, data)
    assert result.bit_depth == 16


def test_every_sixteen_bit_level_survives(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    write_image(tmp_path / "a.png", from_array(ramp).data, bit_depth=16)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()), ramp)


def test_jpeg_is_written_with_full_chroma(tmp_path):
    write_image(tmp_path / "a.jpg", RGB8 / 255)
    with PILImage.open(tmp_path / "a.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # no subsampling
        worst = np.abs(np.asarray(image).astype(int) - RGB8).max()
        best = np.asarray(PILImage.open(io.BytesIO(encoded(RGB8, "JPEG", quality=95, subsampling=0))))
        np.testing.assert_array_equal(np.asarray(image), best)
    assert worst < 40  # noise is the hardest case


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_same_bytes_twice(suffix):
    assert encode_image(RGB8 / 255, suffix) == encode_image(RGB8 / 255, suffix)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".webp"])
def test_sixteen_bits_where_they_do_not_fit(suffix):
    with pytest.raises(DDFMError, match=r"bit_depth: .*\.png"):
        encode_image(GREY8 / 255, suffix, bit_depth=16)


def test_encode_refuses():
    good = GREY8 / 255
    for data in (GREY8, good + 0.1, good - 0.1, np.where(good > 0.5, np.nan, good), good[:0], good[0]):
        with pytest.raises(DDFMError, match=r"data: got .* expected"):
            encode_image(data, ".png")
    with pytest.raises(DDFMError, match="bit_depth"):
        encode_image(good, ".png", bit_depth=12)
    with pytest.raises(DDFMError, match="alpha"):
        encode_image(good, ".png", alpha=good[1:])
    with pytest.raises(DDFMError, match=r"\.gif"):
        encode_image(good, ".gif")
    with pytest.raises(DDFMError, match="WEBP can hold"):
        encode_image(np.zeros((1, 16400)), ".webp")


# --- files that are refused ---------------------------------------------------------------------

COMPLETE = {
    "png": ("a.png", lambda: encoded(RGB8, "PNG")),
    "png16": ("a.png", lambda: png(RGB16, 2)),
    "jpeg": ("a.jpg", lambda: encoded(RGB8, "JPEG", quality=95)),
    "progressive": ("a.jpg", lambda: encoded(RGB8, "JPEG", progressive=True)),
    "bmp": ("a.bmp", lambda: encoded(RGB8, "BMP")),
    "webp": ("a.webp", lambda: encoded(RGB8, "WEBP")),
    "webp lossless": ("a.webp", lambda: encoded(RGB8, "WEBP", lossless=True)),
    "tiff by libtiff": ("a.tif", lambda: encoded(RGB8, "TIFF", compression="tiff_deflate")),
    "tiff palette": ("a.tif", lambda: encoded(PILImage.fromarray(RGB8).quantize(16), "TIFF")),
    **{f"tiff {k}": ("a.tif", lambda o=o: tiff(RGB8, photometric="rgb", **o)) for k, o in TIFFS.items()},
    "tiff16": ("a.tif", lambda: tiff(GREY16)),
}


@pytest.mark.parametrize("name, make", COMPLETE.values(), ids=COMPLETE)
def test_a_file_cut_anywhere_is_an_error_or_complete(tmp_path, capfd, name, make):
    # Some 160 lengths, dense in the header and at the end. No picture with a missing part, no other
    # exception, and nothing printed by the libraries.
    content, path = make(), tmp_path / name
    path.write_bytes(content)
    whole = read_image(path).data
    near = [n for n in range(len(content)) if n < 300 or n > len(content) - 300 or n % 7 == 0]
    readable = []
    for length in near[:: max(1, len(near) // 120)] + near[-40:]:
        path.write_bytes(content[:length])
        try:
            data = read_image(path).data
        except DDFMError as error:
            assert name in str(error)
        else:
            readable.append(length - len(content))
            np.testing.assert_array_equal(data, whole)
    # Only padding may be missing: BMP's last row, and what tifffile writes after the pixels.
    assert all(n >= -3 for n in readable) or name == "a.tif"
    assert capfd.readouterr().err == ""


def test_truncation_is_refused_whatever_pillow_is_set_to(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind, name in (("JPEG", "a.jpg"), ("BMP", "a.bmp"), ("PNG", "a.png")):
        with pytest.raises(DDFMError, match="cut short"):
            read_bytes(tmp_path, encoded(RGB8, kind)[:-500], name)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_flipped_bit_in_a_png_is_refused(tmp_path):
    for content in (encoded(RGB8, "PNG"), png(RGB16, 2)):
        damaged = bytearray(content)
        damaged[len(content) // 2] ^= 1
        with pytest.raises(DDFMError, match="checksum"):
            read_bytes(tmp_path, bytes(damaged), "a.png")


def test_tiff_without_some_tile_is_refused(tmp_path):
    content = tiff(RGB8, photometric="rgb", tile=(16, 16))
    with tifffile.TiffFile(io.BytesIO(content)) as tif:
        at = tif.pages[0].tags["TileByteCounts"].valueoffset
    holed = content[:at] + b"\0\0" + content[at + 2 :]  # the first of four tiles now has no bytes
    with pytest.raises(DDFMError, match="strip or tile"):
        read_bytes(tmp_path, holed, "a.tif")


def animation(kind, **options):
    frames = [PILImage.fromarray(np.roll(RGB8, shift, axis=0)) for shift in range(4)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_are_refused_with_their_length(tmp_path, kind):
    with pytest.raises(DDFMError, match="4 frames"):
        read_bytes(tmp_path, animation(kind), f"a.{kind.lower()}")


def test_sixteen_bit_animation_is_refused(tmp_path):
    with pytest.raises(DDFMError, match="2 frames"):
        read_bytes(tmp_path, png(RGB16, 2, chunk(b"acTL", struct.pack(">II", 2, 0))), "a.png")


def test_still_gif_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(DDFMError, match=r"GIF.*Convert"):
        read_bytes(tmp_path, encoded(GREY8, "GIF"), "a.gif")


def test_pages_are_refused_with_their_number(tmp_path):
    with pytest.raises(DDFMError, match="3 pages"):
        read_bytes(tmp_path, tiff(np.stack([GREY8] * 3), photometric="minisblack"), "a.tif")


def test_a_thumbnail_is_not_a_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(RGB16, photometric="rgb", metadata=None)
        writer.write(RGB16[::4, ::4], photometric="rgb", metadata=None, subfiletype=1)
    np.testing.assert_array_equal(levels(read_image(tmp_path / "a.tif").data, 16), RGB16)


def test_missing_empty_folder_text_and_suffix(tmp_path):
    with pytest.raises(DDFMError, match=r"none\.png: .*[Nn]o such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DDFMError, match=r"[Dd]irectory|folder"):
        read_image(tmp_path)
    with pytest.raises(DDFMError, match="empty"):
        read_bytes(tmp_path, b"", "a.png")
    with pytest.raises(DDFMError, match=r"a\.png: got content that begins with b'hello th'"):
        read_bytes(tmp_path, b"hello there, this is text", "a.png")
    with pytest.raises(DDFMError, match=r"suffix '\.dat'"):
        read_bytes(tmp_path, encoded(RGB8, "PNG"), "a.dat")


def test_content_decides_and_the_note_tells(tmp_path):
    image = read_bytes(tmp_path, encoded(RGB8, "JPEG"), "a.png")
    assert image.format == "JPEG" and image.notes == ("suffix .png, but the content is JPEG",)
    assert read_bytes(tmp_path, encoded(RGB8, "JPEG"), "a.jpeg").notes == ()


@pytest.mark.parametrize("kind", ["PNG", "PNG16", "JPEG", "BMP", "WEBP", "TIFF"])
def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(raster, "MAX_PIXELS", H * W - 1)
    content = png(RGB16, 2) if kind == "PNG16" else encoded(RGB8, kind)
    with pytest.raises(DDFMError, match=f"{H} x {W} pixels, expected at most"):
        read_bytes(tmp_path, content, f"a.{kind.lower().replace('jpeg', 'jpg').replace('16', '')}")


@pytest.mark.parametrize("size", [(10_000, 10_000), (14_000, 14_000), (0, 5)])
def test_sizes_that_pillow_warns_of(tmp_path, size):
    # A header alone: 100 megapixels make Pillow warn and 196 make it raise; here a warning is an error.
    header = struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, *size, 1, 24, *[0] * 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DDFMError, match=r"a\.bmp"):
            read_bytes(tmp_path, header, "a.bmp")


def header_only(kind, side):
    """A file that announces side x side pixels and holds none."""
    if kind == "png":
        ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 4, side), (279, 4, side * side)]
    body = b"".join(struct.pack("<HHII", code, form, 1, value) for code, form, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + body + bytes(4)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_hundred_megapixels_may_be_read_and_an_absurd_size_may_not(tmp_path, kind):
    """The first is refused for its missing pixels only, the second before anything is decoded."""
    with pytest.raises(DDFMError) as allowed:
        read_bytes(tmp_path, header_only(kind, 10_000), f"a.{kind}")
    assert "cannot be decoded" in str(allowed.value)
    with pytest.raises(DDFMError, match=f"20000 x 20000 pixels, expected at most {raster.MAX_PIXELS}"):
        read_bytes(tmp_path, header_only(kind, 20_000), f"b.{kind}")


def test_zero_size_png(tmp_path):
    with pytest.raises(DDFMError, match="0 x 5 pixels"):
        read_bytes(tmp_path, png(np.zeros((0, 5)), 0), "a.png")


# --- arrays, folders, checksums -----------------------------------------------------------------


def test_from_array():
    np.testing.assert_array_equal(levels(from_array(RGB16).data, 16), RGB16)
    assert from_array(RGB8).bit_depth == 8
    assert from_array(GREY8[..., None]).data.shape == (H, W)
    np.testing.assert_array_equal(levels(from_array(np.dstack([RGB8, ALPHA8])).alpha, 8), ALPHA8)
    assert from_array(RNG.random((4, 5))).data.dtype == np.float32


@pytest.mark.parametrize(
    "array, message",
    [
        (np.ones((4, 4)) * 255, r"\[255, 255\]"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), np.inf), "infinite"),
        (np.ones((4, 4), bool), "bool"),
        (np.ones((4, 4), np.int64), "int64"),
        (np.ones((4, 4), np.int16), "int16"),
        (np.ones((3, 8, 9)), "transpose"),
        (np.ones(4), "shape"),
        (np.ones((0, 4)), "empty"),
    ],
)
def test_from_array_refuses(array, message):
    with pytest.raises(DDFMError, match=f"thermal: .*{message}"):
        from_array(array, "thermal")


def test_list_images(tmp_path):
    for name in ("b.png", "a.TIF", ".hidden.png", "notes.txt", "c.jpeg", ".a.png.1.x.part"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a.TIF", "b.png", "c.jpeg"]
    for wrong in (tmp_path / "none", tmp_path / "b.png"):
        with pytest.raises(DDFMError, match="folder"):
            list_images(wrong)


def test_file_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, example B.1
    assert ddfm.io.file_sha256(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert ddfm.io.file_sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DDFMError, match="none"):
        ddfm.io.file_sha256(tmp_path / "none")


def test_the_import_is_cheap():
    code = "import sys, ddfm.io; print({'numpy', 'PIL', 'tifffile', 'imagecodecs', 'torch'} & set(sys.modules))"
    source = Path(ddfm.io.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert out.stdout.strip() == "set()"


# --- writing whole or not at all ----------------------------------------------------------------


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_file_that_exists_stays(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(DDFMError, match=r"a\.png: got a file that exists"):
        write_image(path, GREY8 / 255)
    assert path.read_bytes() == b"mine"
    write_image(path, GREY8 / 255, overwrite=True)
    np.testing.assert_array_equal(levels(read_image(path).data, 8), GREY8)
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_file_that_appears_meanwhile_stays(tmp_path, monkeypatch, links):
    path = tmp_path / "a.png"
    original, link = os.fsync, os.link

    def fsync(descriptor):
        path.write_bytes(b"theirs")
        original(descriptor)

    def no_link(*_):
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link if links else no_link)
    with pytest.raises(DDFMError, match="exists"):
        write_image(path, GREY8 / 255)
    assert path.read_bytes() == b"theirs" and names(tmp_path) == ["a.png"]


def test_without_hard_links(tmp_path, monkeypatch):
    def no_link(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "link", no_link)
    write_image(tmp_path / "a.png", GREY8 / 255)
    np.testing.assert_array_equal(levels(read_image(tmp_path / "a.png").data, 8), GREY8)
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_nothing_is_left_when_the_writing_stops(tmp_path, monkeypatch, stop, overwrite):
    def fsync(_):
        assert len(names(tmp_path)) == 1 + overwrite  # the temporary file is there
        raise stop

    if overwrite:
        (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    expected = KeyboardInterrupt if isinstance(stop, KeyboardInterrupt) else DDFMError
    with pytest.raises(expected) as caught:
        write_image(tmp_path / "a.png", GREY8 / 255, overwrite=overwrite)
    assert names(tmp_path) == (["a.png"] if overwrite else [])
    if overwrite:
        assert (tmp_path / "a.png").read_bytes() == b"old"
    if expected is DDFMError:
        assert "a.png" in str(caught.value) and "Free some space" in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_really_full(tmp_path, monkeypatch):
    original = Path.open

    def full(self, mode="r", *rest, **options):
        return original(Path("/dev/full"), "wb") if mode == "xb" else original(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DDFMError, match=r"a\.png: got No space left.*Free some space"):
        write_image(tmp_path / "a.png", GREY8 / 255)
    assert names(tmp_path) == []


def test_targets_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DDFMError, match="folder must exist"):
        write_image(tmp_path / "none" / "a.png", GREY8 / 255)
    with pytest.raises(DDFMError, match="where a folder should"):
        write_bytes(tmp_path / "file" / "a.png", b"")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(DDFMError, match="a folder"):
        write_image(tmp_path / "b.png", GREY8 / 255, overwrite=True)
    with pytest.raises(DDFMError, match="shorter name"):
        write_bytes(tmp_path / ("a" * 300), b"", overwrite=True)


def test_a_long_name_leaves_room_for_the_temporary_one(tmp_path):
    path = tmp_path / ("é" * 120 + ".png")  # 244 bytes; 255 is the limit
    write_image(path, GREY8 / 255)
    assert names(tmp_path) == [path.name]


def test_ctrl_c_waits_until_a_file_is_whole():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("first")
        signal.raise_signal(signal.SIGINT)
        done.append("second")
    assert done == ["first", "second"]
    with pytest.raises(KeyboardInterrupt):  # as before
        signal.raise_signal(signal.SIGINT)
    with uninterrupted():
        pass
