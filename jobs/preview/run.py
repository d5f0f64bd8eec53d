"""A preview: photographs painted in every column, one after the other, in this process."""

from __future__ import annotations

import io
import json
import math
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import PIL.Image
import torch
from PIL import Image
from torch import Tensor

from jobs.console.display import Bar, duration
from jobs.console.stop import Interrupted
from jobs.errors import UsageError
from jobs.ledger.folders import Photo
from jobs.ledger.layout import PREVIEW
from jobs.pools.capacity import cpu_count
from jobs.preview.choice import Choice
from jobs.preview.column import Column, spans_of
from jobs.preview.page import Picture, Shown, preview_page
from jobs.preview.paint import Paint, Painters
from jobs.preview.sheet import cell_px, contact_sheet
from jobs.spec import ImageSpec
from jobs.stores.photo_files import read_photo_file
from jobs.stores.store import LocalStore
from jobs.worker.process import begin_cuda
from nst.errors import ImageError, NstError
from nst.images.codec import DecodedPhoto, decode_photo, encode_image, picture_of
from nst.stylizer import Stylized

__all__ = ["PAGE", "SHEET", "Preview", "Result", "run_preview"]

PAGE, SHEET = "index.html", "sheet.png"
_PAGE_PIXELS = 64e6
"""Pixels of all pictures on the page, about: they are some 20 MB."""
_PAGE_QUALITY = 85
_FIRST_LOOK_S = 20.0
"""Seconds after which there is a page of what is done; then it is written again, which takes a small share."""
_LOOK_SHARE = 20
_LINE_EVERY_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What is to be painted."""

    choice: Choice
    columns: Sequence[Column]
    files: Mapping[str, bytes]
    """Style pictures' files by their places."""
    styles: Mapping[str, Tensor]
    """The same as pictures (3, h, w) in [0, 1]."""
    size_px: int
    notes: Sequence[str] = ()


@dataclass(slots=True)
class Result:
    """What a preview has come to."""

    painted: int = 0
    wanted: int = 0
    left_out: list[str] = field(default_factory=list)
    """Photographs and pictures that there are not, with reasons."""
    stopped: bool = False


def run_preview(preview: Preview, store: LocalStore, bar: Bar) -> Result:
    """Paint, and publish pictures as they come, and the page and the sheet at the end, also if it is
    interrupted.

    Raises:
        Interrupted: before anything was changed in the folder.
        UsageError: no photograph can be read, or nothing can be painted.
    """
    PIL.Image.MAX_IMAGE_PIXELS = None  # decode_photo has a limit of its own, from the header
    work = _Work(preview, store, bar)
    try:
        work.begin()
        work.paint()
        work.show()
    except Interrupted:
        if not work.result.wanted:
            raise
        work.result.stopped = True
        work.show()
    store.clean()
    if not work.result.painted and not work.result.stopped:
        raise UsageError("nothing could be painted: " + "; ".join(work.result.left_out))
    return work.result


class _Work:
    """A preview that is being made."""

    def __init__(self, preview: Preview, store: LocalStore, bar: Bar) -> None:
        self._preview, self._store, self._bar = preview, store, bar
        self.result = Result()
        self._photos: list[tuple[Photo, DecodedPhoto]] = []
        self._cells: dict[tuple[int, int], Image.Image] = {}
        self._pictures: dict[tuple[int, int], Picture] = {}
        self._failures: dict[tuple[int, int], str] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._began = time.monotonic()
        self._next_look = self._began + _FIRST_LOOK_S
        self._line_at = self._began
        self._cell_px = cell_px(len(preview.columns))
        self._page_px = preview.size_px

    def begin(self) -> None:
        """Read the photographs; then say whose folder it is, and write the jobs' files."""
        choice, columns = self._preview.choice, self._preview.columns
        for photo in choice.photos:
            try:
                decoded = _decoded(photo, columns[0], self._preview.size_px)
            except (OSError, ImageError) as error:
                self._leave_out(f"photograph {photo.key}", error)
                continue
            self._photos.append((photo, decoded))
            self._tell(f"read {photo.key}")
        if not self._photos:
            raise UsageError("no photograph can be read: " + "; ".join(self.result.left_out))
        count = len(self._photos) * (len(columns) + 1)
        self._page_px = min(self._page_px, int(math.sqrt(_PAGE_PIXELS / count)))
        for number, (_, decoded) in enumerate(self._photos, 1):
            self._keep((number, 0), decoded.levels, None)
        self.result.wanted = len(self._photos) * len(columns)
        self._store.publish(PREVIEW, json.dumps(self._record(), indent=1).encode())
        if (self._store.root / "pictures").is_dir():  # an earlier preview's
            shutil.rmtree(self._store.root / "pictures")
        for column in columns:
            self._store.publish(f"jobs/{column.name}.toml", column.text.encode())

    def _record(self) -> dict[str, Any]:
        columns = [{"style": each.style.place, "strength": each.strength} for each in self._preview.columns]
        photos = [photo.url for photo, _ in self._photos]
        return {
            "format": 1,
            "preview": {"photos": photos, "columns": columns, "size_px": self._preview.size_px},
        }

    def paint(self) -> None:
        """Paint style by style, drafts of several at once: threads that share each pass wait for each other."""
        columns = self._preview.columns
        begin_cuda(deterministic=True)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tell("loading the network")
        painters = Painters(columns, dict(self._preview.files), device)
        spans = spans_of(columns)
        at_once = min(cpu_count(), len(spans)) if painters.share and device.type == "cpu" else 1
        threads = max(1, cpu_count() // at_once)
        torch.set_num_threads(threads)
        if at_once == 1:  # in this thread, which Ctrl-C ends at once
            for span in spans:
                self._style(painters, span)
                self._look()
            return
        with ThreadPoolExecutor(at_once, "paint", torch.set_num_threads, (threads,)) as pool:
            try:
                for done in as_completed([pool.submit(self._style, painters, span) for span in spans]):
                    done.result()
                    self._look()
            except BaseException:
                self._stop.set()
                self._tell("stopping when the pictures in work are painted")
                pool.shutdown(cancel_futures=True)
                raise

    def _style(self, painters: Painters, span: range) -> None:
        """Paint all photographs in the columns of a style."""
        for number in span:
            column = self._preview.columns[number]
            try:
                paint = painters.of(column)
            except NstError as error:
                self._leave_out(f"style {column.style.shown}", error)
                self._failures |= {(row, number + 1): str(error) for row in range(1, len(self._photos) + 1)}
                continue
            for row in range(1, len(self._photos) + 1):
                if self._stop.is_set():
                    return
                self._paint(paint, row, number + 1)
            if not self._bar.console.is_terminal:
                self._bar.say(f"{column.name}: {self.result.painted} of {self.result.wanted}, {self._left()}")

    def _paint(self, paint: Paint, row: int, number: int) -> None:
        photo, decoded = self._photos[row - 1]
        column = self._preview.columns[number - 1]
        try:
            outcome = paint(decoded.image, photo.key)
            if not isinstance(outcome, Stylized):
                raise outcome
            path = f"pictures/{column.name}/{photo.key}.jpg"
            self._store.publish(path, _encoded(outcome.image, column.job.spec.image, decoded))
            self._keep((row, number), outcome.image, path)
            with self._lock:
                self.result.painted += 1
        except Exception as error:  # noqa: BLE001  whatever is wrong with one picture, the others go on
            self._failures[row, number] = str(error) or type(error).__name__
            self._leave_out(f"{photo.key} in {column.name}", error)
        self._tell(f"{column.name}, {self._left()}")

    def _keep(self, place: tuple[int, int], image: Tensor, path: str | None) -> None:
        """Have a picture on the page and on the sheet."""
        whole = picture_of(image)
        self._pictures[place] = _picture(whole, self._page_px, path)
        if max(whole.size) > 2 * self._cell_px:
            whole.thumbnail((2 * self._cell_px,) * 2, Image.Resampling.LANCZOS)
        self._cells[place[0] - 1, place[1] - 1] = whole

    def _look(self) -> None:
        """Have a page of what there is, now and then."""
        if time.monotonic() >= self._next_look and self.result.painted < self.result.wanted:
            self.show()

    def show(self) -> None:
        """Publish the page and the sheet of what there is."""
        began = time.monotonic()
        preview = self._preview
        keys = [photo.key for photo, _ in self._photos]
        notes = [*preview.notes, *self.result.left_out]
        if (done := self.result.painted) < self.result.wanted:
            notes.insert(0, f"{done} of {self.result.wanted} pictures are painted")
        names = {column.style.name: column.style.place for column in preview.columns}
        styles = {name: picture_of(preview.styles[place]) for name, place in names.items()}
        small = {name: _picture(image, self._cell_px, None) for name, image in styles.items()}
        shown = Shown(keys, preview.columns, small, self._pictures, self._failures, notes, preview.size_px)
        self._store.publish(PAGE, preview_page(shown).encode())
        rows = [(key, self._cells[row, -1]) for row, key in enumerate(keys)]
        out = io.BytesIO()
        contact_sheet(rows, preview.columns, styles, self._cells).save(out, "PNG", compress_level=3)
        self._store.publish(SHEET, out.getvalue())
        now = time.monotonic()
        self._next_look = now + _LOOK_SHARE * (now - began)

    def _leave_out(self, what: str, error: Exception) -> None:
        line = f"left out: {what}: {error or type(error).__name__}"
        self.result.left_out.append(line)
        self._bar.say(line)

    def _tell(self, rest: str) -> None:
        now, done = time.monotonic(), self.result.painted
        total = self.result.wanted or len(self._preview.choice.photos) * len(self._preview.columns)
        if not self._bar.update(done, total, rest) and now - self._line_at >= _LINE_EVERY_S:
            self._line_at = now
            self._bar.say(f"{done} of {total} pictures, {rest}")

    def _left(self) -> str:
        painted, wanted = self.result.painted, self.result.wanted
        spent = time.monotonic() - self._began
        return f"{duration(spent * (wanted - painted) / max(1, painted))} left"


def _decoded(photo: Photo, column: Column, size_px: int) -> DecodedPhoto:
    """A photograph as the job of a column would have it, but this long."""
    image = column.job.spec.image
    data = read_photo_file(
        photo.url, size_bytes=photo.size_bytes, max_pixels=image.max_pixels, storage=column.job.storage
    )
    return decode_photo(
        data,
        max_side_px=size_px,
        max_pixels=image.max_pixels,
        background=image.background,
        keep_exif=image.keep_exif,
    )


def _encoded(picture: Tensor, image: ImageSpec, photo: DecodedPhoto) -> bytes:
    """The file that a job would publish."""
    encode = partial(encode_image, format=image.format, quality=image.quality)
    return encode(picture, exif=photo.exif, dpi=photo.dpi)


def _picture(image: Image.Image, side_px: int, path: str | None) -> Picture:
    small = image.copy()
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_PAGE_QUALITY)
    return Picture(out.getvalue(), small.size, path)
