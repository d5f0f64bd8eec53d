"""The page of a job of 20,000 photographs in a real browser, on a desk and on a phone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from jobs.ledger.layout import MARKS
from jobs.ledger.marks import read_marks
from jobs.stores.store import LocalStore
from tests.browser import Page, open_page
from tests.jobs.made_jobs import EVIL, failed, finish, key, made_job

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]

COUNT = 20_000
SHOTS = os.environ.get("NST_SCREENSHOTS")
"""A folder for pictures of the page, for people to look at."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    job = made_job(tmp_path_factory.mktemp("browser"), COUNT)
    finish(job, range(job.manifest.shards))
    assert isinstance(job.store, LocalStore)
    return job.store


@pytest.fixture
def url(store: LocalStore) -> Iterator[str]:
    command = [sys.executable, "-m", "jobs", "view", store.url, "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield re.findall(r"http://\S+", server.stdout.readline())[0]
        server.send_signal(signal.SIGINT)
    store.remove(MARKS)
    assert server.returncode == 0


async def shoot(page: Page, name: str) -> None:
    if SHOTS is not None:
        await asyncio.sleep(1.0)
        await page.shoot(Path(SHOTS) / f"{name}.png")


async def shown(page: Page) -> list[str]:
    """Keys of the tiles that can be seen, in order."""
    await page.until(
        "list.total !== null && grid.range().every(place => place < 0 || grid.tiles.has(place))"
        " && [...grid.tiles.keys()].every(place => itemAt(place))"
    )
    found: list[str] = await page.do(
        "[...grid.tiles].filter(([, tile]) => { const box = tile.getBoundingClientRect();"
        " const view = $('scroll').getBoundingClientRect();"
        " return box.bottom > view.top + 1 && box.top < view.bottom - 1; })"
        ".sort((a, b) => a[0] - b[0]).map(([, tile]) => tile.title)"
    )
    return found


async def choose(page: Page, name: str, value: str) -> None:
    await page.do(f"$('{name}').value = '{value}'; $('{name}').dispatchEvent(new Event('change'))")


async def look_at_all(page: Page, name: str) -> None:
    """First paint, scrolling, searching, filtering."""
    await page.until("document.querySelectorAll('.open img.there').length > 5")
    await page.until(f"job.done === {COUNT} && list.total === {COUNT}")
    first = await shown(page)
    assert first == [key(number) for number in range(len(first))]
    assert EVIL in first or len(first) < 8
    assert await page.do("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    assert await page.do("location.search") == "", "the token is not in the address any more"
    await shoot(page, f"{name}-grid")
    # Step by step, as a wheel does, and then to the end.
    for step in range(1, 6):
        await page.do("$('scroll').scrollTop += 300")
        await page.until(f"grid.lastTop > {step * 300 - 5}")
    assert key(0) not in await shown(page)
    await page.do("$('scroll').scrollTop = 1e9")
    await page.until(f"[...grid.tiles.keys()].includes({COUNT - 1})")
    assert (await shown(page))[-1] == key(COUNT - 1)
    assert await page.do("grid.tiles.size") < 120
    assert await page.do("grid.tiles.get(list.total - 1).getBoundingClientRect().bottom <= innerHeight")
    await page.do("$('scroll').scrollTop = $('scroll').scrollHeight / 2")
    await page.until("Math.abs(grid.range()[0] - list.total / 2) < 400")
    middle = [int(each.split()[-1]) for each in await shown(page)]
    assert middle == list(range(middle[0], middle[0] + len(middle)))
    await page.do("$('search').value = '<SCRIPT>'; $('search').dispatchEvent(new Event('input'))")
    await page.until("list.total === 1")
    assert await shown(page) == [EVIL]
    await page.do("$('search').value = ''; $('search').dispatchEvent(new Event('input'))")
    await page.until(f"list.total === {COUNT}")
    await choose(page, "status", "failed")
    await page.until(f"list.total === {sum(map(failed, range(COUNT)))}")
    assert "DecodeError: it looks like text" in await page.do("document.querySelector('.tile').innerText")
    await choose(page, "status", "")
    await choose(page, "sort", "stats.change")
    await page.click("#direction")
    await page.until(f"list.total === {COUNT} && itemAt(0)?.figures['stats.change'] === 0.4995")
    await choose(page, "sort", "row")
    await page.click("#direction")
    await page.until(f"list.total === {COUNT} && itemAt(0)?.row === 0")


async def compare(page: Page, store: LocalStore, name: str) -> None:
    """Before and after, walking, marks by click and by key."""
    await shown(page)
    await page.click(".tile .open")
    both = "['before', 'after'].every(side => $(side).complete && $(side).naturalWidth > 0)"
    await page.until(f"viewer.isOpen() && {both}")
    sizes = "['before', 'after'].map(side => [$(side).naturalWidth, $(side).naturalHeight].join())"
    assert await page.do(sizes) == ["480,320", "480,320"]
    x, y = await page.middle("#frame")
    left = await page.do("$('frame').getBoundingClientRect().left")
    await page.drag(x, y, left + (x - left) / 2, y)
    assert await page.do("viewer.percent") == pytest.approx(25, abs=1)
    cut = await page.do("getComputedStyle($('before')).clipPath")
    assert "75" in cut or float(re.findall(r"[\d.]+px", cut)[0][:-2]) > 100
    await shoot(page, f"{name}-viewer")
    await page.press("k")
    await page.press("ArrowRight")
    await page.until("viewer.item.row === 1")
    await page.click("#viewer-marks [data-mark=again]")
    for row in range(2, 6):
        await page.press("ArrowRight")
        await page.until(f"viewer.item.row === {row}")
    assert "it looks like text" in await page.do("$('viewer-reason').innerText")
    await shoot(page, f"{name}-failed")
    await page.click("#previous")
    await page.until("viewer.item.row === 4")
    await page.press("Escape")
    await page.until("!viewer.isOpen()")
    await page.press("ArrowRight")
    await page.press("ArrowLeft")
    # Keys that come one upon the other, before the browser has told that the viewer is closed.
    keys = "document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }))"
    assert await page.do("viewer.open(grid.current).then(() => viewer.isOpen())")
    pressed = "['Escape', 'ArrowRight', 'ArrowRight', 'ArrowLeft', 'ArrowLeft']"
    assert await page.do(f"{pressed}.map(key => {{ {keys}; return grid.current; }}).join()") == "4,5,6,5,4"
    await page.press("r")
    await page.until("document.querySelectorAll('.tile[data-mark]').length === 3")
    wanted = {key(0): "keep", key(1): "again", key(4): "reject"}
    for _ in range(100):
        if read_marks(store) == wanted:
            break
        await asyncio.sleep(0.1)
    assert read_marks(store) == wanted
    await choose(page, "mark", "again")
    await page.until("list.total === 1")
    assert await shown(page) == [key(1)]
    await choose(page, "mark", "")
    await page.until(f"list.total === {COUNT}")
    await shoot(page, f"{name}-marked")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_a_large_job_is_looked_through(store: LocalStore, url: str, width: int, height: int) -> None:
    async def scenario() -> None:
        phone = width < 500
        async with open_page(width, height, phone=phone, dark=phone) as page:
            await page.call("Page.navigate", url=url)
            await look_at_all(page, f"{width}")
            await compare(page, store, f"{width}")
            assert page.errors == []
            assert {urlsplit(each).netloc for each in page.requests} == {urlsplit(url).netloc}
            assert len(page.requests) < 400, "what is not seen is not loaded"

    asyncio.run(scenario())
