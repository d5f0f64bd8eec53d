"""A training for TensorBoard: files of events with its losses, its samples and its evaluations."""

from __future__ import annotations

import io
import math
import struct
import time
from collections.abc import Mapping, Sequence

from PIL import Image
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from jobs.training.metrics import Grouped, Row, data_share, means

__all__ = ["evaluation_events", "sample_events", "write_events"]


def write_events(rows: Sequence[Row], grouped: Grouped) -> bytes:
    """Means over some steps, at the last of them; rows of earlier versions, which have no `time`, at this
    one."""
    last = rows[-1]
    values = {
        f"{group}/{name}": loss
        for group, losses in grouped(means(rows)).items()
        for name, loss in losses.items()
    }
    values["learning_rate"] = last["learning_rate"]
    values["time/seconds"] = math.fsum(row["seconds"] for row in rows) / len(rows)
    share = data_share(rows)
    if share is not None:
        values["time/data_share"] = share
    return _file(last["step"], _scalars(values), last.get("time") or time.time())


def evaluation_events(step: int, distances: Mapping[str, float]) -> bytes:
    """What generators are like after a step, as `fid_A2B`, at this time."""
    return _file(
        step, _scalars({f"evaluation/{name}": value for name, value in distances.items()}), time.time()
    )


def sample_events(step: int, picture: bytes) -> bytes:
    """A picture of what became of photographs, as JPEG, at this time."""
    with Image.open(io.BytesIO(picture)) as opened:
        width, height = opened.size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=picture)
    return _file(step, [Summary.Value(tag="samples", image=image)], time.time())


def _scalars(values: Mapping[str, float]) -> list[Summary.Value]:
    return [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]


def _file(step: int, values: Sequence[Summary.Value], at: float) -> bytes:
    out = io.BytesIO()
    for event in (
        Event(wall_time=at, file_version="brain.Event:2"),
        Event(wall_time=at, step=step, summary=Summary(value=values)),
    ):
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        out.write(length + _masked(length) + data + _masked(data))
    return out.getvalue()


def _masked(data: bytes) -> bytes:
    """The checksum of TensorFlow's record files."""
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
