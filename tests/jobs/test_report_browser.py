"""Reports in a real browser, opened from disk: on a desk, on a phone, and printed."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from PIL import Image

from jobs.inspect.report import publish_report
from jobs.inspect.thumbnails import thumbnail
from jobs.ledger.curves import write_curve
from jobs.ledger.layout import REPORT
from jobs.ledger.marks import change_marks
from jobs.stores.store import LocalStore
from jobs.training.report import publish_training_report
from jobs.view.index import Rows
from jobs.view.photos import Photos, Side
from tests.browser import Page, open_page
from tests.jobs.made_jobs import EVIL, PICTURES, failed, finish, key, made_job
from tests.jobs.reports import check_harmless
from tests.jobs.test_training import ended, photos
from tests.jobs.test_view_browser import SHOTS, choose, shoot, shown

__all__ = ["photos"]  # the fixture

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]

COUNT = 2_000
SIZES = [(1280, 800), (390, 844)]
FIRST_PAINT_S = 1.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """A job of many photographs, with its report, which takes its thumbnails of the few that they are."""
    job = made_job(tmp_path_factory.mktemp("a report # 100%"), COUNT)
    finish(job, range(job.manifest.shards))
    job.store.publish(f"curves/{key(0)}.parquet", write_curve({"loss": [8.0, 4.0, 2.0, 1.0]}))
    change_marks(job.store, {key(1): "keep", key(2): "reject"})
    opened: dict[tuple[int, Side], Image.Image] = {}
    real = Photos.open

    def once(photos: Photos, rows: Rows, place: int, side: Side, most: int) -> Image.Image:
        name = int(rows.number[place]) % PICTURES, side
        if name not in opened:
            opened[name] = real(photos, rows, place, side, most)
        return opened[name]

    made = cache(lambda number, most_bytes: thumbnail(images[number], most_bytes))
    images: dict[int, Image.Image] = {}

    def small_once(image: Image.Image, most_bytes: int) -> Any:
        images[id(image)] = image
        return made(id(image), most_bytes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Photos, "open", once)
        patch.setattr("jobs.inspect.cards.thumbnail", small_once)
        publish_report(job.store)
    assert isinstance(job.store, LocalStore)
    return job.store


def address(store: LocalStore) -> str:
    return f"file://{quote(str(store.root / REPORT))}"


@asynccontextmanager
async def opened(url: str, width: int, height: int) -> AsyncIterator[Page]:
    """The page in a window. Nothing goes wrong in it, and nothing is loaded but itself and local pictures."""
    phone = width < 500
    async with open_page(width, height, phone=phone, dark=phone) as page:
        await page.call("Page.navigate", url=url)
        await page.until("document.readyState === 'complete'")
        yield page
        assert page.errors == []
        asked = [urlsplit(each) for each in page.requests]
        assert {each.scheme for each in asked} <= {"file", "data", "about"}
        for each in asked:
            if each.scheme == "file" and not each.path.endswith(f"/{REPORT}"):
                assert re.search(r"/(images|photos)/", each.path), each
                assert Path(unquote(each.path)).is_file(), each
        assert not await page.do("document.documentElement.scrollWidth > innerWidth"), "nothing sticks out"


async def search(page: Page, text: str) -> None:
    await page.do(f"$('search').value = '{text}'; $('search').dispatchEvent(new Event('input'))")


async def painted(page: Page) -> None:
    """All thumbnails that are in sight are there, in their colors."""
    await page.until(
        "[...grid.tiles.values()].flatMap(tile => tile.images).length > 3 && "
        "[...grid.tiles.values()].flatMap(tile => tile.images).every(image => image.naturalWidth > 100)"
    )


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_all_rows_are_there_and_the_first_at_once(store: LocalStore, width: int, height: int) -> None:
    async def scenario() -> None:
        async with opened(address(store), width, height) as page:
            paint = await page.do("performance.getEntriesByType('paint').map(each => each.startTime / 1000)")
            print(f"{width} px: first paint after {max(paint):.3f} s")
            assert 0 < max(paint) < FIRST_PAINT_S
            await painted(page)
            assert (await shown(page))[:3] == [key(0), key(1), key(2)]
            assert await page.do("list.total") == COUNT
            assert await page.do("chunks.size") == 1, "what is not seen is not read"
            await shoot(page, f"report-{width}")
            await page.do("$('scroll').scrollTop = 1e9")
            await page.until(f"grid.tiles.has({COUNT - 1})")
            await painted(page)
            assert (await shown(page))[-1] == key(COUNT - 1)
            assert await page.do("grid.tiles.size") < 120
            assert await page.do("chunks.size") < 5
            await page.do("$('scroll').scrollTop = $('scroll').scrollHeight / 2")
            await page.until("Math.abs(grid.range()[0] - list.total / 2) < 200")
            middle = [int(each.split()[-1]) for each in await shown(page)]
            assert middle == list(range(middle[0], middle[0] + len(middle)))

    asyncio.run(scenario())


def test_thumbnails_that_come_late_are_shown(store: LocalStore) -> None:
    """As in a large file that is read from a slow place."""
    late = """
      let read = false;
      addEventListener("DOMContentLoaded", () => { read = true; }, { capture: true });
      document.getElementById = (id) =>
        id.startsWith("pictures-") && !read ? null : Document.prototype.getElementById.call(document, id);
    """

    async def scenario() -> None:
        async with opened("about:blank", 1280, 800) as page:
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=late)
            await page.call("Page.navigate", url=address(store))
            await page.until("document.readyState === 'complete' && typeof grid === 'object'")
            await painted(page)

    asyncio.run(scenario())


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_is_searched_filtered_sorted_and_looked_through(store: LocalStore, width: int, height: int) -> None:
    async def scenario() -> None:
        async with opened(address(store), width, height) as page:
            await search(page, "<SCRIPT>")
            await page.until("list.total === 1")
            assert await shown(page) == [EVIL]
            await page.press("Escape")
            await search(page, "")
            await page.until(f"list.total === {COUNT}")
            await choose(page, "status", "failed")
            bad = sum(map(failed, range(COUNT)))
            await page.until(f"list.total === {bad}")
            assert "DecodeError: it looks like text" in await page.do(
                "document.querySelector('.tile').innerText"
            )
            await choose(page, "status", "")
            await choose(page, "mark", "keep")
            await page.until("list.total === 1")
            assert await shown(page) == [key(1)]
            assert await page.do("document.querySelector('.tile .marks').textContent") == "✓"
            assert await page.do("document.querySelectorAll('.marks button').length") == 0
            await choose(page, "mark", "")
            await choose(page, "sort", "stats.change")
            assert await page.do("document.querySelectorAll('.heading').length") == 0
            await page.click("#direction")
            await page.until(f"list.total === {COUNT} && itemAt(0)?.figures['stats.change'] === 0.4995")
            for descending in ("1", ""):  # those without come last
                order = f"orderOf({{ ...query, descending: '{descending}' }})"
                assert await page.do(f"{order}.map(row => row.status).lastIndexOf('ok')") == COUNT - bad - 1
            await choose(page, "sort", "row")
            await page.click("#direction")
            await page.until(f"list.total === {COUNT} && itemAt(0)?.row === 0")
            await look_through(page, f"report-{width}")

    asyncio.run(scenario())


async def look_through(page: Page, name: str) -> None:
    """The viewer: files at full size, keys, what is said of each photograph."""
    await painted(page)
    await page.click(".tile .open")
    both = "['before', 'after'].every(side => $(side).complete && $(side).naturalWidth > 0)"
    await page.until(f"viewer.isOpen() && {both}")
    told = await page.do("['before', 'after'].map(side => [$(side).src, $(side).naturalWidth])")
    assert [told[0][1], told[1][1]] == [480, 480]
    assert told[0][0].endswith("/photos/0.jpg")
    assert told[1][0].endswith(f"/images/{quote(key(0))}.jpg")
    assert await page.do("$('curve').querySelector('polyline').getAttribute('points')")
    assert "8 at evaluation 1, 1 at 4" in await page.do("$('curve').textContent")
    await shoot(page, f"{name}-viewer")
    for row in range(1, 6):
        await page.press("ArrowRight")
        await page.until(f"viewer.item.row === {row}")
        assert await page.do("$('curve').childElementCount") == 0
    assert "it looks like text" in await page.do("$('viewer-reason').innerText")
    await shoot(page, f"{name}-failed")
    await page.press("k")
    await page.press("ArrowLeft")
    await page.until("viewer.item.row === 4")
    assert await page.do("viewer.item.mark") is None, "nobody keeps marks here"
    await page.press("Escape")
    await page.until("!viewer.isOpen() && grid.current === 4")
    await page.press("ArrowRight")
    await page.press("Enter")
    await page.until("viewer.isOpen() && viewer.item.row === 5")
    await page.press("Escape")
    # What is opened again at once stays so, though the browser tells later that the viewer was closed.
    again = "viewer.open(3).then(() => { viewer.close(); return viewer.open(4); })"
    late = "new Promise(done => $('viewer').addEventListener('close', () => setTimeout(done), { once: true }))"
    assert await page.do(f"Promise.all([{late}, {again}]).then(() => viewer.item?.row)") == 4
    await page.do("viewer.open(5)")
    await page.press("Escape")
    await page.until("!viewer.isOpen()")
    await page.click(".about")
    await page.until("$('details').open")
    assert "Time per stage" in await page.do("$('details').innerText")
    await shoot(page, f"{name}-details")
    await page.click("#details h2")
    await page.press("ArrowDown")
    await page.until("document.querySelector('#details .sheet').scrollTop > 0")
    await page.press("ArrowRight")
    await page.press("Escape")
    await page.until("!$('details').open")
    assert await page.do("grid.current") == 5


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_folders_have_headings_and_are_walked_through(store: LocalStore, width: int, height: int) -> None:
    async def scenario() -> None:
        async with opened(address(store), width, height) as page:
            await painted(page)
            columns = await page.do("grid.columns")
            heading = "document.querySelector('.heading').innerText"
            assert await page.do(heading) == "2019/rome7", "another folder's evil name is between"
            await search(page, "img")
            await page.until(f"list.total === {COUNT - 1}")
            assert await page.do(heading) == "2019/rome49"
            assert await page.do("document.querySelector('.tile .in').offsetHeight") == 0
            keys = [key(number) for number in range(COUNT) if key(number) != EVIL]
            folders = itertools.groupby(enumerate(keys), lambda each: each[1].rpartition("/")[0])
            assert await page.do("list.headings") == [[next(some)[0], folder] for folder, some in folders]
            # From the last line of a folder to the first one of the next, in the same column, and back.
            await page.do("grid.walk(48 - grid.current)")
            walk = [
                (await page.press(each), await page.do("grid.current"))[1] for each in ("ArrowDown", "ArrowUp")
            ]
            assert walk == [49 + 48 % columns, 48]
            await page.press("ArrowDown")
            assert key(50) in await shown(page)
            await shoot(page, f"report-{width}-headings")
            # One part of a heading is the folder above.
            buttons = "[...document.querySelectorAll('.heading button')]"
            await page.do(f"{buttons}.find(each => each.textContent === 'lisbon').click()")
            await page.until("list.total === 500")
            assert await page.do("$('folder').textContent") == "in 2019/lisbon ✕"
            assert await page.do(heading) == "2019/lisbon500"
            await page.click("#folder")
            await page.until(f"list.total === {COUNT - 1}")
            # No two tiles or headings lie on each other, and every tile is where keys go.
            await page.do("grid.goTo(grid.spot(49).top - 200); grid.render()")
            assert await page.do(OVERLAPS) == []

    asyncio.run(scenario())


OVERLAPS = """(() => {
  const tiles = [...document.querySelectorAll('.tile, .heading')];
  const boxes = tiles.map((each) => [each.textContent, each.getBoundingClientRect()]);
  const beside = (a, b) => a.right < b.left + 1 || b.right < a.left + 1;
  const below = (a, b) => a.bottom < b.top + 1 || b.bottom < a.top + 1;
  const meet = (a, b) => a !== b && !beside(a, b) && !below(a, b);
  return boxes.flatMap(([name, a]) => boxes.filter(([, b]) => meet(a, b)).map(([other]) => [name, other]));
})()"""


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_is_filtered_is_printed(store: LocalStore, width: int, height: int) -> None:
    async def scenario() -> None:
        async with opened(address(store), width, height) as page:
            await painted(page)
            await choose(page, "mark", "keep")
            await page.until("list.total === 1")
            assert await pages(page, f"report-{width}-one") == 1
            await choose(page, "mark", "")
            await page.until(f"list.total === {COUNT}")
            count = await pages(page, f"report-{width}")
            assert 400 / 24 <= count <= 400 / 6, "of the first 400, with nothing between"
            assert await page.do("$('print').childElementCount") == 0
            await painted(page)

    asyncio.run(scenario())


async def pages(page: Page, name: str) -> int:
    """Prints, and gives the number of pages."""
    data = base64.b64decode((await page.call("Page.printToPDF"))["data"])
    if SHOTS is not None:
        (Path(SHOTS) / f"{name}.pdf").write_bytes(data)
    return len(re.findall(rb"/Type\s*/Page\b", data))


def test_alone_it_shows_thumbnails(store: LocalStore, tmp_path: Path) -> None:
    """Sent to somebody, without the files beside it."""
    shutil.copy(store.root / REPORT, tmp_path / REPORT)

    async def scenario() -> None:
        async with open_page(1280, 800) as page:
            await page.call("Page.navigate", url=f"file://{tmp_path}/{REPORT}")
            await page.until("document.readyState === 'complete' && list.total")
            await page.do("viewer.open(0)")
            small = "$(side).src.startsWith('data:') && $(side).naturalWidth > 100"
            await page.until(f"viewer.isOpen() && ['before', 'after'].every(side => {small})")
            assert all("ERR_FILE_NOT_FOUND" in each for each in page.errors), page.errors

    asyncio.run(scenario())


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_of_a_training(photos: Path, width: int, height: int) -> None:
    store = ended(photos).store
    path = publish_training_report(store)
    check_harmless(Path(path).read_text(), {"data:"})

    async def scenario() -> None:
        async with opened(f"file://{path}", width, height) as page:
            assert await page.do("document.querySelectorAll('polyline').length") > 5
            rights = (
                "[...document.querySelectorAll('figure, svg')].map(each => each.getBoundingClientRect().right)"
            )
            assert max(await page.do(rights)) <= width
            await shoot(page, f"training-{width}")
            count = await page.do("samples.length")
            assert count == 3
            await page.click(".sample")
            await page.until("viewer.isOpen() && $('before').naturalWidth > 0")
            assert await page.do("$('viewer-name').textContent") == "samples of step 5"
            await page.press("ArrowRight")
            await page.until("$('viewer-name').textContent === 'samples of step 10'")
            await shoot(page, f"training-{width}-viewer")
            await page.press("Escape")
            await page.until("!viewer.isOpen()")
            assert await page.do("document.activeElement === samples[1]")
            assert 2 <= await pages(page, f"training-{width}") <= 10

    asyncio.run(scenario())
