"""What a job is said to cost before it is begun."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import nst.memory
from jobs.driver.estimate import (
    describe_cost,
    describe_evaluations,
    describe_sizes,
    measure_cost,
    painted_sizes,
)
from jobs.driver.job import plan
from jobs.ledger.listing import Photo
from jobs.ledger.manifest import Manifest, Row, write_manifest
from jobs.spec import ImageSpec, job_from_table
from jobs.stores.filesystems import STANDARD_STORAGE
from jobs.stores.store import LocalStore
from nst.deepdream.method import DeepDream
from nst.feed_forward.method import FeedForward
from nst.style_transfer.method import StyleTransfer
from nst.stylizer import AssetRef, Assets, Outcome, Stylized
from tests.conftest import encoded, picture
from tests.methods import Stub


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """Takes one second per megapixel and evaluation, and much longer for the first."""

    clock: Clock
    schedule: Sequence[tuple[float, int]] = ((0.5, 10), (1.0, 4))
    kept_of_pixel: int = 0

    def kept_bytes(self, pixels: int, device: torch.device) -> int:  # noqa: ARG002
        return self.kept_of_pixel * pixels

    def assets(self) -> list[AssetRef]:
        return []

    def notes(self, assets: Assets) -> list[str]:  # noqa: ARG002
        return []

    def build(self, assets: Assets, device: torch.device) -> Stepping:  # noqa: ARG002
        return Stepping(self)


class Stepping:
    def __init__(self, method: Steps) -> None:
        self.evaluations, self._method = 0, method

    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:  # noqa: ARG002
        return [Stylized(image) for image in images]

    def iterate(self, image: Tensor, generator: torch.Generator) -> Iterator[None]:  # noqa: ARG002
        self._method.clock.now += 100
        for scale, number in self._method.schedule:
            for _ in range(number):
                self._method.clock.now += image.shape[1] * image.shape[2] * scale**2 / 1e6
                yield


@pytest.mark.parametrize("sizes", [[(1000, 500)], [(100, 40)], [(1000, 500), (100, 50), (4000, 500)]])
def test_seconds_are_of_all_steps_at_the_median_size(sizes: list[tuple[int, int]]) -> None:
    clock = Clock()
    cost = measure_cost(Steps(clock=clock), {}, sizes, 1, clock)
    pixels = sorted(width * height for width, height in sizes)[len(sizes) // 2]
    assert cost.seconds == pytest.approx(pixels / 1e6 * (10 * 0.5**2 + 4), rel=0.05)


@dataclass(frozen=True, kw_only=True, slots=True)
class Passes:
    """Takes `whole_s`, and some seconds per megapixel, of which it sees one at most."""

    clock: Clock
    whole_s: float
    each_s: float
    most_pixels: float = 1e6

    def build(self, assets: Assets, device: torch.device) -> Passing:  # noqa: ARG002
        return Passing(self)


class Passing:
    takes_levels = True

    def __init__(self, method: Passes) -> None:
        self._method, self.calls = method, list[tuple[torch.dtype, int]]()
        SEEN[:] = [self]

    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:  # noqa: ARG002
        (image,), method = images, self._method
        self.calls.append((image.dtype, image[0].numel()))
        method.clock.now += method.whole_s + method.each_s * min(method.most_pixels, image[0].numel()) / 1e6
        return [Stylized(image)]


SEEN: list[Passing] = []


@pytest.mark.parametrize(
    ("whole_s", "each_s", "seconds", "most"),
    [
        (0.1, 0.4, 0.5, 12e6),  # painted at a bounded size: all of it is measured
        (0.0, 60.0, 60.0 * 12, 0.05e6),  # a small one takes long enough
    ],
)
@pytest.mark.parametrize("levels", [False, True])
def test_a_pass_is_measured_with_as_many_pixels_as_take_seconds(
    whole_s: float, each_s: float, seconds: float, most: float, levels: bool
) -> None:
    method = Passes(clock=Clock(), whole_s=whole_s, each_s=each_s, most_pixels=1e6 if whole_s else 1e9)
    sizes = [(4000, 3000), (4000, 3000), (12000, 9000)]
    cost = measure_cost(method, {}, sizes, 1, method.clock, levels=levels)  # type: ignore[arg-type]
    assert cost.seconds == pytest.approx(seconds, rel=0.01)
    calls = SEEN[0].calls
    assert most / 2 <= max(pixels for _, pixels in calls) <= most
    assert {dtype for dtype, _ in calls} == {torch.uint8 if levels else torch.float32}


class Hungry(Stepping):
    def iterate(self, image: Tensor, generator: torch.Generator) -> Iterator[None]:
        for _ in super().iterate(image, generator):
            torch.ones(100, *image.shape).sum()
            yield


class HungrySteps(Steps):
    def build(self, assets: Assets, device: torch.device) -> Stepping:  # noqa: ARG002
        return Hungry(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundedSteps(HungrySteps):
    pass_memory_mb: int | None = None


def print_memory() -> None:
    """That of a lean method, of a hungry one, of one that also keeps something, and of bounded ones, in
    bytes."""
    clock, once = Clock(), ((1.0, 5),)
    for method in (
        Steps(clock=clock, schedule=once),
        HungrySteps(clock=clock, schedule=once),
        HungrySteps(clock=clock, schedule=once, kept_of_pixel=600),
        *(
            BoundedSteps(clock=clock, schedule=once, kept_of_pixel=600, pass_memory_mb=bound)
            for bound in (None, 500, 100_000)
        ),
    ):
        print(measure_cost(method, {}, [(2000, 1000)], 1, clock).memory_bytes)


def test_memory_is_of_the_largest_and_of_what_is_kept() -> None:
    """A pass of a hundred times the photograph's float32, seen in a fresh process's own peak."""
    program = "from tests.jobs.test_estimate import print_memory; print_memory()"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run([sys.executable, "-c", program], env=plain, capture_output=True, text=True, check=True)
    lean, hungry, keeping, unbounded, bounded, loose = map(int, run.stdout.split())
    assert hungry - lean == pytest.approx(2e6 * 100 * 3 * 4, rel=0.3)
    assert keeping - hungry == pytest.approx(2e6 * 600, rel=0.5)
    assert bounded - lean == pytest.approx(500e6 + 2e6 * (600 + 72), rel=0.1)
    for same in (unbounded, loose):
        assert same == pytest.approx(keeping, rel=0.3)


def test_one_pass_is_measured_whole_and_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    assert measure_cost(Stub(delay_s=0.01), {}, [(100, 40)], before + 1).seconds >= 0.01
    assert torch.get_num_threads() == before


def test_evaluations_are_told_by_size() -> None:
    assert describe_evaluations(StyleTransfer(style="s", network="embedded")) == [
        "each photograph gets 90 evaluations: 50 at its own size, 40 at 0.5 of it"
    ]
    assert describe_evaluations(DeepDream(network="embedded", octaves=2, steps=3, zoom_frames=9)) == [
        "each photograph gets 60 evaluations: 30 at its own size, 30 at 0.71 of it"
    ]
    assert describe_evaluations(Stub()) == []


def test_what_is_kept_follows_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(**options: object) -> int:
        method = StyleTransfer(style="s", network="embedded", **options)  # type: ignore[arg-type]
        return method.kept_bytes(1000, torch.device("cpu"))

    assert kept() == 50 * 24_000
    assert kept(history_size=10) == 240_000
    assert kept(steps=6) == 6 * 24_000, "no more pairs than evaluations at a size"
    assert kept(optimizer="adam") == 24_000
    monkeypatch.setattr(nst.memory, "total_bytes", lambda: 1_000_000)
    assert kept() == 300_000, "three tenths of the memory"
    monkeypatch.setattr(nst.memory, "total_bytes", lambda: 10_000)
    assert kept() == 24_000, "one pair there is"
    assert DeepDream(network="embedded", zoom_frames=5).kept_bytes(1000, torch.device("cpu")) == 60_000


def test_a_sample_is_spread_evenly(tmp_path: Path) -> None:
    photos = [Photo(f"k{number:04d}", f"/p/{number}.jpg", None) for number in range(1000)]
    write_manifest(photos, tmp_path / "manifest.parquet", 7)
    manifest = Manifest(LocalStore(str(tmp_path)))
    assert [row.index for row in manifest.sample(4)] == [0, 250, 500, 750]
    assert [row.index for row in manifest.sample(5000)] == list(range(1000))


def test_sizes_come_from_headers_and_are_told_in_a_line(tmp_path: Path) -> None:
    rows = []
    for number, (width, height) in enumerate([(80, 40), (40, 80), (80, 40), (20, 10)]):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encoded(picture(number, width, height)))
        rows.append(Row(number, str(number), str(path), None))
    (tmp_path / "text.jpg").write_text("no picture")
    rows += [Row(4, "t", str(tmp_path / "text.jpg"), None), Row(5, "n", str(tmp_path / "none.jpg"), None)]
    sizes = painted_sizes(rows, ImageSpec(max_side_px=40), STANDARD_STORAGE)
    assert sizes == [((80, 40), (40, 20)), ((40, 80), (20, 40)), ((80, 40), (40, 20)), ((20, 10), (20, 10))]
    assert describe_sizes(sizes[:3]) == (
        "sizes of 3 of them: 80 x 40 (2), 40 x 80 (1); painted: 40 x 20 (2), 20 x 40 (1)"
    )
    many = [((side, side), (8, 8)) for side in (10, 40, 20, 30, 20)]
    assert describe_sizes(many).startswith(
        "sizes of 5 of them: 10 x 10 to 40 x 40, mostly 20 x 20; painted: 8 x 8"
    )


def test_a_job_is_estimated_without_writing(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / f"photos/{number}.png").write_bytes(encoded(picture(number, 60, 40)))
    (tmp_path / "style.png").write_bytes(encoded(picture(9)))
    method = {"kind": "style_transfer", "style": "style.png", "network": "embedded"}
    table = {"photos": "photos", "output": "out", "method": method, "image": {"max_side_px": 30}}
    job = job_from_table(table, tmp_path)
    planned = plan(job)
    sizes, cost = describe_cost(planned)
    assert sizes == "sizes of 3 of them: 60 x 40 (3); painted: 30 x 20 (3)"
    assert re.fullmatch(
        r"about 0:\d\d:\d\d of one worker for each, 0:\d\d:\d\d for all, by a few steps on this machine "
        r"with 1 thread; about \d+\.\d GB of memory for each worker",
        cost,
    )
    learning = replace(
        job,
        spec=replace(
            job.spec, kind="feed_forward", method=FeedForward(adapt_steps=9, style=str(tmp_path / "style.png"))
        ),
    )
    assert describe_cost(plan(learning))[1].endswith("; what the network learns before takes minutes more")
    on_gpus = replace(job, resources=replace(job.resources, num_gpus=1.0))
    assert describe_cost(replace(planned, job=on_gpus))[1] == "time and memory are not estimated for GPUs"
    assert not (tmp_path / "out").exists()
