"""Jobs that paint each photograph in several styles, or in one that is drawn for it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import jobs.worker.stages
from jobs.cli.app import app
from jobs.cli.quality import stylize_table
from jobs.cli.submit import prepare
from jobs.console.progress import Snapshot
from jobs.driver.adapting import adapt_rows
from jobs.driver.assets import _bytes
from jobs.driver.job import Job, create_or_open, plan, reopen
from jobs.driver.photos import job_of_later_photos, later_photos
from jobs.driver.run import run, worker_setup
from jobs.driver.styles import in_one_style
from jobs.driver.todo import retry_work, shards_to_do
from jobs.errors import JobMismatch
from jobs.inspect.report import build_report
from jobs.inspect.status import job_status
from jobs.inspect.verify import verify
from jobs.ledger.adapted import read_adapted
from jobs.ledger.manifest import Row
from jobs.spec import JobFile, job_from_table, job_to_table, read_job_file
from jobs.stores.filesystems import STANDARD_STORAGE
from jobs.stores.store import LocalStore
from jobs.worker.once import Once
from nst.errors import OptionError
from nst.feed_forward.method import FeedForward
from nst.images.codec import decode_photo, encode_image
from nst.methods import METHODS
from nst.style_transfer.method import StyleTransfer
from nst.stylizer import StyledMethod, Stylized
from tests.chaos import InlinePool
from tests.conftest import encoded, picture
from tests.jobs.reports import Report, check_harmless
from tests.jobs.test_stylize import _latest, by_status, check_exactly_once, images, rows
from tests.methods import KILL, REGISTRY, Painted

STYLES = ("rain", "wave")


def put(folder: Path, *names: str, width: int = 16) -> None:
    """Pictures, another one for every name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:4], "big")
        made = picture(seed, width, 3 * width // 4)
        path.write_bytes(encoded(made, "PNG" if name.endswith(".png") else "JPEG"))


def file(folder: Path, **changes: Any) -> JobFile:
    table: dict[str, Any] = {
        "photos": "photos",
        "output": "out",
        "styles": "styles",
        "method": {"kind": "painted"},
        "image": {"format": "png"},
        "resources": {"pool": "local", "max_workers": 1},
    }
    for name, value in changes.items():
        table[name] = {**table[name], **value} if isinstance(value, dict) else value
    return job_from_table({name: value for name, value in table.items() if value is not None}, folder, REGISTRY)


def begin(folder: Path, **changes: Any) -> Job:
    return create_or_open(file(folder, **changes), REGISTRY)


def again(job: Job) -> Job:
    return reopen(job.store, registry=REGISTRY)


def done(job: Job, shards: int | None = None) -> int:
    """The exit code of a run in this process."""
    return run(job, shards_to_do(job)[:shards], pool=InlinePool(worker_setup(job))).exit_code


def built(kind: str, pictures: dict[str, bytes], **options: Any) -> Any:
    """The stylizer of a method with these style pictures."""
    method: Any = METHODS[kind]
    made = method(style=tuple(pictures), **options)
    others = [ref for ref in made.assets() if ref.url not in pictures]
    assets = {ref.url: _bytes(ref.kind, ref.url, STANDARD_STORAGE) for ref in others}
    return made.build({**assets, **pictures}, torch.device("cpu"))


def check(job: Job, count: int) -> None:
    """Every row once, with its picture, and nothing else."""
    job.store.clean()  # the folder of what is being written, which may be there for a moment longer
    check_exactly_once(job, count)


def listing(job: Job) -> list[Row]:
    return [row for shard in range(job.manifest.shards) for row in job.manifest.shard(shard)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Five photographs and two styles."""
    put(tmp_path / "photos", "a.jpg", "b.jpg", "sub/c.jpg", "sub/d.jpg", "e.png")
    put(tmp_path / "styles", *(f"{name}.png" for name in STYLES))
    return tmp_path


# Whole jobs


@pytest.mark.timeout(900)
def test_two_styles_of_two_hundred_photographs_whatever_dies(tmp_path: Path) -> None:
    """Each of 400 rows once, where workers are killed, and a photograph kills those that touch it; the pictures
    are those of a run that nothing happened to, in shards of another size."""
    put(tmp_path / "photos", *(f"{number % 7}/p{number:03d}.jpg" for number in range(199)))
    put(tmp_path / "photos", "poison.jpg", width=KILL)
    put(tmp_path / "styles", *(f"{name}.png" for name in STYLES))
    calm = begin(tmp_path, output="calm", exclude=["poison.*"], resources={"shard_size": 64})
    assert done(calm) == 0
    check(calm, 398)
    job = begin(tmp_path, method={"delay_s": 0.02}, resources={"max_workers": 2, "shard_size": 25})
    killed: list[int] = []

    def kill_one(snapshot: Snapshot) -> None:
        if len(killed) < 2 and snapshot.done > 60 * len(killed):
            (pid,) = {result.worker_pid for result in _latest(job)} - set(killed) or {0}
            with suppress(ProcessLookupError):  # the poison was quicker
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    assert run(job, observe=kill_one).exit_code == 3
    assert len(killed) == 2
    check(job, 400)
    assert by_status(job)["quarantined"] == ["rain/poison", "wave/poison"]
    assert images(job) == images(calm)
    assert list(verify(job.store)) == []
    assert [len(work.rows or ()) for work in retry_work(job)] == [2]


def test_resumed_it_gives_equal_bytes(home: Path) -> None:
    whole = begin(home, output="whole")
    assert done(whole) == 0
    job = begin(home, resources={"shard_size": 3})
    assert done(job, 2) == 4
    assert done(again(job)) == 0
    check(job, 10)
    assert images(job) == images(whole)
    assert set(images(job)) == {
        f"{style}/{key}.png" for style in STYLES for key in ("a", "b", "sub/c", "sub/d", "e")
    }
    assert len(set(images(job).values())) == 10, "each is another one"
    assert [result.style for result in listing(job)] == [*STYLES] * 5
    assert done(begin(home)) == 0, "the same job file goes on with the same job"


def test_a_picture_is_that_of_a_job_of_its_style_alone(home: Path) -> None:
    """By the network, and by optimization, whose styles share batches there."""
    put(home / "photos", "large.jpg", width=90)
    shutil.copyfile(home / "styles/rain.png", home / "styles/third.png")
    put(home / "styles", "third.png", width=60)
    torch.set_num_threads(1)
    for kind, options in (
        ("feed_forward", {"precision": "float32"}),
        ("style_transfer", {"network": "embedded", "steps": 2}),
        ("style_transfer", {"network": "embedded", "steps": 2, "init": "feed_forward"}),
    ):
        output = str(home / f"out-{kind}-{len(options)}")
        method = {"kind": kind, **options}
        job = begin(home, output=output, method=method, resources={"batch_size": 4, "shard_size": 9})
        assert run(job).exit_code == 0
        check(job, 18)
        for style in ("rain", "third"):
            data = (home / f"styles/{style}.png").read_bytes()
            stylizer = built(kind, {"s": data}, **options)
            photo = decode_photo((home / "photos/large.jpg").read_bytes(), max_side_px=512)
            (outcome,) = stylizer([photo.image], [torch.Generator()])
            assert isinstance(outcome, Stylized)
            expected = encode_image(outcome.image, format="png", exif=photo.exif, dpi=photo.dpi)
            assert job.store.read(f"images/{style}/large.png") == expected, (kind, style)


def test_one_style_for_each_photograph(home: Path) -> None:
    put(home / "photos", *(f"more/{number}.jpg" for number in range(40)))
    job = begin(home, styles_per_photo="one")
    before = {row.key: row.style for row in listing(job)}
    assert len(before) == 45
    counts = Counter(before.values())
    assert set(counts) == set(STYLES)
    assert min(counts.values()) > 10
    digests = {key: hashlib.sha256(f"0/{key}".encode()).digest() for key in before}
    drawn = {key: STYLES[int.from_bytes(digest[-8:], "big") % 2] for key, digest in digests.items()}
    assert before == drawn, "as every version of this program draws"
    assert done(job) == 0
    check(job, 45)
    assert "sub/c.png" in images(job)
    put(home / "photos", "0.jpg", "sub/new.jpg")
    more = {row.key: row.style for row in listing(begin(home, output="more", styles_per_photo="one"))}
    assert {key: more[key] for key in before} == before, "others that come change nobody's style"
    order = ["styles/wave.png", "styles/rain.png"]
    other = begin(home, output="order", styles=order, styles_per_photo="one")
    assert {row.key: row.style for row in listing(other)} == more, "nor does the order of the styles"
    seed = begin(home, output="seed", seed=1, styles_per_photo="one")
    assert {row.key: row.style for row in listing(seed)} != more


@pytest.mark.parametrize("per_photo", ["all", "one"])
def test_a_style_in_the_manifest_goes_before(home: Path, per_photo: str) -> None:
    with (home / "list.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        own = {"a": "wave", "b": "", "sub/c": "../<x>/", "e": "WAVE"}
        writer.writerow(["url", "key", "style"])
        places = {"a": "a.jpg", "b": "b.jpg", "sub/c": "sub/c.jpg", "e": "e.png"}
        writer.writerows([f"photos/{places[key]}", key, style] for key, style in own.items())
    job = begin(home, photos="list.csv", styles_per_photo=per_photo)
    found = [(row.key, row.style) for row in listing(job)]
    if per_photo == "all":
        assert found == [
            ("wave/a", "wave"),
            ("rain/b", "rain"),
            ("wave/b", "wave"),
            ("..%2F%3Cx%3E%2F/sub/c", "../<x>/"),
            ("WAVE/e", "WAVE"),
        ]
        assert "4 photographs x 2 styles, but for some in their own = 5 pictures" in job.notes
    else:
        assert [key for key, _ in found] == [*own]
        assert [style for key, style in found if own[key]] == [style for style in own.values() if style]
    said = "2 photographs will fail, of unknown styles: '../<x>/', 'WAVE'; there are 'rain', 'wave'"
    assert said in job.notes
    assert said in plan(file(home, output="other", photos="list.csv", styles_per_photo=per_photo)).notes
    assert done(job) == 3
    assert [result.error_type for result in rows(job) if result.status != "ok"] == ["UnknownStyle"] * 2
    assert list(verify(job.store)) == []


def test_a_photograph_is_decoded_once_for_neighbors(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home / "styles", "third.png")
    (home / "photos/text.jpg").write_text("no picture")
    decoded: list[bytes] = []
    decode = jobs.worker.stages.decode_photo

    def counting(data: bytes, **options: Any) -> Any:
        decoded.append(data)
        return decode(data, **options)

    monkeypatch.setattr("jobs.worker.stages.decode_photo", counting)
    job = begin(home, resources={"shard_size": 18})
    assert done(job) == 3
    assert len(decoded) == len(set(decoded)) == 6
    failed = [result for result in rows(job) if result.status == "failed"]
    assert [result.key for result in failed] == [f"{style}/text" for style in ("rain", "third", "wave")]
    digest = hashlib.sha256(b"no picture").hexdigest()
    assert {(result.error_type, result.source_sha256) for result in failed} == {("DecodeError", digest)}


def test_what_is_made_once_is_kept_as_long_as_it_is_wanted() -> None:
    made: list[str] = []
    once = Once[str](["a", "a", "b", "c", "c", "d", "d", "a"])

    def get(name: str) -> str:
        return once.get(name, lambda: made.append(name) or name)  # type: ignore[func-returns-value]

    assert [get(name) for name in "aabccdd"] == list("aabccdd")
    assert made == list("abcd")
    assert list(once._kept) == ["a"], "for who comes later"
    assert get("a") == "a"
    assert once._kept == {}
    assert made == list("abcd")
    assert get("x") == get("x") == "x"
    assert made == list("abcdxx"), "what nobody announced is not kept"
    many = Once[str]([*"abcdabcd"])
    for name in "abcd":
        many.get(name, lambda: "")
    assert list(many._kept) == ["c", "d"], "memory for two"

    def fail() -> str:
        raise OSError("gone")

    twice = Once[str](["a", "a"])
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            twice.get("a", fail)


# What belongs to a job


def test_the_record_comes_back_and_is_that_of_no_other(home: Path) -> None:
    job_file = file(home, styles=["styles", "swirls"])
    assert job_file.spec.styles_per_photo == "all"
    table = job_to_table(job_file)
    assert table["styles"] == [f"{home}/styles", "nst:style/swirls"]
    assert "style" not in table["method"]
    assert job_from_table(table, Path("/"), REGISTRY) == job_file
    plain = job_to_table(file(home, styles=None, method={"style": "styles/rain.png"}))
    assert {"styles", "styles_per_photo"} & plain.keys() == set()
    prints = {
        plan(file(home, **changes)).fingerprint
        for changes in (
            {},
            {"styles_per_photo": "one"},
            {"styles": ["styles/rain.png"]},
            {"styles": ["styles/wave.png", "styles/rain.png"]},
            {"styles": None, "method": {"style": ["styles/rain.png", "styles/wave.png"]}},
        )
    }
    assert len(prints) == 5
    job = begin(home)
    put(home / "styles", "new.png")
    with pytest.raises(JobMismatch, match=r"styles: .*new\.png"):
        begin(home)
    with pytest.raises(JobMismatch, match="styles_per_photo: 'all' in the folder, 'one' asked for"):
        begin(home, styles=["styles/rain.png", "styles/wave.png"], styles_per_photo="one")
    put(home / "styles", "rain.png", width=17)
    with pytest.raises(JobMismatch, match=r"SHA-256 of style\[0\]"):
        again(job)


def test_a_listing_that_was_never_published_is_made_again(home: Path) -> None:
    job = begin(home)
    (home / "out/manifest.parquet").unlink()
    assert listing(again(job)) == listing(job)


def test_moved_with_photographs_and_styles_it_goes_on(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    job = begin(home, resources={"shard_size": 4})
    assert done(job, 1) == 4
    other = tmp_path_factory.mktemp("other") / "home"
    shutil.move(home, other)
    moved = reopen(LocalStore(str(other / "out")), registry=REGISTRY)
    assert done(moved) == 0
    check(moved, 10)
    assert moved.fingerprint == job.fingerprint
    assert done(create_or_open(file(other), REGISTRY)) == 0, "so does the job file"
    assert list(verify(moved.store)) == []


def test_photographs_that_come_later_are_counted_as_such(home: Path) -> None:
    job = begin(home)
    assert done(job) == 0
    assert later_photos(job) is None
    put(home / "photos", "sub/q.png", "z.jpg")
    found = later_photos(again(job))
    assert found is not None
    assert (found.count, found.keys) == (2, ("z", "sub/q"))
    later = create_or_open(job_of_later_photos(job.store, found.output, {}, REGISTRY), REGISTRY)
    assert [row.key for row in listing(later)] == [f"{s}/{key}" for key in ("z", "sub/q") for s in STYLES]
    assert done(later) == 0
    shutil.copytree(home / "photos", home / "copies")
    with pytest.raises(OptionError, match="no photographs found"):
        begin(home, output="third", photos="copies", not_in=["out", found.output])


def test_a_network_learns_on_photographs_and_not_on_their_pictures(home: Path) -> None:
    job = begin(home, method={"adapt_steps": 3, "adapt_photos": 4})
    plain = begin(home, output="plain", styles=None, method={"kind": "learner", "adapt_steps": 3})
    for count in (1, 4, 9):
        chosen = [row.url for row in adapt_rows(job.manifest, count, 0, "all")]
        assert chosen == [row.url for row in adapt_rows(plain.manifest, count, 0)]
        assert len(chosen) == len(set(chosen)) == min(5, count)
    assert run(job).counts["ok"] == 10
    data = read_adapted(job.store, job.fingerprint)
    assert data is not None
    assert len(json.loads(data)["photos"]) == 4
    assert list(verify(job.store)) == []


def test_all_is_told(home: Path) -> None:
    planned = plan(file(home))
    assert planned.notes[0] == "5 photographs x 2 styles = 10 pictures"
    assert plan(file(home, styles_per_photo="one")).notes[0] == "5 photographs, each in one of 2 styles"
    assert plan(file(home, photos="photos/a.jpg", styles=["swirls"])).notes[0] == (
        "1 photograph x 1 style = 1 pictures"
    )
    job = begin(home, method={"change": 0.5})
    assert done(job) == 0
    status = job_status(job.store)
    assert (status.rows, status.counts["ok"], status.state) == (10, 10, "complete")
    assert status.notes[0] == planned.notes[0]
    report = Report(build_report(job.store))
    assert report.row("wave/sub/c")["status"] == "ok"
    assert report.job["notes"] == [planned.notes[0]]
    assert [tag for tag, _ in report.tags].count("img") == 2 + 2, "the viewer's, and the styles"
    assert "rain.png" in report.text


def test_what_it_costs_is_that_of_one_style(home: Path) -> None:
    spec = file(home, styles=["styles/rain.png", "styles/wave.png"], method={"style_sha256": ["0", "1"]}).spec
    assert in_one_style(spec) == Painted(style=(f"{home}/styles/rain.png",))
    plain = file(home, styles=None, method={"style": "styles/rain.png"}).spec
    assert in_one_style(plain) is plain.method


# The command line


def test_the_command_paints_in_each(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    given = ["stylize", "photos", "--styles", "styles", "--styles", "swirls", "--out", "out", "--size", "64"]
    told = CliRunner().invoke(app, [*given, "--dry-run"])
    assert told.exit_code == 0, told.output
    assert "note: 5 photographs x 3 styles = 15 pictures" in told.stdout
    assert "15 pictures in 15 shards; nothing was written" in told.stdout
    assert not (home / "out").exists()
    one = CliRunner().invoke(app, [*given, "--dry-run", "--set", "styles_per_photo=one"])
    assert "note: 5 photographs, each in one of 3 styles" in one.stdout
    assert "5 photographs in 5 shards" in one.stdout


def test_the_command_refuses_both(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    with pytest.raises(OptionError, match=r"--style = 'styles/rain.png': does not go with --styles"):
        stylize_table(["styles/rain.png"], None, [], first_frame=None, each_in=["styles"])
    with pytest.raises(OptionError, match=r"--styles = 'swirl'.*did you mean 'swirls'"):
        stylize_table([], None, [], first_frame=None, each_in=["swirl"])
    table = stylize_table([], "best", [], first_frame=None, each_in=["styles"])
    assert table == {"styles": ["styles"], "method": {"kind": "style_transfer"}}


def test_a_cluster_is_told_where_they_are(home: Path) -> None:
    path = home / "job.toml"
    path.write_text(
        'photos = "s3://b/photos"\noutput = "s3://b/out"\nstyles = ["styles/rain.png", "swirls"]\n'
        '[method]\nkind = "feed_forward"\n'
    )
    with pytest.raises(OptionError, match=r"^styles = .*is a path of this machine"):
        prepare(path, [], shared_paths=False)
    words = prepare(path, [], shared_paths=True).arguments
    override = next(word for word in words if word.startswith("styles="))
    again = read_job_file(path, [override])
    assert again == read_job_file(path)
    assert again.spec.method.style == (f"{home}/styles/rain.png", "nst:style/swirls")  # type: ignore[attr-defined]


def test_the_example_is_a_job_of_several_styles() -> None:
    example = read_job_file(Path(__file__).parents[2] / "examples/many_styles.toml")
    assert example.spec.styles_per_photo == "all"


# Refusals


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"styles": []}, r"styles = .*: must be a folder of pictures, or a list"),
        ({"styles": ""}, r"styles = ''"),
        ({"styles": ["styles", 3]}, r"styles = "),
        ({"styles_per_photo": "two"}, r"styles_per_photo = 'two'.*Choices: all, one"),
        ({"styles": ["swirl"]}, r"styles\[0\] = 'swirl': is neither .*did you mean 'swirls'"),
        ({"method": {"kind": "stub"}}, r"styles = .*'stub' takes no pictures of styles.*'feed_forward'"),
        ({"method": {"kind": "deepdream"}}, r"styles = .*'deepdream' takes no pictures.*'style_transfer'"),
        ({"method": {"style": "x.png"}}, r"method.style = 'x.png': does not go with styles"),
        (
            {"method": {"kind": "feed_forward", "style_blend": [1, 2]}},
            r"method.style_blend = .*: does not go with styles",
        ),
        (
            {"method": {"kind": "style_transfer", "style_masks": ["a.png", "b.png"]}},
            r"method.style_masks = .*: does not go with styles",
        ),
        (
            {"styles": None, "styles_per_photo": "all", "method": {"style": "x.png"}},
            r"styles_per_photo = 'all': goes with styles",
        ),
        ({"style": "x"}, r"style = 'x': .*it is method.style"),
        ({"styles": ["s3://key:secret@b/x.png"]}, r"styles\[0\] = "),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(home: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        file(home, **changes)


def test_methods_without_styles_of_single_photographs_refuse_them(home: Path) -> None:
    changes = {"styles": None, "styles_per_photo": "one", "method": {"kind": "stub"}}
    with pytest.raises(OptionError, match=r"styles_per_photo = 'one': method.kind = 'stub' takes no style"):
        begin(home, **changes)
    assert not (home / "out").exists()


def test_all_methods_with_style_pictures_take_one_for_each_photograph() -> None:
    for method in (FeedForward(style="s"), StyleTransfer(style="s"), Painted(style="s")):
        assert isinstance(method, StyledMethod)


@pytest.mark.parametrize("first", ["rain", "RAIN", "ra\u0131n"], ids=ascii)
def test_two_of_the_same_name_are_refused_with_both(home: Path, first: str) -> None:
    put(home / "others", f"{first}.jpg", "deep/fall.png")
    changes = {"styles": ["others", "styles"]}
    said = rf"styles\[2\] = '{home}/styles/rain.png': is called 'rain', as is '{home}/others/{first}.jpg'"
    for attempt in (lambda: begin(home, **changes), lambda: plan(file(home, **changes))):
        with pytest.raises(OptionError, match=said):
            attempt()
    assert not (home / "out").exists()


@pytest.mark.parametrize(
    ("names", "folders"),
    [
        (["<script>.png", "con.png", "50%41.png"], ["%3Cscript%3E", "%63on", "50%2541"]),
        (["a:b.png", "..png", "...png"], ["a%3Ab", "%2E", "%2E%2E"]),
        (["dot..png", "nl\n.png", "'; --.png"], ["dot%2E", "nl%0A", "'; --"]),
        (["\u00e9.png"], ["\u00e9"]),
    ],
    ids=ascii,
)
def test_hostile_names_are_made_safe(home: Path, names: list[str], folders: list[str]) -> None:
    shutil.rmtree(home / "styles")
    put(home / "styles", *names)
    job = begin(home, styles=[f"styles/{name}" for name in names], photos="photos/sub")
    assert done(job) == 0
    check(job, 2 * len(names))
    assert {path.name for path in (home / "out/images").iterdir()} == set(folders)
    assert list(verify(job.store)) == []
    check_harmless(build_report(job.store), {"data:", "file:", "'self'"})


def test_names_that_differ_in_unicodes_form_are_refused(home: Path) -> None:
    put(home / "forms", "\u00e9.png", "e\u0301.png")
    with pytest.raises(OptionError, match=r"styles\[1\] = .*is called .*as is"):
        begin(home, styles="forms")


def test_a_name_that_is_no_text_is_refused(home: Path) -> None:
    put(home / "bytes", os.fsdecode(b"\xff.png"))
    with pytest.raises(OptionError, match=r"styles\[0\] = .*is no text"):
        begin(home, styles="bytes")
    assert not (home / "out").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda folder: (folder / "wave.png").write_text("none"),
            r"styles\[1\] = '.*/wave.png': is no picture",
        ),
        (
            lambda folder: [path.unlink() for path in folder.iterdir()],
            r"styles\[0\] = .*there is no picture in",
        ),
        (lambda folder: (folder / "wave.png").chmod(0), None),
        (shutil.rmtree, r"styles\[0\] = .*is neither|styles\[0\] = .*there is no such file"),
    ],
)
def test_what_is_no_picture_is_refused_before_anything_is_done(
    home: Path, spoil: Callable[[Path], Any], said: str | None
) -> None:
    spoil(home / "styles")
    if said is None:
        if os.access(home / "styles/wave.png", os.R_OK):
            pytest.skip("root may read all")
        said = r"styles\[1\] = .*cannot be read"
    for attempt in (lambda: begin(home), lambda: plan(file(home))):
        with pytest.raises(OptionError, match=said):
            attempt()
    assert not (home / "out").exists()


def test_small_styles_are_refused_by_their_place(home: Path) -> None:
    put(home / "styles", "thin.png", width=3)
    with pytest.raises(OptionError, match=r"styles\[1\] = '.*/thin.png': is 3 x 2 pixels"):
        begin(home, method={"kind": "feed_forward"})


def test_two_thousand_styles_are_none_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their pictures are kept as files, of bounded size; nothing else grows with their number."""
    put(tmp_path / "photos", "a.jpg")
    data = encoded(picture(0, 16, 12))
    (tmp_path / "styles").mkdir()
    for number in range(2000):
        (tmp_path / f"styles/{number:04d}.jpg").write_bytes(data)
    job = begin(tmp_path)
    assert job.manifest.rows == 2000
    assert len({row.key for row in listing(job)}) == 2000
    monkeypatch.setattr("jobs.driver.assets._MOST_BYTES", 1500 * len(data))
    with pytest.raises(
        OptionError, match=r"styles\[1500\] = .*1500.jpg': with the pictures before it, is more"
    ):
        begin(tmp_path, output="more")


@pytest.mark.parametrize("kind", ["feed_forward", "style_transfer"])
def test_what_is_kept_of_styles_is_bounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nst.feed_forward.stylizer._MOST_KEPT", 3)
    monkeypatch.setattr("nst.style_transfer.objective._MOST_STYLES", 3)
    monkeypatch.setattr("nst.style_transfer.method._MOST_KEPT", 1)
    names = [f"s{number}" for number in range(5)]
    options: Any = {"style_transfer": {"network": "embedded", "steps": 1}}.get(kind, {"precision": "float32"})
    pictures = {f"{name}.png": encoded(picture(seed, 16, 16), "PNG") for seed, name in enumerate(names)}
    stylizer = built(kind, pictures, **options)
    photo = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))

    def painted(name: str) -> torch.Tensor:
        (outcome,) = stylizer([photo], [torch.Generator()], [name])
        assert isinstance(outcome, Stylized)
        return outcome.image

    first = {name: painted(name) for name in names}
    kept = stylizer._known if kind == "feed_forward" else stylizer.objective._kept
    assert len(kept._kept) == 3
    assert all(torch.equal(painted(name), first[name]) for name in names)
    (unknown,) = stylizer([photo], [torch.Generator()], ["s9"])
    assert "s9" in str(unknown)
    assert type(unknown).__name__ == "UnknownStyle"


def test_a_network_does_not_learn_styles_without_end() -> None:
    FeedForward(style=("s",) * 100, adapt_steps=1)
    with pytest.raises(OptionError, match=r"adapt_steps = 1: learns 100 styles at most, and there are 101"):
        FeedForward(style=("s",) * 101, adapt_steps=1)


def test_a_report_of_a_part_shows_all_styles(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home / "photos", *(f"{number}.jpg" for number in range(7)))
    job = begin(home)
    assert done(job) == 0
    monkeypatch.setattr("jobs.inspect.report._MOST_ROWS", 6)
    report = Report(build_report(job.store))
    assert report.job["notes"][0].startswith("6 of 24 pictures are here")
    shown = Counter(row["key"].split("/")[0] for row in report.rows)
    assert shown == {"rain": 3, "wave": 3}
    (home / "styles/rain.png").write_bytes((home / "styles/wave.png").read_bytes())
    assert "it is another picture by now" in Report(build_report(job.store)).text
