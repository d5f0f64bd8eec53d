"""A color chart, ICC profiles written from published primaries and curves, and what each color is in sRGB.

Independent of the code under test: nothing here calls a color management system.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

Levels = NDArray[np.uint8]
Floats = NDArray[np.float64]

PATCH_PX = 16
# The 24 patches of the ColorChecker, in sRGB. All differ, so a picture that is turned shows everywhere.
# fmt: off
COLORS = np.array([
    (115, 82, 68), (194, 150, 130), (98, 122, 157), (87, 108, 67), (133, 128, 177), (103, 189, 170),
    (214, 126, 44), (80, 91, 166), (193, 90, 99), (94, 60, 108), (157, 188, 64), (224, 163, 46),
    (56, 61, 150), (70, 148, 73), (175, 54, 60), (231, 199, 31), (187, 86, 149), (8, 133, 161),
    (243, 243, 242), (200, 200, 200), (160, 160, 160), (122, 122, 121), (85, 85, 85), (52, 52, 52),
], dtype=np.uint8)
# fmt: on


def chart(colors: NDArray[np.generic] = COLORS) -> NDArray[np.generic]:
    """24 colors (24, C) as a picture (64, 96, C)."""
    return colors.reshape(4, 6, -1).repeat(PATCH_PX, axis=0).repeat(PATCH_PX, axis=1)


def color_error(picture: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    """The largest CIEDE2000 between the patches' middles, both sRGB (64, 96, 3), 0 to 255."""
    assert picture.shape == expected.shape == (4 * PATCH_PX, 6 * PATCH_PX, 3)
    middles = []
    for levels in (picture, expected):
        cells = levels.reshape(4, PATCH_PX, 6, PATCH_PX, 3).astype(np.float64)
        middles.append(cells[:, 5:-5, :, 5:-5].mean(axis=(1, 3)) / 255)
    return float(deltaE_ciede2000(rgb2lab(middles[0]), rgb2lab(middles[1])).max())


# Color spaces: primaries and white (x, y), and the curve from value to light, all in [0, 1]

D50 = np.array([0.9642, 1.0, 0.8249])
D65_XY = (0.3127, 0.3290)
SRGB_XY = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_XY = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3_XY = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def srgb_to_light(value: Floats) -> Floats:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def light_to_srgb(light: Floats) -> Floats:
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def adobe_to_light(value: Floats) -> Floats:
    return value ** (563 / 256)


def _xyz(xy: tuple[float, float]) -> Floats:
    return np.array([xy[0] / xy[1], 1.0, (1 - xy[0] - xy[1]) / xy[1]])


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> Floats:
    """Light of a space with white D65 to XYZ."""
    columns = np.array([_xyz(xy) for xy in primaries]).T
    return columns * np.linalg.solve(columns, _xyz(D65_XY))


def adaptation(source: Floats, target: Floats) -> Floats:
    """Bradford's, from one white to another."""
    ratio = (_BRADFORD @ target) / (_BRADFORD @ source)
    return np.linalg.inv(_BRADFORD) @ np.diag(ratio) @ _BRADFORD


def in_srgb(
    colors: Levels, primaries: tuple[tuple[float, float], ...], to_light: Callable[[Floats], Floats]
) -> Floats:
    """Colors (N, 3) of an RGB space with white D65, in sRGB, 0 to 255; what it cannot show is clipped."""
    xyz = to_light(colors / 255) @ to_xyz(primaries).T
    return 255 * light_to_srgb(xyz @ np.linalg.inv(to_xyz(SRGB_XY)).T)


def xyz_d50_to_srgb(xyz: Floats) -> Floats:
    matrix = np.linalg.inv(to_xyz(SRGB_XY)) @ adaptation(D50, _xyz(D65_XY))
    return 255 * light_to_srgb(xyz @ matrix.T)


def xyz_to_lab(xyz: Floats) -> Floats:
    """CIE 1976, white D50."""
    ratio = xyz / D50
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


# ICC profiles, version 2.1


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _curve(to_light: Callable[[Floats], Floats]) -> bytes:
    points = np.round(65535 * to_light(np.linspace(0, 1, 4096))).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(points)) + points.tobytes()


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(*D50),
        **tags,
    }
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(">I4sI4s4s4s", offset + len(body), bytes(4), 0x02100000, kind, space, connection)
    header += bytes(12) + b"acsp" + bytes(28) + _fixed(*D50) + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


def rgb_profile(primaries: tuple[tuple[float, float], ...], to_light: Callable[[Floats], Floats]) -> bytes:
    matrix = adaptation(_xyz(D65_XY), D50) @ to_xyz(primaries)
    tags = {}
    for place, letter in enumerate((b"r", b"g", b"b")):
        tags[letter + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(*matrix[:, place])
        tags[letter + b"TRC"] = _curve(to_light)
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def gray_profile(to_light: Callable[[Floats], Floats]) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _curve(to_light)})


def ink_to_xyz(inks: Floats) -> Floats:
    """A printer of our own: (..., 4) of inks in [0, 1] to XYZ under D50."""
    light = (1 - 0.85 * inks[..., :3]) * (1 - 0.95 * inks[..., 3:])
    return light**1.5 @ (adaptation(_xyz(D65_XY), D50) @ to_xyz(SRGB_XY)).T


def cmyk_profile() -> bytes:
    """Of that printer, by a table (`mft2`) that is exact at 0, 85, 170 and 255 of every ink."""
    steps = np.linspace(0, 1, 4)
    grid = np.stack(np.meshgrid(steps, steps, steps, steps, indexing="ij"), axis=-1)
    lab = xyz_to_lab(ink_to_xyz(grid))
    numbers = np.round((lab + np.array([0, 128, 128])) * (652.80, 256, 256)).clip(0, 65535).astype(">u2")
    straight = np.array([0, 65535], dtype=">u2").tobytes()
    table = b"mft2\0\0\0\0" + bytes((4, 3, 4, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + struct.pack(">HH", 2, 2)
    table += 4 * straight + numbers.tobytes() + 3 * straight
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


# Files that Pillow cannot write or read


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_16(levels: NDArray[np.uint16]) -> bytes:
    """(H, W, C) of 16 bits: gray, gray and alpha, RGB, RGBA."""
    height, width, channels = levels.shape
    rows = levels.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def read_png_16(data: bytes) -> tuple[NDArray[np.uint16], dict[bytes, bytes]]:
    """Levels (H, W, C) of an RGB or RGBA PNG of 16 bits without interlacing, and its chunks."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    place, chunks = 8, dict[bytes, bytes]()
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        assert png_chunk(kind, body) == data[place : place + 12 + length]
        chunks[kind] = chunks.get(kind, b"") + body
        place += 12 + length
    width, height, bits, color, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (bits, rest) == (16, [0, 0, 0])
    channels = {2: 3, 6: 4}[color]
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 2 * channels * width)
    rows = np.zeros((height + 1, width, 2 * channels), np.uint8)  # below a row of zeros
    for y, line in enumerate(raw, 1):
        bytes_of = line[1:].reshape(width, -1)
        if line[0] == 1:  # differences from the left
            rows[y] = np.cumsum(bytes_of, axis=0, dtype=np.uint8)
        else:
            rows[y] = bytes_of + rows[y - 1] * {0: np.uint8(0), 2: np.uint8(1)}[int(line[0])]
    return rows[1:].copy().view(">u2").astype(np.uint16), chunks
