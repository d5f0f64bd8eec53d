"""TIFFs of every layout: each comes out right to 1/255, or is refused by the layout's name."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

from nst.errors import DecodeError, ImageTooLarge
from nst.images.decode import open_photo, read_photo
from tests import charts
from tests.tiffs import Page, tiff

HEIGHT, WIDTH = 37, 53
DTYPES = {1: "u1", 2: "u1", 4: "u1", 8: "u1", 12: "u2", 16: "u2", 32: "u4"}


def amounts(samples: int) -> NDArray[np.float64]:
    """(H, W, samples) in [0, 1]: another gradient for each, with black, white, and some noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / np.array([HEIGHT - 1, WIDTH - 1])[:, None, None]
    noise = np.random.default_rng(samples).uniform(-0.1, 0.1, (HEIGHT, WIDTH, samples))
    gradients = [x, y, 1 - x, (x + y) / 2, x * y, 1 - y]
    return np.clip(np.stack(gradients[:samples], axis=2) + noise, 0, 1)


def whole(values: NDArray[np.float64], bits: int) -> NDArray[Any]:
    return np.round(values * (2**bits - 1)).astype(DTYPES[bits])


def rgb(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


Case = tuple[Page, NDArray[np.float64]]
"""A page, and what it must look like: (H, W, 3) in [0, 1]."""


def gray(bits: int, photometric: int = 1, **more: Any) -> Case:
    samples = whole(amounts(1), bits)
    shown = rgb(samples / (2.0**bits - 1))
    return Page(samples, photometric, bits, **more), shown if photometric == 1 else 1 - shown


def color(bits: int, **more: Any) -> Case:
    samples = whole(amounts(3), bits)
    return Page(samples, 2, bits, **more), samples / (2.0**bits - 1)


def floats(dtype: str, channels: int, photometric: int, **more: Any) -> Case:
    samples = amounts(channels).astype(dtype)
    shown = rgb(samples.astype(np.float64))
    return Page(samples, photometric, 8 * samples.itemsize, **more), shown if photometric else 1 - shown


def with_alpha(bits: int, channels: int, extra: int, **more: Any) -> Case:
    """Over white."""
    values = amounts(channels + 1)
    alpha = np.where(values[..., -1:] < 0.1, 0, values[..., -1:])
    colors = values[..., :-1]
    stored = np.concatenate([colors * alpha if extra == 1 else colors, alpha], axis=2)
    samples = stored.astype(f"f{bits // 8}") if more.pop("floats", False) else whole(stored, bits)
    held = samples / (1.0 if samples.dtype.kind == "f" else 2.0**bits - 1)
    colors, alpha = held[..., :-1], np.round(255 * held[..., -1:]) / 255  # is multiplied at 8 bits
    if extra == 1:
        straight = np.divide(colors, held[..., -1:], out=np.zeros_like(colors), where=held[..., -1:] > 0)
        colors = np.round(255 * straight.clip(0, 1)) / 255
    shown = colors * alpha + 1 - alpha
    more["tags"] = {338: extra, **more.get("tags", {})}
    return Page(samples, 2 if channels == 3 else 1, bits, **more), rgb(shown if extra else colors)


def palette(bits: int, **more: Any) -> Case:
    table = np.random.default_rng(1).integers(0, 256, (3, 2**bits)) * 257
    samples = whole(amounts(1), bits)
    page = Page(samples, 3, bits, tags={320: [int(each) for each in table.ravel()]}, **more)
    return page, table.T[samples[..., 0]] / 65535


def cmyk(bits: int, **more: Any) -> Case:
    samples = whole(amounts(4), bits)
    ink = np.round(255 * (samples / (2.0**bits - 1))) / 255  # is multiplied at 8 bits
    return Page(samples, 5, bits, **more), (1 - ink[..., :3]) * (1 - ink[..., 3:])


def ycbcr(subsampling: tuple[int, int] = (1, 1), footroom: bool = False, **more: Any) -> Case:
    """TIFF 6.0, 20 and 21: full range, or the range of video."""
    across, down = subsampling
    light = np.random.default_rng(3).integers(40, 200, (HEIGHT, WIDTH))
    small = np.random.default_rng(4).integers(112, 144, (-(-HEIGHT // down), -(-WIDTH // across), 2))
    full = small.repeat(down, axis=0).repeat(across, axis=1)[:HEIGHT, :WIDTH]
    y, cb, cr = (light, full[..., 0] - 128, full[..., 1] - 128)
    tags: dict[int, Any] = {530: [across, down]}
    if footroom:
        tags[532] = [16.0, 235.0, 128.0, 240.0, 128.0, 240.0]
        y, cb, cr = ((y - 16) * 255 / 219, cb * 127 / 112, cr * 127 / 112)
    red, blue = y + 1.402 * cr, y + 1.772 * cb
    shown = np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], axis=2) / 255
    samples = np.concatenate([light[..., None], full], axis=2).astype(np.uint8)
    if subsampling != (1, 1):
        padded = np.pad(light, ((0, -HEIGHT % down), (0, -WIDTH % across)))
        units = padded.reshape(len(small), down, -1, across).swapaxes(1, 2).reshape(*small.shape[:2], -1)
        data = np.concatenate([units, small], axis=2).astype(np.uint8)
        rows = 16 // down
        more["segments"] = tuple(data[top : top + rows].tobytes() for top in range(0, len(data), rows))
    return Page(samples, 6, tags=tags, **more), np.clip(shown, 0, 1)


def lab(bits: int, photometric: int, **more: Any) -> Case:
    colors = 0.1 + 0.8 * amounts(3)
    light = charts.srgb_to_light(colors) @ charts.to_xyz(charts.SRGB_XY).T
    values = charts.xyz_to_lab(light @ charts.adaptation(charts._xyz(charts.D65_XY), charts.D50).T)
    scale = 2 ** (bits - 8)
    white = 2**bits - 1 if photometric == 8 else 255 * scale
    stored = np.round(
        values * (white / 100, scale, scale) + (0, *(2 * (0 if photometric == 8 else 128 * scale,)))
    )
    samples = stored.astype(np.int64).astype(DTYPES[bits])
    exact = stored - (0, *(2 * (0 if photometric == 8 else 128 * scale,)))
    again = exact / (white / 100, scale, scale)
    fy = (again[..., 0] + 16) / 116
    f = np.stack([fy + again[..., 1] / 500, fy, fy - again[..., 2] / 200], axis=2)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * charts.D50
    return Page(samples, photometric, bits, **more), np.clip(charts.xyz_d50_to_srgb(xyz) / 255, 0, 1)


LAYOUTS: dict[str, dict[str, Any]] = {
    "strips": {},
    "one strip": {"rows_per_strip": HEIGHT},
    "tiles": {"tile": (16, 32)},
    "lzw": {"compression": "lzw"},
    "deflate, tiles": {"compression": "deflate", "tile": (32, 16)},
    "packbits": {"compression": "packbits"},
}


def cases() -> Iterator[tuple[str, Case]]:
    for layout, more in LAYOUTS.items():
        for bits in (1, 2, 4, 8, 12, 16, 32):
            yield f"gray {bits}, {layout}", gray(bits, **more)
            yield f"white is zero {bits}, {layout}", gray(bits, 0, **more)
        for bits in (1, 2, 4, 8):
            yield f"palette {bits}, {layout}", palette(bits, **more)
        for planar in (False, True):
            both = {**more, "planar": planar}
            name = f"{layout}{', planes' if planar else ''}"
            for bits in (4, 8, 12, 16, 32):
                yield f"RGB {bits}, {name}", color(bits, **both)
            for bits, extra in itertools.product((8, 16), (0, 1, 2)):
                yield f"RGB {bits}, extra {extra}, {name}", with_alpha(bits, 3, extra, **both)
            for dtype in ("f2", "f4", "f8"):
                yield f"RGB {dtype}, {name}", floats(dtype, 3, 2, **both)
            yield f"CMYK 8, {name}", cmyk(8, **both)
            yield f"CMYK 16, {name}", cmyk(16, **both)
            yield f"YCbCr, {name}", ycbcr(**both)
            for bits, photometric in itertools.product((8, 16), (8, 9)):
                yield f"LAB {photometric} {bits}, {name}", lab(bits, photometric, **both)
        for extra in (0, 1, 2):
            yield f"gray 8, extra {extra}, {layout}", with_alpha(8, 1, extra, **more)
            yield f"gray 16, extra {extra}, {layout}", with_alpha(16, 1, extra, **more)
        yield f"float gray, {layout}", floats("f4", 1, 1, **more)
        yield f"float white is zero, {layout}", floats("f4", 1, 0, **more)
        yield f"float alpha multiplied in, {layout}", with_alpha(32, 3, 1, floats=True, **more)
    for how, tile in itertools.product(("lzw", "deflate"), (None, (16, 32))):
        name = f"{how}{', tiles' if tile else ''}"
        both = {"compression": how, "tile": tile}
        for planar in (False, True):
            for bits in (8, 16, 32):
                at = f"predictor 2, RGB {bits}, {name}{', planes' if planar else ''}"
                yield at, color(bits, predictor=2, planar=planar, **both)
            for dtype in ("f2", "f4", "f8"):
                at = f"predictor 3, RGB {dtype}, {name}{', planes' if planar else ''}"
                yield at, floats(dtype, 3, 2, predictor=3, planar=planar, **both)
        yield f"predictor 2, float, {name}", floats("f4", 3, 2, predictor=2, **both)
        yield f"predictor 2, gray 16, {name}", gray(16, predictor=2, **both)
    for across, down in itertools.product((1, 2, 4), (1, 2, 4)):
        yield f"YCbCr {across} x {down}", ycbcr((across, down))
    yield "YCbCr of video's range", ycbcr(footroom=True)
    yield "YCbCr 2 x 2 of video's range", ycbcr((2, 2), footroom=True)
    for bits in (1, 8, 16):
        yield f"lowest bit first, {bits}", gray(bits, tags={266: 2})
        yield f"lowest bit first, lzw, {bits}", gray(bits, tags={266: 2}, compression="lzw")
    yield (
        "RGBA that forgets to say so",
        (lambda case: (replace(case[0], tags={}), case[1]))(with_alpha(8, 3, 2)),
    )
    yield "zstd", color(16, compression="zstd")
    yield "lzma", color(16, compression="lzma")


CASES = dict(cases())


KINDS = sorted({name.split(",")[0] for name in CASES})


@pytest.mark.parametrize("kind", KINDS)
def test_is_right_to_one_level(kind: str) -> None:
    """Both orders of bytes; as BigTIFF those in strips."""
    for name, (page, expected) in CASES.items():
        if name.split(",")[0] == kind:
            forms = [("<", False), (">", False), *([] if page.tile else [("<", True), (">", True)])]
            for order, big in forms:
                found = np.asarray(open_photo(tiff(page, order=order, big=big))) / 255.0
                assert found.shape == expected.shape
                assert np.abs(found - expected).max() < 1.01 / 255, f"{name} {order} {big}"


def test_tifffile_reads_the_same_samples() -> None:
    """That the cases are what they say, by the reference: all that it reads without a library of codecs."""
    read = 0
    for name, (page, _) in CASES.items():
        if page.segments is not None or page.photometric == 3:
            continue  # the first is not decoded by tifffile, the second is mapped to colors
        try:
            with tifffile.TiffFile(io.BytesIO(tiff(page))) as file:
                levels = file.pages[0].asarray()
        except (ValueError, KeyError, RuntimeError, NotImplementedError, ImportError):  # needs its codecs
            continue
        if page.photometric == 8 or levels.dtype == bool:
            levels = levels.astype(page.samples.dtype)
        expected = page.samples.transpose(2, 0, 1) if page.planar else page.samples
        assert np.array_equal(levels, np.squeeze(expected)), name
        read += 1
    assert read > 100


def test_all_of_the_table() -> None:
    assert len(CASES) >= 490


def refusals() -> Iterator[tuple[str, Page, str]]:
    page = color(8)[0]
    for dtype in ("i1", "i2", "i4"):
        samples = np.zeros((HEIGHT, WIDTH, 1), dtype)
        yield (
            f"signed {dtype}",
            Page(samples, 1, 8 * samples.itemsize),
            r"gray, 1 x \d+ bits \(signed integers\)",
        )
    hdr = np.full((HEIGHT, WIDTH, 3), 1.5, "f4")
    yield "floats beyond white", Page(hdr, 2, 32), r"RGB, 3 x 32 bits \(floats\).*no agreed white"
    yield "not a number", Page(hdr * np.float32("nan"), 2, 32), "no agreed white"
    yield "floats of a profile", Page(hdr / 2, 2, 32, tags={34675: b"x" * 200}), "color profile"
    yield "CMYK with alpha", Page(whole(amounts(5), 8), 5, 8, tags={338: 2}), "CMYK, 5 x 8 .*, with alpha"
    yield "other inks", replace(cmyk(8)[0], tags={332: 2}), "inks"
    yield "extra samples of no meaning", Page(whole(amounts(2), 8), 1, 8), "does not say what they are"
    yield "too few samples", Page(whole(amounts(2), 8), 2, 8), "does not say what they are"
    yield "different bits", replace(page, tags={258: [8, 8, 16]}), "different bits"
    yield "10 bits", replace(page, tags={258: [10, 10, 10]}), "3 x 10 bits"
    yield "differences of 12 bits", replace(color(12)[0], predictor=2), "predictor"
    yield "differences, not compressed", replace(page, predictor=2), "predictor 2"
    yield "JPEG in planes", replace(page, planar=True, tags={259: 7}), "RGB, 3 x 8 bits .*in planes, JPEG"
    yield "unknown predictor", replace(page, tags={317: 34892}), "predictor 34892"
    yield "LogLuv", replace(page, tags={262: 32845}), "LogLuv"
    yield "ITULAB", replace(page, tags={262: 10}), "ITULAB"
    yield "unknown photometric", replace(page, tags={262: 77}), "photometric interpretation 77"
    yield "JPEG 2000", replace(page, tags={259: 34712}), "JPEG 2000"
    yield "unknown compression", replace(page, tags={259: 4711}), "compression 4711"
    yield "no strips", replace(page, tags={273: None, 279: None}), "missing"
    yield "a sparse file", replace(page, tags={273: [0, 0, 0], 279: [0, 0, 0]}), "missing"
    yield (
        "huge tiles",
        replace(page, compression="deflate", tile=(16, 16), tags={322: 1 << 20}),
        "tiles of 1048576 x 16",
    )
    yield "many samples", replace(page, tags={277: 900, 258: 8, 339: 1, 338: [0] * 897}), "too many samples"
    yield "one reduced page", replace(page, tags={254: 1}), "only reduced pictures"
    yield "one mask", replace(page, tags={254: 4}), "only reduced pictures"


REFUSED = {name: (page, said) for name, page, said in refusals()}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_its_name(name: str) -> None:
    page, said = REFUSED[name]
    for order in "<>":
        with pytest.raises(DecodeError, match=said):
            open_photo(tiff(page, order=order))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_within_tiff(mode: str) -> None:
    photo = Image.fromarray(charts.chart())
    out = io.BytesIO()
    photo.convert(mode).save(out, "TIFF", compression="jpeg", quality=97)
    found = np.asarray(open_photo(out.getvalue())).astype(float)
    expected = np.asarray(photo.convert(mode).convert("RGB")).astype(float)
    assert np.abs(found - expected).mean() < 3


def test_jpeg_within_tiff_is_upright() -> None:
    photo = Image.fromarray(charts.chart())
    out = io.BytesIO()
    photo.save(out, "TIFF", compression="jpeg", quality=97, tiffinfo={274: 6})
    found = np.asarray(open_photo(out.getvalue())).astype(float)
    assert np.abs(found - np.rot90(charts.chart(), -1)).mean() < 3


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_within_tiff(compression: str) -> None:
    bits = Image.fromarray(charts.chart()[..., 0]).convert("1")
    out = io.BytesIO()
    bits.save(out, "TIFF", compression=compression)
    assert np.array_equal(np.asarray(open_photo(out.getvalue())), np.asarray(bits.convert("RGB")))


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "rgb", "planarconfig": "separate"},
        {"photometric": "rgb", "tile": (16, 32), "compression": "zlib"},
        {"photometric": "rgb", "bigtiff": True, "byteorder": ">"},
    ],
    ids=str,
)
def test_what_tifffile_writes(options: dict[str, Any]) -> None:
    samples = whole(amounts(3), 16)
    out = io.BytesIO()
    tifffile.imwrite(out, samples.transpose(2, 0, 1) if "planarconfig" in options else samples, **options)
    assert np.abs(np.asarray(open_photo(out.getvalue())) / 255 - samples / 65535).max() < 1.01 / 255


MAIN, SHOWN = color(8)
THUMBNAIL = Page(MAIN.samples[::4, ::4], 2, 8, tags={254: 1})
MOSAIC = Page(whole(amounts(1), 16), 32803, 16)


@pytest.mark.parametrize(
    ("pages", "frames"),
    [
        ([THUMBNAIL, MAIN], 1),
        ([replace(THUMBNAIL, tags={255: 2}), MAIN], 1),
        ([MAIN, THUMBNAIL, gray(8)[0]], 2),
        ([replace(THUMBNAIL, children=(MAIN,))], 1),
        ([replace(MAIN, children=(THUMBNAIL,)), replace(THUMBNAIL, tags={254: 4})], 1),
    ],
    ids=[
        "reduced first",
        "reduced first, the old way",
        "pages",
        "main within the thumbnail",
        "thumbnail within",
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_the_main_picture_is_taken(pages: list[Page], frames: int, big: bool) -> None:
    for order in "<>":
        photo = read_photo(tiff(*pages, order=order, big=big))
        assert photo.image.size == (WIDTH, HEIGHT)
        assert np.abs(np.asarray(photo.image) / 255 - SHOWN).max() < 1 / 255
        assert photo.frames == frames


def test_the_main_picture_has_its_exif_and_is_upright() -> None:
    said = {271: b"Maker\0", 274: 6}
    for page in (replace(MAIN, tags=said), replace(THUMBNAIL, tags={254: 1, **said}, children=(MAIN,))):
        for big in (False, True):
            photo = read_photo(tiff(page, order="<" if big else ">", big=big), keep_exif="basic")
            assert photo.image.size == (HEIGHT, WIDTH)
            assert np.abs(np.asarray(photo.image) / 255 - np.rot90(SHOWN, -1)).max() < 1 / 255
            again = Image.Exif()
            again.load(photo.exif)
            assert dict(again) == {Base.Make: "Maker"}


def test_the_main_picture_is_measured() -> None:
    with pytest.raises(ImageTooLarge, match=f"{WIDTH} x {HEIGHT}"):
        open_photo(tiff(THUMBNAIL, MAIN), max_pixels=WIDTH * HEIGHT - 1)


@pytest.mark.parametrize(
    "pages",
    [
        [replace(THUMBNAIL, tags={254: 1, 271: b"NIKON CORPORATION\0"}, children=(THUMBNAIL, MOSAIC))],
        [replace(MAIN, children=(MOSAIC,))],
        [MOSAIC],
        [replace(MAIN, tags={50706: [1, 4, 0, 0]})],
        [THUMBNAIL, replace(MAIN, tags={262: 34892})],
    ],
    ids=["NEF", "whole preview", "mosaic", "DNG", "linear DNG"],
)
def test_raw_files_are_refused_as_such(pages: list[Page]) -> None:
    for order in "<>":
        with pytest.raises(DecodeError, match="a RAW file of a camera"):
            open_photo(tiff(*pages, order=order))


def test_a_damaged_later_page_is_not_asked_for() -> None:
    data = bytearray(tiff(MAIN, gray(8)[0]))
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    data[first + 2 + 12 * count : first + 6 + 12 * count] = (len(data) + 50).to_bytes(4, "little")
    assert open_photo(bytes(data)).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "packbits"])
def test_a_tiff_cut_short_is_refused(compression: str) -> None:
    """The directory is at the end, so what is cut is the middle."""
    page = replace(MAIN, compression=compression)
    whole_file = tiff(page)
    with tifffile.TiffFile(io.BytesIO(whole_file)) as file:
        offsets, counts = file.pages[0].dataoffsets, file.pages[0].databytecounts
    shortened = replace(page, tags={273: [*offsets], 279: [counts[0] // 2, *counts[1:]]})
    if compression != "none":  # whose sizes follow from the picture's
        with pytest.raises(DecodeError):
            open_photo(tiff(shortened))
    with pytest.raises(DecodeError):
        open_photo(tiff(replace(page, tags={273: [*offsets[:-1], len(whole_file) + 500]})))
