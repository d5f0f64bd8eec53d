"""`nst stylize`: --quality, --sequence, and what else follows from them; `nst styles`."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.cli.quality import stylize_table
from nst.errors import OptionError
from nst.styles import STYLES

Photos = Callable[..., Path]


@pytest.fixture
def ask(tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    photos(2)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def planned(folder: Path, out: str = "out") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / out / "job.json").read_bytes())
    return found


@pytest.mark.parametrize(
    ("quality", "overrides", "kind"),
    [
        (None, [], "feed_forward"),
        ("draft", [], "feed_forward"),
        ("best", [], "style_transfer"),
        (None, ["method.strength=0.5"], "feed_forward"),
        (None, ["method.style_side_px=300"], "feed_forward"),
        (None, ["method.network=embedded"], "style_transfer"),
        (None, ["method.content_layers.relu2_1=1.0"], "style_transfer"),
        (None, ["seed=3", "image.format=png"], "feed_forward"),
        ("draft", ["method.kind=style_transfer"], "feed_forward"),  # what --set says is applied later
    ],
    ids=str,
)
def test_quality_is_a_method(quality: Any, overrides: list[str], kind: str) -> None:
    found = stylize_table(["swirls"], quality, overrides, first_frame=None)
    assert found["method"]["kind"] == kind
    assert found["method"]["style"] == "nst:style/swirls"
    assert ("image" in found) == (kind == "feed_forward")


@pytest.mark.parametrize(
    ("quality", "overrides", "said"),
    [
        ("draft", ["method.steps=5"], "--set = 'method.steps=5': goes with --quality best"),
        ("adapted", ["seed=1", "method.curve=true"], "--set = 'method.curve=true': goes with --quality best"),
        ("best", ["method.strength=1"], "--set = 'method.strength=1': goes with --quality draft or adapted"),
        (
            None,
            ["method.strength=0.3", "method.steps=5"],
            "--set = 'method.strength=0.3': goes with --quality draft or adapted, "
            "and 'method.steps=5' with best",
        ),
    ],
    ids=str,
)
def test_an_option_of_another_quality_says_which(quality: Any, overrides: list[str], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        stylize_table(["swirls"], quality, overrides, first_frame=None)
    assert str(caught.value) == said


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_style_is_not_all_pictures_of_the_current_folder(empty: str) -> None:
    with pytest.raises(OptionError, match=f"--style = '{empty}': a picture, .* is required. Choices: swirls"):
        stylize_table([empty], None, [], first_frame=None)


def test_a_draft_has_the_photographs_own_size(ask: Callable[..., Any], tmp_path: Path) -> None:
    done = ask("stylize", "photos", "--style", "swirls", "--out", "out", "--pool", "local", "--workers", 1)
    assert done.exit_code == 0, done.output
    record = planned(tmp_path)
    assert record["job"]["method"]["kind"] == "feed_forward"
    assert record["assets"]["weights"]["url"] == "nst:painter"
    for photo in sorted((tmp_path / "photos").iterdir()):
        assert size_of(tmp_path / "out" / "images" / f"{photo.stem}.jpg") == size_of(photo)
    ask("stylize", "photos", "--style", "swirls", "--out", "small", "--size", 20, "--pool", "local")
    assert max(size_of(tmp_path / "small" / "images" / f"{photo.stem}.jpg")) == 20


def test_frames_of_a_sequence_share_the_first_ones_reference(ask: Callable[..., Any], tmp_path: Path) -> None:
    words = ("stylize", "photos", "--style", "swirls", "--out", "out", "--sequence", "--dry-run")
    assert ask(*words).exit_code == 0
    words = words[:-1]
    assert ask(*words, "--pool", "local").exit_code == 0
    first = min((tmp_path / "photos").iterdir())
    assert planned(tmp_path)["assets"]["reference"]["url"] == str(first)
    again = ask(*words, "--pool", "local")
    assert again.exit_code == 0, again.output


def test_the_first_frame_is_one_of_the_jobs(ask: Callable[..., Any], tmp_path: Path) -> None:
    words = ("stylize", "photos", "--style", "swirls", "--out", "out", "--sequence", "--dry-run")
    first, second, *_ = sorted((tmp_path / "photos").iterdir())
    done = ask(*words, "--set", f"exclude={first.name}")
    assert done.exit_code == 0, done.output
    assert f'"reference": "{second}"' in done.output


def test_a_sequence_is_no_matter_of_optimization(ask: Callable[..., Any]) -> None:
    done = ask("stylize", "photos", "--style", "swirls", "--out", "out", "--sequence", "--quality", "best")
    assert done.exit_code == 2
    assert "--sequence = True: goes with --quality draft" in done.output
    with pytest.raises(OptionError):
        stylize_table(["swirls"], "best", [], first_frame="a.jpg")


def test_a_sequence_without_photographs(ask: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = ask("stylize", "none", "--style", "swirls", "--out", "out", "--sequence")
    assert done.exit_code == 2
    assert "none" in done.output


def test_quality_is_one_of_two(ask: Callable[..., Any]) -> None:
    done = ask("stylize", "photos", "--style", "swirls", "--out", "out", "--quality", "good")
    assert done.exit_code == 2
    assert "draft" in done.output
    assert "best" in done.output


def test_a_sheet_of_all_styles(ask: Callable[..., Any], tmp_path: Path) -> None:
    photo = min((tmp_path / "photos").iterdir())
    before = {*tmp_path.iterdir()}
    done = ask("styles", photo, "--out", "s.png", "--size", 48)
    assert done.exit_code == 0, done.output
    assert {*tmp_path.iterdir()} - before == {tmp_path / "s.png"}
    assert f"--style {next(iter(STYLES))}" in done.output
    with Image.open(tmp_path / "s.png") as opened:
        sheet = opened.convert("RGB")
    width, height = sheet.size
    columns, rows = 4, 3
    assert columns * rows == len(STYLES)
    cells = {
        sheet.crop((x * width // 4, y * height // 3, (x + 1) * width // 4, (y + 1) * height // 3)).tobytes()
        for x in range(columns)
        for y in range(rows)
    }
    assert len(cells) == len(STYLES), "each is another picture"


def test_a_full_disk_is_named_and_left_as_it_was(
    ask: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("jobs.stores.local_files.os.fsync", full)
    before = {*tmp_path.iterdir()}
    done = ask("styles", min((tmp_path / "photos").iterdir()), "--out", "s.png", "--size", 48)
    assert (done.exit_code, {*tmp_path.iterdir()}) == (4, before)
    assert f"error: {tmp_path}/s.png: OSError: [Errno 28]" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none.jpg",), "PHOTO = 'none.jpg'"),
        (("broken.jpg",), "PHOTO = 'broken.jpg'"),
        (("photos/photo 000.jpg", "--out", "s.gif"), "--out = 's.gif'.*its extension says its format"),
    ],
    ids=str,
)
def test_what_no_sheet_is_made_of(
    words: tuple[str, ...], said: str, ask: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    done = ask("styles", *words)
    assert done.exit_code == 2
    assert re.search(said, " ".join(done.output.split())), done.output
