"""`nst preview`: which photographs are chosen, the sheet, the page, and jobs that paint what they show."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import count as counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import jobs.preview.run
from jobs.cli.app import app
from jobs.cli.preview_columns import stored, styles_at
from jobs.config.tables import toml_text
from jobs.driver.assets import by_url
from jobs.driver.job import Job, create_or_open
from jobs.driver.run import run, worker_setup
from jobs.ledger.folders import Photo
from jobs.ledger.left_out import LeftOut
from jobs.ledger.listing import list_photos
from jobs.preview.choice import LOOKED_AT, choose, farthest, features, spread
from jobs.preview.paint import Painters
from jobs.spec import job_to_table, read_job_file
from jobs.stores.filesystems import STANDARD_STORAGE
from jobs.worker.messages import Ready, WorkerId
from jobs.worker.worker import Worker
from nst.styles import STYLES
from tests.chaos import InlinePool
from tests.conftest import encoded, picture

pytestmark = pytest.mark.usefixtures("signal_handlers")


ODD = """it's <b>"x"<u> & $HOME"""
SIDE = 48


def ask(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "400"})


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pres: list[str] = []
        self.text, self._in_pre = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_pre = tag == "pre"
        self.pres += [""] if self._in_pre else []

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._in_pre = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_pre:
            self.pres[-1] += data

    def values(self, name: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(name)) is not None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a preview of four of five photographs in three styles, each twice, all under odd names."""
    home = tmp_path_factory.mktemp("home") / ODD
    (home / "photos" / ODD).mkdir(parents=True)
    (home / "styles").mkdir()
    for number in range(5):
        name = f"{ODD}/{number}.jpg" if number % 2 else f"{number} {ODD}.jpg"
        (home / "photos" / name).write_bytes(encoded(picture(number, 50 + number, 30 + 10 * number)))
    (home / "photos" / "bad.jpg").write_bytes(b"no photograph")
    for number, name in enumerate((f"{ODD}.png", "wave.jpg", "wave.png")):
        picture(20 + number, 40, 40).save(home / "styles" / name)
    (home / "styles" / "broken.png").write_bytes(b"no picture")
    picture(9, 4, 30).save(home / "styles" / "tiny.png")
    done = ask(
        *("preview", home / "photos", "--styles", home / "styles", "--strengths", "0.5,1", "--size", SIDE),
        *("--count", 4, "--out", home / "try"),
    )
    assert done.exit_code == 0, done.output
    assert "24 of 24 pictures" in done.output
    assert re.search(r"left out: photograph bad: .*not a picture", done.output)
    assert re.search(r"left out: style .*/broken\.png: .*not a picture", done.output)
    assert re.search(r"left out: style .*/tiny\.png: is 4 x 30 pixels", done.output)
    return home


def columns(home: Path) -> list[Path]:
    """The jobs' files, in the order of the columns."""
    record = json.loads((home / "try/preview.json").read_bytes())["preview"]["columns"]
    files = sorted((home / "try/jobs").iterdir())
    assert len(files) == len(record) == 6
    return files


# The choice


def test_photographs_that_differ_are_chosen_and_always_the_same(tmp_path: Path) -> None:
    for number in range(20):
        shade = 118 + number % 5
        Image.new("RGB", (90, 60), (shade, shade, shade)).save(tmp_path / f"gray {number:02d}.png")
    Image.new("RGB", (90, 60), (230, 30, 20)).save(tmp_path / "red.png")
    Image.new("RGB", (90, 60), (4, 4, 4)).save(tmp_path / "dark.png")
    Image.new("RGB", (60, 90), (119, 119, 119)).save(tmp_path / "tall.png")
    Image.new("RGB", (900, 600), (119, 119, 119)).save(tmp_path / "big.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    seen: list[tuple[int, int]] = []

    def chosen() -> list[str]:
        listing = list_photos(str(tmp_path))
        choice = choose(listing, 5, STANDARD_STORAGE, lambda *numbers: seen.append(numbers))
        assert (choice.listed, choice.looked_at) == (25, 25)
        assert [photo.key for photo, _ in choice.unreadable] == ["broken"]
        return [photo.key for photo in choice.photos]

    first = chosen()
    assert set(first) > {"red", "dark", "tall", "big"}
    assert first == sorted(first), "in the order of the listing"
    assert chosen() == first
    assert seen[:25] == [(number, 25) for number in range(1, 26)]


def test_of_many_only_some_are_looked_at_from_all_over() -> None:
    for count in (0, 1, 119, 120, 121, 240, 241, 5000):
        listing = [Photo(key=str(number), url=f"/{number}") for number in range(count)]
        kept, listed = spread(iter(listing), LOOKED_AT)
        assert listed == count
        assert len(kept) == min(count, LOOKED_AT)
        places = [int(photo.key) for photo in kept]
        gaps = np.diff([-1, *places, count])
        assert gaps.max(initial=1) <= 2 * max(1, count // LOOKED_AT) + 2, count


def test_farthest_points_are_those() -> None:
    assert farthest([(0.0,), (10.0,), (5.0,), (4.9,)], 3) == [0, 1, 2]
    assert farthest([(1.0,)] * 5, 3) == [0, 1, 2], "equal ones are different photographs"
    assert farthest([(1.0,), (2.0,)], 3) == [0, 1]
    assert farthest([], 3) == []


def test_features_tell_size_shape_light_and_color() -> None:
    gray = features(encoded(Image.new("RGB", (400, 200), (128, 128, 128)), "PNG"))
    assert gray[1] == pytest.approx(1.0)
    for number, image in {
        0: Image.new("RGB", (800, 400), (128, 128, 128)),
        1: Image.new("RGB", (200, 400), (128, 128, 128)),
        2: Image.new("RGB", (400, 200), (30, 30, 30)),
        6: Image.new("RGB", (400, 200), (200, 90, 90)),
    }.items():
        other = features(encoded(image, "PNG"))
        assert abs(other[number] - gray[number]) > 1 - 1e-6, number


def test_few_photographs_are_all_taken_and_named_ones_alone(made: Path) -> None:
    listing = list_photos(str(made / "photos"))
    assert choose(listing, 20, STANDARD_STORAGE, lambda *_: None).looked_at == 0
    out = made.parent / "named"
    words = ("preview", made / "photos", "--styles", "swirls", "--size", 32, "--out", out)
    place = made / "photos" / f"0 {ODD}.jpg"
    key = next(photo.key for photo in list_photos(str(made / "photos")) if photo.url.endswith("/1.jpg"))
    done = ask(*words, "--photo", place, "--photo", key)
    assert done.exit_code == 0, done.output
    assert len(list(out.rglob("pictures/swirls/**/*.jpg"))) == 2
    assert (out / f"pictures/swirls/{key}.jpg").exists()
    wrong = ask(*words, "--photo", "nowhere")
    assert wrong.exit_code == 2
    assert "--photo = 'nowhere': is neither a key nor a path of the 6 photographs" in wrong.output


# What is made


def test_the_sheet_has_every_picture_in_its_cell(made: Path) -> None:
    with Image.open(made / "try/sheet.png") as opened:
        sheet = np.asarray(opened.convert("RGB")).astype(int)
    record = json.loads((made / "try/preview.json").read_bytes())["preview"]
    side = 240
    assert sheet.shape[1] == 6 + 7 * (side + 6)
    keys = {str(Path(photo.url)): photo.key for photo in list_photos(str(made / "photos"))}
    top = sheet.shape[0]
    rows = [keys[url] for url in record["photos"]]
    assert len(rows) == 4
    for key in reversed(rows):
        pictures = [Image.open(made / "try/pictures" / path.stem / f"{key}.jpg") for path in columns(made)]
        width, height = pictures[0].size
        scale = min(side / width, 1.5 * side / height)
        width, height = round(width * scale), round(height * scale)
        top -= height + 28
        expected = [np.asarray(each.convert("RGB").resize((width, height))).astype(int) for each in pictures]
        for number in range(6):
            left = 6 + (number + 1) * (side + 6) + (side - width) // 2
            cell = sheet[top : top + height, left : left + width]
            off = [float(np.abs(cell - each).mean()) for each in expected]
            assert int(np.argmin(off)) == number
            assert off[number] < 4


def test_the_page_runs_nothing_loads_nothing_and_escapes_names(made: Path) -> None:
    text = (made / "try/index.html").read_text()
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "u"} & set(tags)
    assert tags.count("b") == 1 + 4 * 7, "those of the page, none of a name"
    assert "default-src 'none'; img-src data:" in text
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.values("src"))
    assert tags.count("figure") == 4 * 7
    assert tags.count("img") == 4 * 7 + 3
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for link in page.values("href"):
        if link.startswith("#"):
            assert link[1:] in ids
        else:
            assert (made / "try" / unquote(link)).is_file()
    assert ODD in page.text
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_jobs_are_those_of_their_command_lines(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.parent)
    page = Page((made / "try/index.html").read_text())
    for path, run_line, line, text in zip(
        columns(made), page.pres[::3], page.pres[1::3], page.pres[2::3], strict=True
    ):
        assert shlex.split(run_line) == ["nst", "run", str(path)]
        assert text == path.read_text().rstrip("\n")
        table = job_to_table(read_job_file(path))
        assert table["photos"] == str(made / "photos")
        assert table["output"] == str(made / f"painted-{path.stem}")
        assert table["image"]["max_side_px"] == 0
        assert Path(table["method"]["style"]).is_file()
        done = ask(*shlex.split(line)[1:], "--dry-run")
        assert done.exit_code == 0, done.output
        planned, _ = json.JSONDecoder().raw_decode(done.stdout)
        planned["resources"] = table["resources"]  # which are fitted to this machine
        assert planned == table


class Pool(InlinePool):
    """With what the method needs."""

    def __init__(self, job: Job) -> None:
        super().__init__(worker_setup(job))
        self._assets = by_url(job.assets)

    def start(self, worker: WorkerId) -> None:
        self._workers[worker] = Worker(self._setup, self._assets)
        self._events.append(Ready(worker, self._workers[worker].info()))


def test_a_job_paints_what_its_column_shows(made: Path) -> None:
    for path in columns(made)[:3]:
        file = read_job_file(path, [f"image.max_side_px={SIDE}", "resources.pool=local"])
        job = create_or_open(file)
        assert run(job, pool=Pool(job)).counts["ok"] == 5
        shown = made / "try/pictures" / path.stem
        pictures = [each.relative_to(shown) for each in shown.rglob("*.jpg")]
        assert len(pictures) == 4
        for picture_path in pictures:
            painted = Path(file.spec.output, "images", picture_path).read_bytes()
            assert painted == (shown / picture_path).read_bytes(), picture_path
        shutil.rmtree(file.spec.output)


def test_strengths_are_different_and_0_is_the_photograph(made: Path) -> None:
    out = made.parent / "strengths"
    done = ask(
        *("preview", made / "photos", "--photo", made / "photos" / f"0 {ODD}.jpg", "--styles", "rose"),
        *("--size", 40, "--out", out, "--strengths", "0, 0.3,1, 0.3"),
    )
    assert done.exit_code == 0, done.output
    names = ("rose-0", "rose-0.3", "rose-1")
    assert sorted(path.stem for path in (out / "jobs").iterdir()) == sorted(names)
    found = [
        np.asarray(Image.open(next((out / "pictures" / name).rglob("*.jpg")))).astype(int) for name in names
    ]
    with Image.open(made / "photos" / f"0 {ODD}.jpg") as photo:
        plain = np.asarray(photo.convert("RGB").resize(found[0].shape[1::-1])).astype(int)
    off = [float(np.abs(each - plain).mean()) for each in found]
    assert off[0] < 4 < off[1] < off[2]


def test_an_earlier_preview_is_replaced_and_nothing_else_is(made: Path, tmp_path: Path) -> None:
    words = ("preview", made / "photos", "--size", 32, "--count", 1, "--out", tmp_path / "out")
    assert ask(*words, "--styles", "swirls").exit_code == 0
    assert ask(*words, "--styles", "rose").exit_code == 0
    assert [path.name for path in (tmp_path / "out/pictures").iterdir()] == ["rose"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("mine")
    done = ask(*words[:-1], tmp_path / "mine", "--styles", "swirls")
    assert done.exit_code == 2
    assert "holds something that is no preview" in done.output
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_no_job_takes_a_previews_pictures_for_photographs(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "photos", tmp_path / "photos")
    shutil.copytree(made / "try", tmp_path / "photos/preview")
    left_out = LeftOut()
    keys = [photo.key for photo in list_photos(str(tmp_path / "photos"), left_out=left_out)]
    assert len(keys) == 6
    assert left_out.count == 1
    (tmp_path / "photos/preview/preview.json").write_text("{}")
    assert len(list(list_photos(str(tmp_path / "photos")))) > 24


# What goes wrong


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--quality", "adapted"), "--quality = 'adapted': learns each style for minutes"),
        (("--quality", "bets"), r"--quality = 'bets': not one of the choices \(did you mean 'best'"),
        (("--strengths", "0.5;1"), "--strengths = '0.5;1': are numbers from 0 to 1"),
        (("--strengths", "1.5"), "--strengths = '1.5': are numbers from 0 to 1"),
        (("--strengths", "nan"), "--strengths = 'nan': are numbers from 0 to 1"),
        (("--strengths", "0.5", "--quality", "best"), "--strengths = '0.5': go with --quality draft"),
        (("--styles", "swrls"), "--styles = 'swrls': is neither a file nor a folder"),
        (("--styles", "empty"), "--styles = 'empty': there is no picture in this folder"),
        (("--styles", "none.jpg"), "no style can be read: left out: style .*none.jpg: there is no such file"),
        (("--out", "s3://bucket/out"), "--out = 's3://bucket/out': must be a folder of this machine"),
        (("--styles", "https://me:secret@example.org/a.jpg"), r"must not hold credentials"),
    ],
    ids=str,
)
def test_what_is_asked_for_wrongly(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    photos: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(2)
    (tmp_path / "empty").mkdir()
    done = ask("preview", "photos", *words)
    assert done.exit_code == 2, done.output
    assert re.search(said, " ".join(done.output.split())), done.output
    assert not (tmp_path / "preview").exists()


def test_help_lists_the_qualities_that_it_takes() -> None:
    told = " ".join(ask("preview", "--help").output.split())
    assert "[draft|best]" in told
    assert "adapted" not in told


def test_no_photograph_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert "there is no photograph" in ask("preview", "photos", "--styles", "swirls").output
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"none")
    for count in (1, 2):
        done = ask("preview", "photos", "--styles", "swirls", "--count", count)
        assert done.exit_code == 2
        assert "no photograph can be read" in done.output
        assert "left out: photograph a" in done.output
    assert not (tmp_path / "preview").exists()


def test_a_picture_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(3)
    plain = Painters.of

    def of(self: Painters, column: Any) -> Any:
        paint = plain(self, column)

        def some(photo: Any, key: str) -> Any:
            if key == "photo 001":
                raise RuntimeError("this <one> raises")
            return paint(photo, key)

        return some

    monkeypatch.setattr(Painters, "of", of)
    done = ask(
        *("preview", tmp_path / "photos", "--styles", "swirls", "--styles", "rose", "--size", 32),
        *("--out", tmp_path / "out"),
    )
    assert done.exit_code == 3, done.output
    assert "4 of 6 pictures" in done.output
    assert "left out: photo 001 in rose: this <one> raises" in done.output
    page = Page((tmp_path / "out/index.html").read_text())
    assert page.text.count("this <one> raises") == 2 + 2
    assert "4 of 6 pictures are painted" in page.text


def test_ctrl_c_leaves_what_is_done(
    tmp_path: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(2)
    monkeypatch.setattr(jobs.preview.run, "cpu_count", lambda: 1)
    plain = Painters.of

    def of(self: Painters, column: Any) -> Any:
        if column.name == "etching":
            signal.raise_signal(signal.SIGINT)
        return plain(self, column)

    monkeypatch.setattr(Painters, "of", of)
    done = ask("preview", tmp_path / "photos", "--size", 32, "--out", tmp_path / "out")
    assert done.exit_code == 75, done.output
    assert "stopped: 2 of 24 pictures" in done.output
    page = Page((tmp_path / "out/index.html").read_text())
    assert page.values("id").count("picture-2-1") == 1
    assert [tag for tag, _ in page.tags].count("figure") == 2 + 2
    assert (tmp_path / "out/sheet.png").exists()
    assert len(list((tmp_path / "out/jobs").iterdir())) == len(STYLES)


def whole(out: Path, styles: int, photos: int) -> int:
    """How many pictures a page has that was left by Ctrl-C; all of them are there, as is all that it names."""
    page = Page((out / "index.html").read_text())
    there = {str(path.relative_to(out)) for path in (out / "pictures").rglob("*.jpg")}
    for path in there:
        Image.open(out / path).load()
    linked = {unquote(value) for value in page.values("href") if value.startswith("pictures/")}
    assert linked == there
    assert len(page.pres) >= styles, "the commands of all columns are there"
    Image.open(out / "sheet.png").load()
    assert {path.name for path in out.iterdir()} == {
        "index.html",
        "sheet.png",
        "jobs",
        "pictures",
        "preview.json",
    }
    assert f"{len(there)} of {styles * photos} pictures are painted" in page.text
    return len(there)


def test_ctrl_c_while_several_paint(tmp_path: Path, photos: Callable[..., Path]) -> None:
    """A real signal, in threads that paint at once: those in work are finished, and no more are begun."""
    photos(4, width=400, height=300)
    out = tmp_path / "out"
    script = """
import signal, time
import jobs.preview.run
from jobs.cli.app import main
from nst.feed_forward.stylizer import FeedForwardStylizer
paint = FeedForwardStylizer.__call__
FeedForwardStylizer.__call__ = lambda *each: time.sleep(0.5) or paint(*each)  # so that there are some left
jobs.preview.run.cpu_count = lambda: 2
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background has switched off
main()
"""
    words = ["preview", str(tmp_path / "photos"), "--size", "384", "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-c", script, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not list(out.rglob("pictures/*/*.jpg")):
            assert process.poll() is None, process.stderr
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        # In the time between, each thread may have begun another one.
        most = len(list(out.rglob("pictures/*/*.jpg"))) + 2 * 2
        said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (75, "")
    ends = [line for line in said.splitlines() if line.startswith("stopped")]
    painted = whole(out, len(STYLES), 4)
    assert [line.partition(" in ")[0] for line in ends] == [f"stopped: {painted} of {4 * len(STYLES)} pictures"]
    assert 1 <= painted <= most


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_page_is_written(
    tmp_path: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    photos(1)
    sheet, calls = jobs.preview.run.contact_sheet, counter()

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 1:
            signal.raise_signal(number)
        return sheet(*arguments)

    monkeypatch.setattr(jobs.preview.run, "contact_sheet", interrupted)
    monkeypatch.setattr(jobs.preview.run, "_FIRST_LOOK_S", 0.0)
    monkeypatch.setattr(jobs.preview.run, "_LOOK_SHARE", 0)
    monkeypatch.setattr(jobs.preview.run, "cpu_count", lambda: 2)
    done = ask("preview", tmp_path / "photos", "--size", 32, "--out", tmp_path / "out")
    assert done.exit_code == 75, done.output
    assert whole(tmp_path / "out", len(STYLES), 1) >= 2


def test_signals_while_the_last_page_is_written(
    tmp_path: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures are there, and it must not be said that nothing is; whoever asks again has the page, too."""
    photos(1)
    sheet = jobs.preview.run.contact_sheet

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return sheet(*arguments)

    monkeypatch.setattr(jobs.preview.run, "contact_sheet", interrupted)
    words = ("preview", tmp_path / "photos", "--styles", "swirls", "--size", 32, "--out", tmp_path / "out")
    done = ask(*words)
    assert done.exit_code == 75, done.output
    assert "stopped: 1 of 1 pictures" in done.output
    assert "nothing was written" not in done.output
    assert {"index.html", "sheet.png", "pictures"} <= {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("place", ["jobs.preview.run._decoded", "jobs.cli.preview.choose"])
def test_ctrl_c_before_it_paints_changes_nothing(
    tmp_path: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    photos(1)
    words = ("preview", tmp_path / "photos", "--styles", "swirls", "--size", 32, "--out", tmp_path / "out")
    assert ask(*words).exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def interrupted(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(place, interrupted)
    done = ask(*words)
    assert (done.exit_code, done.output.splitlines()[-1]) == (
        75,
        "stopped before anything was painted; nothing was written",
    )
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_best_is_a_job_of_its_own(
    tmp_path: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(1)
    out = tmp_path / "out"

    class Few(Painters):
        def of(self, column: Any) -> Any:
            method = replace(column.job.spec.method, steps=1, coarse_steps=1)
            spec = replace(column.job.spec, method=method)
            return super().of(replace(column, job=replace(column.job, spec=spec)))

    monkeypatch.setattr(jobs.preview.run, "Painters", Few)
    words = ("--styles", "swirls", "--quality", "best", "--size", 40, "--out", out)
    done = ask("preview", tmp_path / "photos", *words)
    assert done.exit_code == 0, done.output
    assert "best optimizes each picture" in done.output
    file = read_job_file(out / "jobs/swirls.toml")
    assert (file.spec.kind, file.spec.image.max_side_px) == ("style_transfer", 40)
    _, line, _ = Page((out / "index.html").read_text()).pres
    assert shlex.split(line)[-4:] == ["--quality", "best", "--size", "40"]
    assert list(out.rglob("pictures/swirls/*.jpg"))


# Names


def test_styles_have_names_of_their_own() -> None:
    places = ["nst:style/swirls", "/a/Swirls.jpg", "/b/swirls.jpg", "/b/swirls-2", "s3://c/d/con.png"]
    names = [style.name for style in styles_at(places)]
    assert len({name.lower() for name in names}) == 5
    assert not [name for name in names if "/" in name or name == "con"]
    assert [style.shown for style in styles_at(places)][:2] == ["swirls", "Swirls"]


@pytest.mark.parametrize("path", ["/a/\udcff.jpg", "/a/\n.jpg", "/a/é 'b'.jpg", f"/{ODD}"], ids=ascii)
def test_places_come_back_from_job_files(path: str) -> None:
    place = stored(path)
    assert place.isprintable()
    table = {"photos": [place, "a"], "image": {"max_side_px": 0, "b": {"c": True}}, "method": {"strength": 0.5}}
    assert tomllib.loads(toml_text(table)) == table
    assert tomllib.loads(toml_text({"a": 'x\x7f"\\\n\t\x01'})) == {"a": 'x\x7f"\\\n\t\x01'}


@pytest.mark.browser
def test_opens_from_disk_in_a_real_browser(made: Path, tmp_path: Path) -> None:
    """Chromium, without a network: a picture that is pointed to fills the window, a job that is chosen is
    shown."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed (make test-browser)")
    shots = []
    for part in ("", "#picture-1-1", "#job-1"):
        shot = tmp_path / "shot.png"
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
        ]
        flags += [f"--user-data-dir={tmp_path}/profile", "--window-size=1000,800", f"--screenshot={shot}"]
        page = (made / "try/index.html").as_uri() + part
        done = subprocess.run(
            [browser, *flags, "--enable-logging=stderr", page], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "Content Security Policy" not in done.stderr
        shots.append(np.asarray(Image.open(shot).convert("RGB")).astype(int))
    colorful = [float((each.max(2) - each.min(2) > 40).mean()) for each in shots]
    assert colorful[0] > 0.05, "the pictures are there"
    assert (shots[1][0].max(1) < 40).all(), "the window is dark around a large picture"
    assert np.abs(shots[2] - shots[0])[:200].mean() < 1 < np.abs(shots[2] - shots[0])[-200:].mean()
