"""Colors that a file gives by numbers (CICP, ITU-T H.273): PNG's cICP, and `nclx` of AVIF and HEIF. And those
that cameras give by name."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import TypeAlias

import numpy as np

from nst.errors import DecodeError

__all__ = ["adobe_rgb_profile", "boxes", "cicp_of", "cicp_profile"]

_D65, _D50 = np.array([0.95045593, 1.0, 1.08905775]), np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_XY: TypeAlias = tuple[tuple[float, float], ...]
_BT709: _XY = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_ADOBE_RGB: _XY = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_PRIMARIES: dict[int, _XY] = {
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),  # BT.601, 625 lines
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),  # BT.601, 525 lines
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),  # SMPTE 240M
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}  # fmt: skip
_SRGB = (1, 2)  # sRGB's own, which are BT.709's; "unspecified"
_LIKE_SRGB = (1, 2, 6, 13, 14, 15)  # what cameras for television write is shown as sRGB, as browsers do
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_HIGH_RANGE = {16: "PQ", 18: "HLG"}


def cicp_profile(primaries: int, transfer: int) -> bytes:
    """An ICC profile of these colors; empty if they are sRGB.

    Raises:
        DecodeError: of a high dynamic range, or not known.
    """
    if transfer in _HIGH_RANGE:
        raise DecodeError(
            f"a picture of high dynamic range ({_HIGH_RANGE[transfer]}), which is not brought to sRGB here: "
            "its bright parts would have to be mapped"
        )
    if transfer not in _LIKE_SRGB and transfer not in _GAMMAS:
        raise DecodeError(f"colors with transfer characteristics {transfer} (CICP) are not read here")
    if primaries not in _SRGB and primaries not in _PRIMARIES:
        raise DecodeError(f"colors with primaries {primaries} (CICP) are not read here")
    if primaries in _SRGB and transfer in _LIKE_SRGB:
        return b""
    return _profile(_PRIMARIES.get(primaries, _BT709), _GAMMAS.get(transfer))


def adobe_rgb_profile() -> bytes:
    """An ICC profile of Adobe RGB (1998)."""
    return _profile(_ADOBE_RGB, 563 / 256)


@cache
def _profile(primaries: _XY, gamma: float | None) -> bytes:
    """ICC 2.1: a matrix and one curve; without `gamma` it is sRGB's."""
    xy = np.array(primaries)
    columns = np.stack([xy[:, 0] / xy[:, 1], np.ones(3), (1 - xy.sum(axis=1)) / xy[:, 1]])
    to_xyz = columns * np.linalg.solve(columns, _D65)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ _D65)) @ _BRADFORD @ to_xyz
    value = np.linspace(0, 1, 4096)
    srgb = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    points = np.round(65535 * (srgb if gamma is None else value**gamma)).astype(">u2")
    curve = b"curv" + bytes(4) + struct.pack(">I", len(points)) + points.tobytes()

    def xyz(numbers: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bytes:
        return b"XYZ " + bytes(4) + np.round(numbers * 65536).astype(">i4").tobytes()

    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"CICP" + bytes(80),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": xyz(_D50),
        **{b"rgb"[at : at + 1] + b"XYZ": xyz(adapted[:, at]) for at in range(3)},
        **{b"rgb"[at : at + 1] + b"TRC": curve for at in range(3)},
    }
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", offset + len(body), bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + xyz(_D50)[8:] + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body


def cicp_of(data: bytes) -> tuple[int, int] | None:
    """(primaries, transfer characteristics) of a PNG, AVIF or HEIF; None if it does not say."""
    try:
        if data.startswith(b"\x89PNG"):
            return _of_png(data)
        if data[4:8] == b"ftyp":
            return _of_heif(data)
    except (struct.error, IndexError):  # it ends before it says
        pass
    return None


def _of_png(data: bytes) -> tuple[int, int] | None:
    place = 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"cICP":
            return data[place + 8], data[place + 9]
        if kind == b"IDAT":
            return None
        place += 12 + length
    return None


def boxes(data: bytes, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box, and from where to where its content is (ISO 14496-12)."""
    while place + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, place)
        inner = place + 8
        if size == 1:
            (size,), inner = struct.unpack_from(">Q", data, inner), place + 16
        after = min(place + size, end) if size else end
        if after < inner:
            return
        yield kind, inner, after
        place = after


def _of_heif(data: bytes) -> tuple[int, int] | None:
    """Of the primary picture; or, if that is made of tiles which alone say it, theirs (ISO 23008-12)."""
    primary, properties, tied = 0, list[tuple[bytes, int, int]](), set[int]()
    meta = next(((start, end) for kind, start, end in boxes(data, 0, len(data)) if kind == b"meta"), None)
    if meta is None:
        return None
    within = {kind: (start, end) for kind, start, end in boxes(data, meta[0] + 4, meta[1])}
    start, _ = within.get(b"pitm", (0, 0))
    (primary,) = struct.unpack_from(">I" if data[start] else ">H", data, start + 4)
    for kind, start, end in boxes(data, *within.get(b"iprp", (0, 0))):
        if kind == b"ipco":
            properties = [*boxes(data, start, end)]
        elif kind == b"ipma":
            tied = _tied(data, start, primary)
    found = {
        place: struct.unpack_from(">HH", data, start + 4)
        for place, (kind, start, _) in enumerate(properties, 1)
        if kind == b"colr" and data[start : start + 4] == b"nclx"
    }
    return next((found[place] for place in found if place in tied), next(iter(found.values()), None))


def _tied(data: bytes, start: int, item: int) -> set[int]:
    """Which properties, counted from 1, belong to this item."""
    version, wide = data[start], data[start + 3] & 1
    (count,) = struct.unpack_from(">I", data, start + 4)
    place, tied = start + 8, set[int]()
    for _ in range(min(count, 65536)):
        (number,) = struct.unpack_from(">I" if version else ">H", data, place)
        place += 4 if version else 2
        ties, place = data[place], place + 1
        for _ in range(ties):
            if number == item:
                tied.add(struct.unpack_from(">H", data, place)[0] & 0x7FFF if wide else data[place] & 0x7F)
            place += 2 if wide else 1
    return tied
