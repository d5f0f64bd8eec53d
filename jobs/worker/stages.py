"""What is done to a photograph: read and decoded, stylized, encoded and published."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from jobs.errors import StoreError
from jobs.ledger.curves import write_curve
from jobs.ledger.layout import animation_path, curve_path, frame_path, picture_path
from jobs.ledger.manifest import Row
from jobs.ledger.results import Result, Status, image_seed
from jobs.stores.backoff import count_retries
from jobs.stores.photo_files import read_photo_file
from jobs.stores.store import Store
from jobs.worker.messages import Task, WorkerSetup
from jobs.worker.once import Once
from jobs.worker.pipeline import Loaded
from nst.images.codec import DecodedPhoto, check_sides, decode_photo, encode_animation, encode_image
from nst.stylizer import Outcome, Stylized

__all__ = ["TaskStages"]


class TaskStages:
    """The pipeline's stages, for the photographs of one task.

    Args:
        store: the job's, where pictures are published.
        stylize: gives the outcomes of a batch, in order.
        rows: what will be loaded: a photograph that is in several neighbors is read once.
    """

    def __init__(
        self,
        task: Task,
        store: Store,
        setup: WorkerSetup,
        stylize: Callable[[Sequence[Loaded]], list[Outcome | Exception]],
        rows: Sequence[Row] = (),
    ) -> None:
        self._task, self._store, self._setup = task, store, setup
        self._image = setup.image
        self._stylize = stylize
        self._read = Once[tuple[str, DecodedPhoto | Exception]](row.url for row in rows)

    def load(self, row: Row) -> Loaded | Result:
        """A photograph, read and decoded, or its failure."""
        with count_retries() as retries:
            loaded = self._load(row)
        return replace(loaded, retries=retries.count)

    def _load(self, row: Row) -> Loaded | Result:
        began = time.perf_counter()
        digest = None
        try:
            digest, photo = self._read.get(row.url, partial(self._decoded, row))
            if isinstance(photo, Exception):
                raise photo
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  whatever is wrong with a photograph is its own row
            took = time.perf_counter() - began
            return replace(self.failed(row, error), source_sha256=digest, load_s=took)
        return Loaded(row, photo, digest, time.perf_counter() - began)

    def _decoded(self, row: Row) -> tuple[str, DecodedPhoto | Exception]:
        """The digest of a photograph's file, and what is in it, or why that cannot be told."""
        data = read_photo_file(
            row.url if self._setup.moved is None else self._setup.moved.place(row.url),
            size_bytes=row.size_bytes,
            max_pixels=self._image.max_pixels,
            storage=self._setup.storage,
        )
        digest = hashlib.sha256(data).hexdigest()
        try:
            photo = decode_photo(
                data,
                max_side_px=self._image.max_side_px,
                max_pixels=self._image.max_pixels,
                background=self._image.background,
                alpha=self._image.alpha,
                keep_exif=self._image.keep_exif,
                truncated=self._image.truncated,
            )
            check_sides(self._image.format, photo.levels)  # before it is painted for nothing
            return digest, photo
        except Exception as error:  # noqa: BLE001  with the digest of what it is about
            return digest, error

    def compute(self, batch: Sequence[Loaded]) -> list[Outcome | Exception]:
        """The outcomes of a batch, in order."""
        return self._stylize(batch)

    def save(self, loaded: Loaded, stylized: Stylized, compute_s: float) -> Result:
        """The result of a picture, which is encoded and published here with all that belongs to it."""
        began = time.perf_counter()
        output = picture_path(loaded.row.key, self._image)
        try:
            objects = self._objects(loaded, stylized)
        except Exception as error:  # noqa: BLE001  e.g. too large for WebP: this picture's own row
            return loaded.charge(self.failed(loaded.row, error), compute_s)
        try:
            with count_retries() as retries:
                for path, data in objects.items():
                    self._store.publish(path, data)
        except OSError as error:
            if error.errno not in self._store.bad_name:
                raise
            return loaded.charge(self.failed(loaded.row, error), compute_s)
        return self._result(
            loaded.row,
            output=output,
            width=stylized.image.shape[2],
            height=stylized.image.shape[1],
            source_sha256=loaded.sha256,
            output_sha256=hashlib.sha256(objects[output]).hexdigest(),
            retries=loaded.retries + retries.count,
            load_s=loaded.load_s,
            compute_s=compute_s,
            save_s=time.perf_counter() - began,
            stats=_stats(loaded, stylized),
        )

    def _objects(self, loaded: Loaded, stylized: Stylized) -> dict[str, bytes]:
        """Objects to publish, by path: the picture last, so that where it is, all is."""
        key, objects = loaded.row.key, {}
        encode = partial(
            encode_image,
            format=self._image.format,
            bit_depth=self._image.bit_depth,
            quality=self._image.quality,
        )
        alpha = loaded.photo.opacity
        if stylized.curve:
            objects[curve_path(key)] = write_curve(stylized.curve)
        for frame in stylized.frames:
            objects[frame_path(key, frame.number, self._image)] = encode(
                frame.image, alpha=alpha if frame.aligned else None
            )
        if stylized.frames and self._image.animation != "none":
            objects[animation_path(key, self._image)] = encode_animation(
                [frame.image for frame in stylized.frames],
                format=self._image.animation,
                frames_per_second=self._image.frames_per_second,
                quality=self._image.quality,
            )
        objects[picture_path(key, self._image)] = encode(
            stylized.image, alpha=alpha, exif=loaded.photo.exif, dpi=loaded.photo.dpi
        )
        return objects

    def failed(self, row: Row, error: Exception) -> Result:
        """The result of a photograph that cannot be done."""
        text = " ".join(str(error).split()) or type(error).__name__
        text = text.encode("utf-8", "backslashreplace").decode()  # half a character fits into no receipt
        return self._result(row, status="failed", error_type=type(error).__name__, error=text[:2000])

    def _result(self, row: Row, status: Status = "ok", **columns: Any) -> Result:
        return Result(
            row=row.index,
            key=row.key,
            url=row.url,
            status=status,
            seed=image_seed(self._setup.seed, row.key),
            attempts=self._task.attempts,
            worker_host=socket.gethostname(),
            worker_pid=os.getpid(),
            finished_at=time.time(),
            **columns,
        )


def _stats(loaded: Loaded, stylized: Stylized) -> dict[str, float]:
    """The method's numbers, what is odd about the photograph's file, and how many frames it has, if several."""
    stats = {name: float(value) for name, value in stylized.stats.items()}
    stats |= dict.fromkeys(loaded.photo.marks, 1.0)
    return stats if loaded.photo.frames == 1 else {**stats, "frames": float(loaded.photo.frames)}
