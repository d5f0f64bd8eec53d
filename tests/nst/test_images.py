"""Photographs as people have them, to tensors; tensors to equal bytes."""

from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from nst.errors import DecodeError, ImageTooLarge, OptionError
from nst.images.codec import (
    BitDepth,
    ImageFormat,
    check_sides,
    decode_image,
    decode_photo,
    encode_image,
    is_finite,
    picture_of,
    picture_tensor,
    resize_image,
)
from nst.images.color import srgb_profile
from nst.images.decode import scaled_size
from nst.stylizer import mean_change
from tests.charts import read_png_16
from tests.conftest import encoded, picture


def png(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "PNG", **options)


def tifffile_bytes(levels: npt.NDArray[np.uint8], **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, levels, photometric="rgb", **options)
    return out.getvalue()


def test_values_and_layout() -> None:
    levels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
    tensor = decode_image(png(Image.fromarray(levels)))
    assert tensor.dtype == torch.float32
    assert tensor.shape == (3, 2, 3)
    torch.testing.assert_close(tensor[1, 0, 2], torch.tensor(levels[0, 2, 1] / 255, dtype=torch.float32))


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_a_few_rows_at_a_time_give_the_same_file(bit_depth: BitDepth, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(3, 50, 20, generator=torch.Generator().manual_seed(0))
    whole = encode_image(image, format="png", bit_depth=bit_depth)
    changed = mean_change(image, image.flip(0))
    assert changed == pytest.approx(float((image - image.flip(0)).abs().mean()))
    monkeypatch.setattr("nst.stylizer._BAND_PIXELS", 17 * 20)
    assert encode_image(image, format="png", bit_depth=bit_depth) == whole
    assert torch.equal(decode_image(whole), (255 * image).round() / 255) or bit_depth == 16
    assert mean_change(image, image.flip(0)) == pytest.approx(changed)


@pytest.mark.parametrize(
    ("format", "bit_depth", "alpha"),
    [
        ("jpeg", 8, False),
        ("png", 8, True),
        ("png", 16, True),
        ("webp", 8, True),
        ("tiff", 8, False),
        ("tiff", 16, True),
    ],
)
def test_levels_are_encoded_as_what_they_stand_for(
    format: ImageFormat, bit_depth: BitDepth, alpha: bool
) -> None:
    random = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (3, 50, 20), generator=random, dtype=torch.uint8)
    options: dict[str, Any] = {"format": format, "bit_depth": bit_depth}
    for size in ((25, 10), (50, 20)) if alpha else ():
        opacity = torch.randint(256, size, generator=random, dtype=torch.uint8)
        found = encode_image(levels, alpha=opacity, **options)
        assert found == encode_image(levels / 255, alpha=opacity / 255, **options)
    assert encode_image(levels, **options) == encode_image(levels / 255, **options)
    assert torch.equal(picture_tensor(picture_of(levels)), levels / 255)


def test_a_plain_photograph_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that needs nothing, Pillow holds its pixels once."""
    data, expected = (
        encoded(picture(0), "JPEG", quality=95),
        decode_image(encoded(picture(0), "JPEG", quality=95)),
    )

    def copied(*_: Any, **__: Any) -> None:
        raise AssertionError("it is copied")

    monkeypatch.setattr("nst.stylizer._BAND_PIXELS", 1)  # or else all rows at once are a copy
    monkeypatch.setattr("PIL.Image.Image.copy", copied)
    assert torch.equal(decode_image(data), expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_found(value: float) -> None:
    image = torch.rand(3, 9, 8)
    assert is_finite(image)
    image[1, 4, 5] = value
    assert not is_finite(image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(orientation: int) -> None:
    """A picture with a mark in its upper left, stored as a camera held each of eight ways stores it."""
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:8, :8] = (255, 0, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif.tobytes())
    tensor = decode_image(data)
    assert tensor.shape == (3, 32, 48)
    assert torch.equal(tensor, torch.from_numpy(upright.transpose(2, 0, 1).copy()).float() / 255)


@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF", "TIFF by libtiff", "BMP"])
@pytest.mark.parametrize(
    ("format", "bit_depth"), [("jpeg", 8), ("png", 8), ("png", 16), ("tiff", 8), ("tiff", 16)]
)
def test_resolution_is_kept(source: str, format: ImageFormat, bit_depth: BitDepth) -> None:
    options = {"compression": "jpeg"} if source == "TIFF by libtiff" else {}
    data = encoded(picture(0, 40, 20), source.split()[0], dpi=(300, 150), **options)
    photo = decode_photo(data, max_side_px=10)
    again = encode_image(photo.image, format=format, bit_depth=bit_depth, dpi=photo.dpi)
    across, down = Image.open(io.BytesIO(again)).info["dpi"]
    assert (round(across), round(down)) == (300, 150)
    assert Image.open(io.BytesIO(encode_image(photo.image, format=format))).info.get("dpi") in (None, (1, 1))


def test_resolution_is_that_of_the_upright_picture_and_only_if_it_can_be() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_photo(encoded(picture(0), "TIFF", dpi=(300, 150), exif=exif)).dpi == (150, 300)
    assert decode_photo(encoded(picture(0), "PNG")).dpi is None
    metric = tifffile_bytes(np.zeros((8, 8, 3), np.uint8), resolution=(100, 100), resolutionunit="CENTIMETER")
    assert decode_photo(metric).dpi == pytest.approx((254, 254))
    for dpi in ((0, 0), (1e6, 1e6)):
        assert decode_photo(encoded(picture(0), "PNG", dpi=dpi)).dpi is None


def test_transparency_is_composited_over_the_background() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    assert decode_image(png(image))[:, 0, 1].tolist() == [1, 1, 1]
    assert decode_image(png(image), background=(0, 0, 1))[:, 0].T.tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    gray = Image.fromarray(np.full((4, 6), 128, dtype=np.uint8))
    if mode == "I;16":
        data = encoded(Image.fromarray(np.full((4, 6), 128 * 257, dtype=np.uint16)), "PNG")
    elif mode == "1":
        data = png(gray.point(lambda value: 255 * (value > 100)).convert("1"))
    elif mode == "CMYK":
        data = encoded(gray.convert("CMYK"), "TIFF")
    else:
        data = png(gray.convert(mode))
    tensor = decode_image(data)
    assert tensor.shape == (3, 4, 6)
    expected = 1.0 if mode == "1" else 128 / 255
    assert float((tensor - expected).abs().max()) < 2.5 / 255


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    """A color in Display-P3-like primaries means another color in sRGB: more saturated."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    plain = Image.new("RGB", (4, 4), (60, 180, 90))
    linear = _rgb_profile(gamma=1.0)
    tagged = decode_image(png(plain, icc_profile=linear))
    # A linear value v becomes the sRGB curve of v.
    value = np.array([60, 180, 90]) / 255
    expected = np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
    assert np.abs(tagged[:, 0, 0].numpy() - expected).max() < 3 / 255
    unreadable = decode_image(png(plain, icc_profile=b"no profile at all"))
    assert torch.equal(unreadable, decode_image(png(plain)))
    assert profile is not None


def _rgb_profile(gamma: float) -> bytes:
    """A minimal ICC v2 display profile with sRGB's primaries and a pure gamma."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(x: float, y: float, z: float) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(x) + fixed(y) + fixed(z)

    curve = b"curv\0\0\0\0" + struct.pack(">I", 1) + struct.pack(">H", round(gamma * 256)) + b"\0\0"
    text = b"text\0\0\0\0test\0\0\0\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 79
    tags = [
        (b"desc", description),
        (b"cprt", text),
        (b"wtpt", xyz(0.9642, 1.0, 0.8249)),
        (b"rXYZ", xyz(0.4361, 0.2225, 0.0139)),
        (b"gXYZ", xyz(0.3851, 0.7169, 0.0971)),
        (b"bXYZ", xyz(0.1431, 0.0606, 0.7139)),
        (b"rTRC", curve),
        (b"gTRC", curve),
        (b"bTRC", curve),
    ]
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags:
        value += b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", offset + len(body), len(value))
        body += value
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + fixed(0.9642) + fixed(1.0) + fixed(0.8249) + b"\0" * 48
    return header + struct.pack(">I", len(tags)) + table + body


def test_shrinks_and_never_enlarges() -> None:
    data = encoded(picture(1, 100, 60))
    assert decode_image(data, max_side_px=50).shape == (3, 30, 50)
    assert decode_image(data, max_side_px=500).shape == (3, 60, 100)
    assert scaled_size(8, 30_000, 512) == (1, 512)


def test_shrinking_while_decoding_is_as_good_as_after() -> None:
    photo = picture(2, 1600, 1200)
    quick = decode_image(encoded(photo, quality=95), max_side_px=200)
    exact = decode_image(png(photo), max_side_px=200)
    assert float((quick - exact).abs().mean()) < 1.5 / 255


def test_a_bomb_is_refused_from_its_header() -> None:
    """A PNG of 60,000 x 60,000 pixels in some kilobytes; decoding it would take 10 GB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6)))
    began = time.thread_time()
    with pytest.raises(ImageTooLarge, match=r"60000 x 60000|exceeds limit"):
        decode_image(data + chunk(b"IEND", b""))
    assert time.thread_time() - began < 0.5
    with pytest.raises(ImageTooLarge, match="100 x 60"):
        decode_image(encoded(picture(1, 100, 60)), max_pixels=5999)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes"),
        (b"this is a shopping list", "text"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (bytes(range(256)), "first bytes"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text"),
    ],
)
def test_what_is_no_picture_says_what_it_looks_like(data: bytes, said: str) -> None:
    with pytest.raises(DecodeError, match=said):
        decode_image(data)


def test_truncated_pictures_are_damaged() -> None:
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        data = encoded(picture(3, 200, 150), format)
        with pytest.raises(DecodeError, match=r"damaged|known format"):
            decode_image(data[: len(data) * 2 // 3])


def test_wrong_extension_does_not_matter_and_first_frame_counts() -> None:
    frames = [picture(seed, 20, 10) for seed in (1, 2)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    first = decode_image(encoded(frames[0], "GIF"))
    assert torch.equal(decode_image(out.getvalue()), first)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "tiff"])
def test_encoding_is_a_function_of_the_picture(format: str) -> None:
    tensor = decode_image(png(picture(5)))
    first, second = encode_image(tensor, format=format), encode_image(tensor.clone(), format=format)  # type: ignore[arg-type]
    assert first == second
    assert float((decode_image(first) - tensor).abs().mean()) < 3 / 255


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_lossless_round_trip_is_exact(format: ImageFormat) -> None:
    tensor = decode_image(png(picture(6)))
    assert torch.equal(decode_image(encode_image(tensor, format=format)), tensor)
    out_of_range = torch.tensor([-0.5, 0.5, 1.5]).view(3, 1, 1)
    assert decode_image(encode_image(out_of_range, format=format))[:, 0, 0].tolist() == pytest.approx(
        [0, 128 / 255, 1]
    )


def read_tiff(data: bytes) -> tuple[npt.NDArray[np.generic], bytes]:
    """Levels (H, W, C) and ICC profile, by a reader that is not Pillow's."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        (page,) = file.pages
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.extrasamples == ((tifffile.EXTRASAMPLE.UNASSALPHA,) if page.samplesperpixel == 4 else ())
        return page.asarray(), page.tags["InterColorProfile"].value


@pytest.mark.parametrize("size", [(1, 1), (2, 65536), (300, 217)], ids=str)
@pytest.mark.parametrize("alpha", [False, True])
def test_sixteen_bits_come_back_exactly(size: tuple[int, int], alpha: bool) -> None:
    """Every level there is, smooth and noisy; in several strips, and in rows that fit either filter."""
    height, width = size
    random = np.random.default_rng(height)
    levels = random.integers(0, 65536, (height, width, 3 + alpha), dtype=np.uint16)
    levels[: height // 2] = (np.arange(width, dtype=np.uint32) * 65535 // max(1, width - 1))[:, None]
    planes = torch.from_numpy(levels.astype(np.float32) / 65535).permute(2, 0, 1)
    more = {"alpha": planes[3]} if alpha else {}

    found, chunks = read_png_16(encode_image(planes[:3], format="png", bit_depth=16, **more))
    assert found.dtype == np.uint16
    assert np.array_equal(found, levels)
    name, _, profile = chunks[b"iCCP"].partition(b"\0")
    assert (name, zlib.decompress(profile[1:])) == (b"sRGB", srgb_profile())

    found, profile = read_tiff(encode_image(planes[:3], format="tiff", bit_depth=16, **more))
    assert found.dtype == np.uint16
    assert np.array_equal(found, levels)
    assert profile == srgb_profile()

    found, profile = read_tiff(encode_image(planes[:3], format="tiff", **more))
    assert found.dtype == np.uint8
    assert np.array_equal(found, (planes.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8))
    assert profile == srgb_profile()


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_sixteen_bits_are_read_by_others_and_by_us(format: ImageFormat) -> None:
    tensor = decode_image(png(picture(6)))  # of 8 bits, which 257 times as many levels hold exactly
    first, second = (encode_image(each, format=format, bit_depth=16) for each in (tensor, tensor.clone()))
    assert first == second
    assert torch.equal(decode_image(first), tensor)
    assert Image.open(io.BytesIO(first)).info["icc_profile"] == srgb_profile()
    photo = decode_photo(encode_image(tensor, format=format, bit_depth=16, alpha=tensor[0]), alpha="keep")
    assert photo.opacity is not None
    assert photo.opacity.dtype == torch.uint8, "a quarter of the memory"
    assert photo.alpha is not None
    assert torch.equal(photo.alpha, tensor[0])


def test_finer_than_eight_bits() -> None:
    """A gradient within one level of 8 bits, which is what 16 are for."""
    image = torch.linspace(0.5, 0.5 + 1 / 255, 200).expand(3, 2, 200)
    levels, _ = read_png_16(encode_image(image, format="png", bit_depth=16))
    assert len(np.unique(levels)) == 200
    assert np.abs(levels / 65535 - image.permute(1, 2, 0).numpy()).max() <= 0.51 / 65535


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_formats_without_sixteen_bits_say_so(format: ImageFormat) -> None:
    with pytest.raises(OptionError, match=f"format = '{format}': cannot have 16 bits.*png, tiff"):
        encode_image(torch.zeros(3, 2, 2), format=format, bit_depth=16)
    with pytest.raises(OptionError, match=r"bit_depth = 12.*8, 16"):
        encode_image(torch.zeros(3, 2, 2), format=format, bit_depth=12)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format", "side", "choices"),
    [
        ("jpeg", 65_501, "png, avif, tiff"),
        ("webp", 16_384, "jpeg, png, avif, tiff"),
        ("avif", 65_537, "png, tiff"),
    ],
)
def test_what_is_too_long_for_a_format_says_so(format: ImageFormat, side: int, choices: str) -> None:
    for shape, size in (((3, 1, side), f"{side} x 1"), ((3, side, 1), f"1 x {side}")):
        said = f"format = '{format}': cannot have {size} pixels.*{choices}"
        with pytest.raises(OptionError, match=said):
            encode_image(torch.zeros(shape, dtype=torch.uint8), format=format)
        with pytest.raises(OptionError, match=said):
            check_sides(format, torch.zeros(shape))
    assert encode_image(torch.zeros(3, 1, side - 1, dtype=torch.uint8), format=format)


def test_refuses_to_encode_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match="finite"):
        encode_image(torch.full((3, 2, 2), float("nan")))
    with pytest.raises(ValueError, match=r"\(1, 2, 2\)"):
        encode_image(torch.zeros(1, 2, 2))
    with pytest.raises(OptionError, match="jpeg, png, webp, avif, tiff"):
        encode_image(torch.zeros(3, 2, 2), format="jpg")  # type: ignore[arg-type]


def test_resize_keeps_constants_and_shapes() -> None:
    image = torch.full((3, 20, 30), 0.4)
    assert resize_image(image, (7, 9)).shape == (3, 7, 9)
    torch.testing.assert_close(resize_image(image, (7, 9)), torch.full((3, 7, 9), 0.4))
    assert resize_image(image, (20, 30)) is image
