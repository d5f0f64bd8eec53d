"""Names of results: what no common file system refuses, and what gives the photograph's name back."""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jobs.ledger.names
import jobs.stores.local_files
import jobs.stores.store
from jobs.driver.job import create_or_open
from jobs.driver.photos import later_photos
from jobs.driver.run import run, worker_setup
from jobs.inspect.verify import verify
from jobs.ledger.listing import list_photos
from jobs.ledger.manifest import write_manifest
from jobs.ledger.names import file_keys, folded, folder_keys, safe_path
from jobs.ledger.receipts import Ledger
from jobs.spec import job_from_table
from jobs.stores.store import FsspecStore
from tests.chaos import InlinePool
from tests.conftest import encoded, picture
from tests.methods import REGISTRY

DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{name}{n}" for name in ("COM", "LPT") for n in "0123456789¹²³")}


def strictest_takes(part: str) -> bool:
    """Microsoft's "Naming Files, Paths, and Namespaces", for a name and for a folder of that name."""
    return (
        not re.search(r'[<>:"/\\|?*\x00-\x1f]', part)
        and not part.endswith((".", " "))
        and part.split(".")[0].rstrip(" ").upper() not in DEVICES
        and 0 < len(part.encode()) <= 255
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("100% done?", "100% done%3F"),
        ('a<b>c:d"e|f*g', "a%3Cb%3Ec%3Ad%22e%7Cf%2Ag"),
        ("back\\slash", "back%5Cslash"),
        ("CON", "%43ON"),
        ("con.tar", "%63on.tar"),
        ("Com7 .x", "%43om7 .x"),
        ("lpt¹", "%6Cpt¹"),
        ("CONSOLE", "CONSOLE"),
        ("dots...", "dots..%2E"),
        ("space ", "space%20"),
        ("b%41", "b%2541"),
        ("%3F", "%253F"),
        ("50%", "50%"),
        ("é ü 日本", "é ü 日本"),
        ("tab\there", "tab%09here"),
        ("..", "%2E%2E"),
    ],
)
def test_the_rule(name: str, key: str) -> None:
    assert safe_path(name) == key
    assert unquote(key) == name
    assert strictest_takes(key)


@pytest.mark.parametrize("letter", ["a", "é", "日", "?"])
def test_long_names_leave_room_for_what_is_added(letter: str) -> None:
    """Extensions, and the names of what is being written."""
    names = [letter * number for number in range(1, 300)]
    keys = [safe_path(name) for name in names]
    assert 197 < max(len(key.encode()) for key in keys) <= 200
    assert len(set(keys)) == len(keys), "what is cut has a digest"
    assert [unquote(key) for key in keys if "~" not in key] == names[: sum("~" not in key for key in keys)]
    assert sum("~" not in key for key in keys) == 200 // len(safe_path(letter).encode())


NAMES = st.text(
    st.sampled_from('aAb\u017fßéE\u0301%%%32Ff?*<>|":\\. \t~-\u0131İK\u212a')
    | st.characters(exclude_categories=["Cs"]),
    min_size=1,
    max_size=12,
).filter(lambda name: "/" not in name and "\0" not in name and name not in (".", ".."))

LIKE = (
    "con",
    "CON",
    "nul.x",
    "a.",
    "a ",
    "a",
    "A",
    "a.jpg",
    "A.jpg",
    "?",
    "%3F",
    "I",
    "i",
    "\u0131",
    "K",
    "\u212a",
    "s",
    "\u017f",
)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.sets(NAMES | st.sampled_from([*LIKE]), max_size=8))
def test_names_stay_apart_and_come_back(names: set[str]) -> None:
    ordered = sorted(names)
    for keys in (folder_keys("", ordered), file_keys("", [f"{name}.jpg" for name in ordered])):
        assert all(strictest_takes(key) for key in keys), keys
        for form in ("NFC", "NFD"):
            alike = {unicodedata.normalize(form, unicodedata.normalize(form, key).casefold()) for key in keys}
            assert len(alike) == len(keys)
        assert len({key.upper() for key in keys}) == len(keys), "as NTFS and exFAT compare"
        for name, key in zip(ordered, keys, strict=True):
            plain = unquote(key)
            assert plain == name or plain.startswith((f"{name}.jpg", f"{name}~")), key


def test_names_that_differ_in_case_or_form_only(tmp_path: Path) -> None:
    one, two = "caf\u00e9", "cafe\u0301"
    for name in (
        f"{one}.jpg",
        f"{two}.jpg",
        "x.jpg",
        "X.jpg",
        "Trip/a.jpg",
        "trip/a.jpg",
        f"{one}/b.jpg",
        f"{two}/b.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"-")
    photos = list(list_photos(str(tmp_path)))
    assert len({folded(photo.key) for photo in photos}) == 8
    assert len({folded(photo.key.split("/")[0]) for photo in photos if "/" in photo.key}) == 4
    assert write_manifest(iter(photos), tmp_path / "m.parquet", None).rows == 8
    for photo in photos:
        assert os.path.exists(photo.url)


def test_odd_folders_are_safe_too(tmp_path: Path) -> None:
    for folder in ("what?", "nul", "dots.", "a:b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "p.jpg").write_bytes(b"-")
    assert [photo.key for photo in list_photos(str(tmp_path))] == [
        "a%3Ab/p",
        "dots%2E/p",
        "%6Eul/p",
        "what%3F/p",
    ]


def test_a_job_on_a_disk_that_refuses_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As exFAT does, by EINVAL. Names from folders are safe; a manifest's key that is not is its own row."""
    real = jobs.stores.local_files.put_in_place

    def put_in_place(temporary: Path, target: Path, *, create_only: bool) -> None:
        if not all(map(strictest_takes, target.relative_to(tmp_path).parts)):
            temporary.unlink()
            raise OSError(errno.EINVAL, "Invalid argument", str(target))
        real(temporary, target, create_only=create_only)

    monkeypatch.setattr(jobs.stores.store, "put_in_place", put_in_place)
    (tmp_path / "in/nul").mkdir(parents=True)
    for name in ("100% done?.jpg", "nul/con.jpg", "plain.jpg"):
        (tmp_path / "in" / name).write_bytes(encoded(picture(1)))
    (tmp_path / "list.csv").write_text("url,key\nin/plain.jpg,who?\nin/plain.jpg,plain\n")
    found = {}
    for photos, code in (("in", 0), ("list.csv", 3)):
        table = {"photos": photos, "output": f"out-{code}", "method": {"kind": "stub"}}
        job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
        assert run(job, pool=InlinePool(worker_setup(job))).exit_code == code
        assert [*verify(job.store)] == []
        ledger = Ledger(job.store)
        found |= {row.key: row for shard in ledger.done() for row in ledger.receipt(shard)[0]}
    assert {key: row.status for key, row in found.items()} == {
        "100% done%3F": "ok",
        "%6Eul/%63on": "ok",
        "plain": "ok",
        "who?": "failed",
    }
    assert found["who?"].error_type == "OSError"


def test_a_begun_job_keeps_its_names(tmp_path: Path) -> None:
    """Its manifest has them, from when there was another rule."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/who?.jpg").write_bytes(encoded(picture(1)))
    table = {"photos": "in", "output": "out", "method": {"kind": "stub"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.ledger.names, "_safe", lambda part: part)
        begun = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    assert job.fingerprint == begun.fingerprint
    assert run(job, pool=InlinePool(worker_setup(job))).exit_code == 0
    assert (tmp_path / "out/images/who?.jpg").is_file()
    assert [*verify(job.store)] == []
    assert later_photos(job) is None


def test_of_an_object_store_the_same_error_may_mean_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3's clients say EINVAL for a token that is not valid, too: that ends the job, resumable."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(encoded(picture(1)))
    real = FsspecStore.publish

    def publish(self: FsspecStore, path: str, data: bytes, *, create_only: bool = False) -> None:
        if path.startswith("images/"):
            raise OSError(errno.EINVAL, "The provided token is malformed")
        real(self, path, data, create_only=create_only)

    monkeypatch.setattr(FsspecStore, "publish", publish)
    table = {"photos": "in", "output": "memory://einval/out", "method": {"kind": "stub"}}
    job = create_or_open(job_from_table(table, tmp_path, REGISTRY), REGISTRY)
    assert run(job, pool=InlinePool(worker_setup(job))).exit_code == 4
