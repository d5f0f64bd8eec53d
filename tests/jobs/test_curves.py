"""A curve as Parquet: everything comes back, damage is seen, and anyone can read it."""

from __future__ import annotations

import io
import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.ledger.curves import read_curve, write_curve

CURVE = {"scale": [1.0, 1.0, 2.0], "loss": [3e30, 0.1, -5e-324]}


def test_comes_back_exactly_and_always_as_the_same_bytes() -> None:
    assert read_curve(write_curve(CURVE)) == CURVE
    assert write_curve(CURVE) == write_curve({name: tuple(numbers) for name, numbers in CURVE.items()})
    (lost,) = read_curve(write_curve({"loss": [math.nan]}))["loss"]
    assert math.isnan(lost)


def test_is_a_plain_table() -> None:
    table = pq.read_table(io.BytesIO(write_curve(CURVE)))
    types = [("evaluation", pa.int32()), ("scale", pa.float64()), ("loss", pa.float64())]
    assert [(field.name, field.type) for field in table.schema] == types
    assert table["evaluation"].to_pylist() == [1, 2, 3]


def test_damage_is_seen_or_does_none() -> None:
    data, chance = write_curve(CURVE), random.Random(0)
    seen = 0
    for _ in range(500):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            assert read_curve(bytes(damaged)) == CURVE
        except ValueError:
            seen += 1
    assert seen > 300
    for length in range(len(data)):
        with pytest.raises(ValueError, match="not a curve"):
            read_curve(data[:length])


def test_what_is_no_curve() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"evaluation": [1], "loss": [1.0]}), out)
    for data in (b"", b"loss", out.getvalue()):
        with pytest.raises(ValueError, match="not a curve"):
            read_curve(data)
    with pytest.raises(ValueError, match="expected length 1 but got length 2"):
        write_curve({"loss": [1.0], "scale": [1.0, 2.0]})
