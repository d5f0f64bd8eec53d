"""Style pictures that come with the package, by their names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.config.styles import style_place
from jobs.driver.job import create_or_open, plan
from jobs.spec import job_from_table
from jobs.stores.store import LocalStore
from nst.errors import OptionError
from nst.images.codec import decode_image
from nst.styles import PREFIX, STYLES, style_bytes
from tests.conftest import picture


@pytest.mark.parametrize("name", STYLES)
def test_each_is_a_picture(name: str) -> None:
    image = decode_image(style_bytes(PREFIX + name))
    assert image.shape == (3, 256, 256)
    assert float(image.std()) > 0.1


def test_they_are_different() -> None:
    assert len({hashlib.sha256(style_bytes(PREFIX + name)).hexdigest() for name in STYLES}) == len(STYLES) == 12


def test_a_job_has_the_picture_and_its_digest(tmp_path: Path, photos: Callable[..., Path]) -> None:
    photos(1)
    method = {
        "kind": "style_transfer",
        "style": [f"{PREFIX}swirls", f"{PREFIX}rose"],
        "network": "embedded",
        "steps": 1,
    }
    job_file = job_from_table({"photos": "photos", "output": "out", "method": method}, tmp_path)
    create_or_open(job_file)
    record = json.loads(LocalStore(str(tmp_path / "out")).read("job.json"))
    for index, name in enumerate(("swirls", "rose")):
        asset = record["assets"][f"style[{index}]"]
        assert asset["url"] == PREFIX + name
        assert asset["sha256"] == hashlib.sha256(style_bytes(PREFIX + name)).hexdigest()
    assert create_or_open(job_file).fingerprint == record["fingerprint"], "the same job"


def test_a_name_that_there_is_not_is_refused_with_the_choices(
    tmp_path: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(1)
    for style, said in (
        ("swirl", "--style = 'swirl': is neither a file nor a folder here, nor a style that comes with nst"),
        (f"{PREFIX}swirl", f"method.style = '{PREFIX}swirl': there is no such file"),
        ("swirl.jpg", "there is no such file"),
    ):
        given = ["stylize", "photos", "--style", style, "--out", "out", "--set", "method.network=embedded"]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 2
        assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert style_place("swirls") == f"{PREFIX}swirls"
    picture(0, 8, 8).save(tmp_path / "swirls", "PNG")
    assert style_place("swirls") == "swirls"
    assert style_place("s3://bucket/swirls") == "s3://bucket/swirls"
    with pytest.raises(OptionError, match=r"swrls.*did you mean 'swirls'"):
        style_place("swrls")


def test_what_is_in_a_folder_of_styles_and_is_no_picture_is_said(
    tmp_path: Path, photos: Callable[..., Path]
) -> None:
    photos(1)
    folder = tmp_path / "styles"
    (folder / "@eaDir").mkdir(parents=True)
    for name in ("a.png", "@eaDir/a.png"):
        picture(0, 16, 16).save(folder / name)
    (folder / "notes.txt").write_text("about them")
    method = {"kind": "style_transfer", "style": ["styles"], "network": "embedded", "steps": 1}
    table = {"photos": "photos", "output": "out", "method": method}
    planned = plan(job_from_table(table, tmp_path))
    assert [note for note in planned.notes if note.startswith("pictures of")] == [
        "pictures of [method]: left out: 1 (1 .txt): no photographs, by their names and first bytes",
        "pictures of [method]: left out: 1 (1 @eaDir/): hidden, or thumbnails and other helpers of programs",
    ]
    assert planned.table["method"]["style"] == [str(folder / "a.png")]
