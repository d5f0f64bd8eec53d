"""A training's losses for TensorBoard: a file of events for every part of its metrics."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from jobs.stores.store import Store
from jobs.training.metrics import Grouped, Row, means

__all__ = ["FOLDER", "events_name", "publish_events", "write_events"]

FOLDER = "tensorboard"


def publish_events(store: Store, rows: Sequence[Row], grouped: Grouped) -> None:
    """Means over some steps, at the last of them. TensorBoard reads such files in the order of their names."""
    store.publish(f"{FOLDER}/{events_name(rows[-1]['step'])}", write_events(rows, grouped))


def events_name(step: int) -> str:
    """Of the file whose last step this is."""
    return f"events.out.tfevents.{step:010d}.nst"


def write_events(rows: Sequence[Row], grouped: Grouped) -> bytes:
    last = rows[-1]
    values = {
        **{
            f"{group}/{name}": loss
            for group, losses in grouped(means(rows)).items()
            for name, loss in losses.items()
        },
        "learning_rate": last["learning_rate"],
    }
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
    out = io.BytesIO()
    for event in (Event(file_version="brain.Event:2"), Event(step=last["step"], summary=summary)):
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        out.write(length + _masked(length) + data + _masked(data))
    return out.getvalue()


def _masked(data: bytes) -> bytes:
    """The checksum of TensorFlow's record files."""
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
