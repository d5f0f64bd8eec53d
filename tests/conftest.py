"""Shared by all tests: photographs made here, and one Ray instance for the whole session."""

from __future__ import annotations

import io
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.console.stop import STOP_SIGNALS

# Two cores are shared by everything that runs here; one thread each also makes timings comparable.
torch.set_num_threads(1)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def picture(seed: int, width: int = 48, height: int = 32) -> Image.Image:
    """A smooth colorful picture; another one for every seed."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of photographs: `photos(24)`, of sizes that differ a little."""

    def make(count: int, folder: str = "photos", width: int = 48, height: int = 32) -> Path:
        root = tmp_path / folder
        for number in range(count):
            place = root / ("deeper/still" if number % 3 == 2 else "")
            place.mkdir(parents=True, exist_ok=True)
            photo = picture(number, width + number % 5, height + number % 3)
            photo.save(place / f"photo {number:03d}.jpg", quality=92)
        return root

    return make


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """Puts back how signals are handled: after a command they are ignored."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[str]:
    """A Ray instance of two CPUs for all tests that touch Ray; gives its address."""
    import ray

    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _system_config={"worker_niceness": 0},  # else they wait for minutes beside tests that compute
    )
    yield context.address_info["address"]
    ray.shutdown()


_TOGETHER = ("ray_session", "patches", "in_two", "reference", "begun")
"""Fixtures that are worth more than waiting for: tests that share one run in one process."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, there is one Ray instance."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        shared = next((name for name in _TOGETHER if name in names), None)
        if shared is not None:
            item.add_marker(pytest.mark.xdist_group(shared))


def pytest_collection_finish(session: pytest.Session) -> None:
    """pytest-xdist tells of groups by the names of tests; where it cannot, nothing says that there are none."""
    if not getattr(session.config.option, "loadgroup", False):
        return
    for item in session.items:
        if item.get_closest_marker("xdist_group") is not None and "@" not in item.nodeid:
            raise pytest.UsageError(f"this pytest does not keep {item.nodeid} together with its group")
