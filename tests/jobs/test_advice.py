"""Advice that is printed works: whoever follows it gets on, from every state that a job can be in."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from click.testing import Result
from typer.testing import CliRunner

import jobs.driver.run
from jobs.cli.app import app
from jobs.cli.running import reach
from jobs.config.tables import apply_overrides
from jobs.driver.job import create_or_open
from jobs.errors import WorkersBroken
from jobs.inspect.status import job_status
from jobs.spec import read_job_file, storage_from_table
from jobs.stores.filesystems import StorageOptions
from jobs.stores.store import LocalStore
from jobs.worker.messages import Task, WorkerId
from nst.errors import OptionError
from nst.features import NETWORKS, layer_names
from nst.features.layers import VGG_BLOCKS
from nst.methods import METHODS
from nst.style_transfer.method import StyleTransfer
from nst.style_transfer.presets import LAYER_OPTIONS, PRESETS
from reference.style_transfer import published_state, vgg
from tests.chaos import InlinePool
from tests.conftest import encoded, picture

Photos = Callable[..., Path]
JOB = """
photos = "photos"
output = "an output"
[method]
kind = "stub"
[resources]
pool = "local"
max_workers = 1
shard_size = 2
"""
ENDED = (0, 3)


class Pool(InlinePool):
    """Runs tasks in this process; at some of them something happens first."""

    happens: Callable[[Pool, int], None] = staticmethod(lambda _pool, _task: None)
    tasks = 0

    def submit(self, worker: WorkerId, task: Task) -> None:
        Pool.tasks += 1
        Pool.happens(self, Pool.tasks)
        super().submit(worker, task)


@pytest.fixture
def folder(tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Four photographs and two that are none; jobs run in this process."""
    photos(4)
    (tmp_path / "style.png").write_bytes(encoded(picture(99, 60, 60), "PNG"))
    for name in ("none.jpg", "deeper/still/none.jpg"):
        (tmp_path / "photos" / name).write_text("no picture")
    (tmp_path / "job.toml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(jobs.driver.run, "open_pool", lambda _resources, setup, _assets: Pool(setup))
    monkeypatch.setitem(METHODS._places, "stub", "tests.methods:Stub")  # type: ignore[attr-defined]
    yield tmp_path
    Pool.happens, Pool.tasks = staticmethod(lambda _pool, _task: None), 0


def nst(line: str) -> Result:
    program, *words = shlex.split(line)
    assert program == "nst"
    return CliRunner().invoke(app, words)


def advised(result: Result) -> str | None:
    """The command that a run ended with."""
    found = re.search(r"^go on with: (.*)$", result.stdout, re.M)
    return None if found is None else found[1]


def follow(result: Result) -> list[str]:
    """Do what is advised until nothing is; the commands that it took. None may come twice in a row."""
    taken: list[str] = []
    while (line := advised(result)) is not None:
        assert line not in taken[-1:], f"{line!r} leads nowhere: {result.output}"
        taken.append(line)
        result = nst(line)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in ENDED, result.output
    return taken


# Jobs


def stop(at: int) -> None:
    """Have SIGTERM come at a task, of which nothing is done any more."""

    def happens(pool: Pool, task: int) -> None:
        if task == at:
            signal.raise_signal(signal.SIGTERM)
            pool.drain()

    Pool.happens = staticmethod(happens)


def fail(at: int, error: Exception) -> None:
    """Have the job's store, or its workers, fail at a task."""

    def happens(_pool: Pool, task: int) -> None:
        if task == at:
            raise error

    Pool.happens = staticmethod(happens)


def begun(folder: Path) -> None:
    create_or_open(read_job_file(folder / "job.toml"))


def begun_without_listing(folder: Path) -> None:
    begun(folder)
    (folder / "an output/manifest.parquet").unlink()


def stopped(folder: Path) -> None:  # noqa: ARG001
    stop(at=2)
    assert nst("nst run job.toml").exit_code == 75


def store_failed(folder: Path) -> None:  # noqa: ARG001
    fail(2, OSError(28, "No space left on device"))
    assert nst("nst run job.toml").exit_code == 4


def workers_failed(folder: Path) -> None:  # noqa: ARG001
    fail(2, WorkersBroken("workers cannot start"))
    assert nst("nst run job.toml").exit_code == 4


def finished(folder: Path) -> None:  # noqa: ARG001
    assert nst("nst run job.toml").exit_code == 3


def retry_stopped(folder: Path) -> None:
    finished(folder)
    stop(at=Pool.tasks + 1)
    assert nst("nst retry 'an output'").exit_code == 75


def retried_while_unfinished(folder: Path) -> None:
    """With a failed row in a shard that is done, and a shard that is not."""
    store_failed(folder)
    assert nst("nst retry 'an output'").exit_code == 4


def retry_stopped_while_unfinished(folder: Path) -> None:
    store_failed(folder)
    stop(at=Pool.tasks + 1)
    assert nst("nst retry 'an output'").exit_code == 75


STATES: dict[str, Callable[[Path], None]] = {
    each.__name__: each
    for each in (
        begun,
        begun_without_listing,
        stopped,
        store_failed,
        workers_failed,
        finished,
        retry_stopped,
        retried_while_unfinished,
        retry_stopped_while_unfinished,
    )
}


@pytest.mark.parametrize("command", ["run job.toml", "resume 'an output'", "retry 'an output'"])
@pytest.mark.parametrize("state", ["new", *STATES])
def test_go_on_with_leads_to_the_end(folder: Path, state: str, command: str) -> None:
    """Whatever is typed first, whoever does what is advised ends with all that can be done; one more `retry`,
    when the failures' cause is gone, ends with everything."""
    if state != "new":
        STATES[state](folder)
    elif command != "run job.toml":
        assert nst(f"nst {command}").exit_code == 2
        return
    follow(nst(f"nst {command}"))
    found = job_status(LocalStore(str(folder / "an output")))
    assert (found.sealed_shards, found.counts) == (3, {"ok": 4, "failed": 2, "quarantined": 0})
    for name in ("none.jpg", "deeper/still/none.jpg"):
        (folder / "photos" / name).write_bytes(encoded(picture(5)))
    follow(nst("nst retry 'an output'"))
    assert job_status(LocalStore(str(folder / "an output"))).counts["ok"] == 6


@pytest.mark.parametrize(
    ("state", "first", "expected"),
    [
        (stopped, "nst resume 'an output'", []),
        (retried_while_unfinished, "nst retry 'an output'", ["resume"]),
        (retry_stopped, "nst retry 'an output'", []),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_the_way_is_short(folder: Path, state: Callable[[Path], None], first: str, expected: list[str]) -> None:
    state(folder)
    assert [line.split()[1] for line in follow(nst(first))] == expected


def test_a_retry_that_was_stopped_goes_on_as_one(folder: Path) -> None:
    finished(folder)
    for name in ("none.jpg", "deeper/still/none.jpg"):
        (folder / "photos" / name).write_bytes(encoded(picture(5)))
    stop(at=Pool.tasks + 1)
    stopped = nst("nst retry 'an output'")
    assert stopped.exit_code == 75
    follow(stopped)
    assert job_status(LocalStore(str(folder / "an output"))).counts["ok"] == 6


def test_a_job_that_was_moved_is_gone_on_with_where_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped once more there, it is found with what the advice says, from anywhere."""
    stopped(folder)
    elsewhere = folder / "else where"
    elsewhere.mkdir()
    (folder / "an output").rename(elsewhere / "an output")
    (folder / "photos").rename(elsewhere / "all photos")
    lost = nst(f"nst resume '{elsewhere}/an output'")
    assert lost.exit_code == 2
    assert "say with --photos where the photographs are now" in lost.stderr
    stop(at=Pool.tasks + 1)
    again = nst(f"nst resume '{elsewhere}/an output' --photos '{elsewhere}/all photos'")
    assert again.exit_code == 75
    monkeypatch.chdir("/")
    assert len(follow(again)) == 1


def test_how_a_store_is_reached_is_part_of_the_advice() -> None:
    assert reach(StorageOptions()) == []
    words = reach(StorageOptions(endpoint_url="http://h:1", anonymous=True, deadline_s=3))
    overrides = [word for word in words if word != "--set"]
    assert len(words) == 2 * len(overrides) == 6
    table = apply_overrides({}, overrides)
    assert storage_from_table(table["storage"]) == StorageOptions(
        endpoint_url="http://h:1", anonymous=True, deadline_s=3
    )


def test_another_job_in_the_folder(folder: Path) -> None:
    """Nothing done: it may be deleted; else another output. What is there goes on as is said."""
    begun(folder)
    other = "nst run job.toml --set seed=3"
    refused = nst(other)
    assert refused.exit_code == 2
    assert "choose another output, or delete this one, since nothing was done in it yet" in refused.stderr
    stopped(folder)
    refused = nst(other)
    assert "choose another output; that job goes on with: " in refused.stderr
    reached = nst(f"{other} --set storage.region=eu-central-1").stderr
    assert shlex.join(["--set", 'storage.region="eu-central-1"']) in reached
    assert nst(f"{other} --set output=another").exit_code == 3
    (line,) = re.findall(r"that job goes on with: (.*)$", refused.stderr, re.M)
    assert nst(line).exit_code == 3


# Methods


def test_what_to_do_without_pretrained_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way that the message names, from a job file that says more than the message knows."""
    monkeypatch.setenv("TORCH_HOME", str(folder / "nothing here"))
    monkeypatch.setattr("nst.features.weights._download", no_network)
    preset = 'photos = "photos"\noutput = "out"\n[method]\nkind = "style_transfer"\nstyle = "style.png"\n'
    (folder / "gatys.toml").write_text(f'{preset}preset = "gatys"\n')
    (folder / "plain.toml").write_text(preset)
    missing = nst("nst run gatys.toml --dry-run")
    assert missing.exit_code == 2
    for advice in (
        "give the path or URL of a state dict of vgg19 (weights =",
        'take network = "embedded", which comes with this package',
        'weights = "seeded" for a random network',
    ):
        assert advice in missing.stderr
    refused = nst("nst run gatys.toml --dry-run --set method.network=googlenet")
    assert re.search(r"method\.preset = 'gatys': googlenet does not have its content_layers", refused.stderr)
    assert refused.exit_code == 2
    state = published_state(vgg(VGG_BLOCKS["vgg16"]))
    (folder / "vgg.safetensors").write_bytes(safetensors.torch.save(state))
    for line in (
        "nst run plain.toml --dry-run --set method.network=embedded",
        "nst run plain.toml --dry-run --set method.preset=embedded",
        "nst run gatys.toml --dry-run --set method.preset=embedded",
        "nst run gatys.toml --dry-run --set method.network=embedded",
        "nst run gatys.toml --dry-run --set method.weights=seeded",
        "nst run gatys.toml --dry-run --set method.network=vgg16 --set method.weights=vgg.safetensors",
        "nst dream photos --out dreamed --dry-run --set method.network=embedded",
    ):
        assert nst(line).exit_code == 0, line


def no_network(*_: Any) -> None:
    raise OSError("no network")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_that_does_not_suit_says_which_do(preset: str, network: str) -> None:
    """And those do."""
    make: Callable[..., StyleTransfer] = partial(StyleTransfer, style="a.jpg", network=network)
    there = set(layer_names(network))
    if all(there >= set(PRESETS[preset][option]) for option in LAYER_OPTIONS):
        make(preset=preset)
        return
    with pytest.raises(OptionError) as caught:
        make(preset=preset)
    assert caught.value.option == "preset"
    if caught.value.choices is None:
        assert "say content_layers and style_layers" in str(caught.value)
        layers = dict.fromkeys(layer_names(network)[:1], 1.0)
        make(preset=preset, content_layers=layers, style_layers=layers)
        return
    assert "leave it out" in str(caught.value)
    make()
    for choice in caught.value.choices:
        make(preset=choice)


@pytest.mark.parametrize(
    "given", [{"preset": "embedded"}, {"weights": "embedded"}, {"network": "embedded"}], ids=str
)
def test_what_belongs_to_the_embedded_network_chooses_it(given: dict[str, Any]) -> None:
    made = StyleTransfer(style="a.jpg", **given)
    assert (made.network, made.weights, made.preset) == ("embedded", "embedded", "embedded")


def test_the_embedded_network_is_the_default_of_what_asks_for_nothing_else() -> None:
    """Who names a preset of the papers, or weights, wants a VGG."""
    assert StyleTransfer(style="a.jpg").network == "embedded"
    vggs: list[dict[str, Any]] = [
        {"preset": "gatys"},
        *({"weights": each} for each in ("imagenet", "/vgg.pth")),
    ]
    for given in (*vggs, {"weights": "seeded"}, {"weights_convention": "caffe"}, {"weights_sha256": "ab"}):
        assert StyleTransfer(style="a.jpg", **given).network == "vgg19", given


def test_a_job_of_a_version_with_another_network_says_so(folder: Path) -> None:
    text = 'photos = "photos"\noutput = "out"\n[method]\nkind = "feed_forward"\nstyle = "style.png"\n'
    (folder / "job.toml").write_text(text)
    create_or_open(read_job_file(folder / "job.toml"))
    record = folder / "out/job.json"
    stored = json.loads(record.read_text())
    stored["assets"]["weights"]["sha256"] = 64 * "0"
    record.write_text(json.dumps(stored))
    refused = nst("nst resume out")
    assert refused.exit_code == 2
    assert "nst:painter came with an earlier version of nst" in refused.stderr
    assert "go on with that version, or choose another output" in refused.stderr
    assert "nst resume" not in refused.stderr
