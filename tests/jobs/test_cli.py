"""The command line as people type it: commands, messages, exit codes."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import random
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
from click.testing import Result
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from jobs.cli.app import app
from jobs.cli.tables import show_status
from jobs.driver.job import create_or_open, reopen
from jobs.inspect.status import JobStatus
from jobs.ledger.receipts import Ledger
from jobs.ledger.results import Result as Row
from jobs.spec import read_job_file
from jobs.stores.store import LocalStore, open_store
from tests.conftest import encoded, picture
from tests.processes import living, spawn
from tests.vggs import caffe_vgg

Photos = Callable[..., Path]
ROOT = Path(__file__).parents[2]
NST = [sys.executable, "-c", "from jobs.cli.app import main; main()"]

JOB = """
photos = "photos"
output = "out"
[method]
kind = "style_transfer"
style = "style.png"
network = "vgg16"
weights = "seeded"
preset = "tutorial"
content_layers = {relu1_2 = 1.0}
style_layers = {relu1_1 = 1.0}
steps = 3
[image]
max_side_px = 40
format = "png"
"""


@pytest.fixture
def ask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A command in this process, which saves importing everything anew: for what does not begin to compute."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TORCH_HOME", str(folder / "nothing here"))
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def folder(tmp_path: Path, photos: Photos) -> Path:
    return job_folder(tmp_path, photos)


def job_folder(tmp_path: Path, photos: Photos) -> Path:
    """A job file with its style picture and six photographs."""
    photos(6)
    (tmp_path / "style.png").write_bytes(encoded(picture(99, 60, 60), "PNG"))
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def outcome(folder: Path, key: str) -> Row:
    """The row of one photograph, from the receipts."""
    ledger = Ledger(LocalStore(str(folder)))
    (row,) = [each for shard in ledger.done() for each in ledger.receipt(shard)[0] if each.key == key]
    return row


def outputs(folder: Path) -> dict[str, str]:
    """Output digests by key, from the receipts."""
    ledger = Ledger(LocalStore(str(folder)))
    results = [result for shard in sorted(ledger.done()) for result in ledger.receipt(shard)[0]]
    assert len({result.key for result in results}) == len(results)
    return {result.key: result.output_sha256 or result.error_type or "" for result in results}


def test_run_status_report_and_run_again(folder: Path, ask: Callable[..., Result]) -> None:
    (folder / "photos/notes.txt").write_text("milk, bread")
    done = ask("run", "job.toml", "--pool", "local")
    assert done.exit_code == 0, done.stderr
    assert "note: vgg16 is seeded, not pretrained" in done.stdout
    assert "note: left out: 1 (1 .txt): no photographs" in done.stdout
    assert "not in this job" not in done.stdout
    assert re.search(r"6 of 6 images ok, in \d:\d\d:\d\d", done.stdout)
    assert done.stderr == ""
    assert len(outputs(folder / "out")) == 6
    assert (folder / "out/images/deeper/still/photo 002.png").is_file()

    status = ask("status", "out")
    assert status.exit_code == 0
    assert "6 of 6 done: 6 ok, 0 failed, 0 quarantined" in status.stdout
    assert "left out: 1 (1 .txt): no photographs" in status.stdout
    found = json.loads(ask("status", "out", "--json").stdout)
    assert found["state"] == "complete"
    assert found["counts"] == {"ok": 6, "failed": 0, "quarantined": 0}

    report = ask("report", "out")
    assert report.stdout.strip() == str(folder / "out/report.html")
    assert '"small":["before","after"]' in (folder / "out/report.html").read_text()

    before = outputs(folder / "out")
    (folder / "photos/later one.jpg").write_bytes(encoded(picture(77)))
    again = ask("run", "job.toml", "--pool", "local", "--no-new")
    assert again.exit_code == 0
    assert outputs(folder / "out") == before
    assert "1 photograph of " in again.stdout
    (advice,) = re.findall("^do with: nst (.*)$", again.stdout, re.M)
    assert advice == f"resume {folder}/out --new {folder}/out-2"
    assert ask(*shlex.split(advice), "--pool", "local").exit_code == 0
    assert [*outputs(folder / "out-2")] == ["later one"]
    none = CliRunner().invoke(app, ["resume", f"{folder}/out-2", "--new", f"{folder}/out-3"])
    assert (none.exit_code, none.output[:27]) == (0, "note: no photograph is new:")
    assert not (folder / "out-3").exists()
    resumed = ask("resume", "out", "--log-format", "json")
    assert resumed.exit_code == 0
    (told,) = [line for line in map(json.loads, resumed.stdout.splitlines()) if line["event"] == "later_photos"]
    assert (told["count"], told["command"]) == (1, f"nst {advice}")


def test_a_text_file_among_the_photos_and_retry(folder: Path, ask: Callable[..., Result]) -> None:
    (folder / "photos/notes.jpg").write_text("milk, bread")
    done = ask("run", "job.toml", "--pool", "local")
    assert done.exit_code == 3, done.stderr
    assert "6 of 7 images ok, 1 failed" in done.stdout
    reason = outcome(folder / "out", "notes").error
    assert f"failed: notes: {reason}" in done.stdout
    assert f"failed: notes: {reason}" in ask("status", "out").stdout
    assert ask("status", "out", "--failed").stdout == f"failed: notes: DecodeError: {reason}\n"
    assert outputs(folder / "out")["notes"] == "DecodeError"
    (block,) = re.findall(r"```python\n(import pyarrow.*?)```", (ROOT / "docs/results.md").read_text(), re.S)
    shown = subprocess.run(
        [sys.executable, "-c", block.replace("holiday-painted", "out")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    (failed,) = ast.literal_eval(shown.stdout)
    assert failed["key"] == "notes"
    assert "it looks like text" in failed["error"], failed
    assert ask("resume", "out", "--pool", "local").exit_code == 3
    (folder / "photos/notes.jpg").write_bytes(encoded(picture(50)))
    again = ask("retry", "out", "--pool", "local", "--log-format", "json")
    assert again.exit_code == 0, again.stderr
    *_, last = [json.loads(line) for line in again.stdout.splitlines()]
    assert (last["event"], last["job"], last["exit_code"]) == ("ended", str(folder / "out"), 0)
    assert last["images"] == {"ok": 7, "failed": 0, "quarantined": 0}
    assert "7 of 7 images ok" in last["message"]
    assert len(outputs(folder / "out")["notes"]) == 64
    assert ask("retry", "out", "--key", "notes").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "method.style=none.jpg"], r"method\.style = '.*none\.jpg': there is no such file"),
        (
            ["--set", "method.stepz=3"],
            r"method\.stepz = 3: unknown option \(did you mean 'steps'\?\)\. Choices: style, ",
        ),
        (
            ["--set", "method.content_layers={relu7_1 = 1.0}"],
            r"method\.content_layers = 'relu7_1': vgg16 has no such layer .*Choices: conv1_1, relu1_1",
        ),
        (["--set", "photos=nowhere"], r"photos = '.*nowhere': there is no such folder"),
        (["--set", "photos=foo://bar"], r"photos = 'foo://bar': .*foo"),
        (["--set", "output=foo://x/y"], r"output = 'foo://x/y': .*foo\. Choices: a path, .* s3,"),
        (["--set", "output=foo://x/y", "--dry-run"], r"output = 'foo://x/y': .*foo\. Choices: a path, .* s3,"),
        (["--set", "output=/proc/nst"], r"output = '/proc/nst': cannot be written: No such file"),
        (["--set", "output=taken"], r"output = '.*taken': is not empty and no job"),
        (["--set", "output=other"], r"output = '.*other' belongs to another job.*\n  method\.steps: 9 in the"),
        (["--set", "steps"], r"--set = 'steps': expected NAME=VALUE"),
        (["--pool", "dask"], r"resources\.pool = 'dask': not one of the choices\. Choices: auto, ray, local"),
        (["--set", "method.weights=imagenet"], r'weights = "imagenet": vgg16-397923af\.pth is not in .*seeded'),
        (["--set", "method.weights=none.pth"], r"method\.weights = '.*none\.pth': there is no such file"),
        (["--set", "method.weights_sha256=00"], r"method\.weights_sha256 = '00': seeded weights are not read"),
    ],
    ids=str,
)
def test_asked_for_wrongly_is_one_message_and_writes_nothing(
    folder: Path, ask: Callable[..., Result], arguments: list[str], said: str
) -> None:
    (folder / "taken").mkdir()
    (folder / "taken/thesis.doc").write_text("-")
    if "output=other" in arguments:
        other = ["--set", "output=other", "--set", "method.steps=9", "--pool", "local"]
        assert ask("run", "job.toml", *other).exit_code == 0
    before = files(folder)
    asked = ask("run", "job.toml", *arguments)
    assert asked.exit_code == 2
    assert re.match(f"error: {said}", asked.stderr), asked.stderr
    assert "Traceback" not in asked.stderr + asked.stdout
    assert len(asked.stderr.strip().splitlines()) <= 3
    assert files(folder) == before


def test_other_mistakes(ask: Callable[..., Result]) -> None:
    for arguments, code, said in (
        (["run", "none.toml"], 2, "none.toml"),
        (["status", "nowhere"], 2, "nowhere is no job: it has no job.json"),
        (["resume", "photos"], 2, "is no job"),
        (["retry", "photos"], 2, "is no job"),
        (["report", "photos"], 2, "is no job"),
        (["resume", "photos", "--set", "method.steps=3"], 2, "method = .*is fixed once a job is begun"),
        (["status", "photos", "--set", "method.steps=3"], 2, "method = .*is not what --set takes in this"),
        (["preview", "photos", "--set", "method.steps=3"], 2, "method = .*is not what --set takes in this"),
        (
            ["run", "job.toml", "--pool", "local", "--address", "h:1"],
            2,
            "--address = 'h:1': is of a Ray cluster",
        ),
        (["frobnicate"], 2, "No such command"),
        (["run"], 2, "JOB.TOML"),
    ):
        asked = ask(*arguments)
        assert asked.exit_code == code, (arguments, asked.stderr)
        assert re.search(said, asked.stderr), (arguments, asked.stderr)
        assert "Traceback" not in asked.stderr
    asked = ask("run", "none.toml", "--log-format", "json")
    assert (asked.exit_code, asked.stderr) == (2, "")
    line = json.loads(asked.stdout)
    assert (line["level"], line["event"]) == ("error", "error")
    assert "none.toml" in line["message"]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no credentials"), PermissionError(13, "Access Denied"), OSError("no such bucket")],
    ids=str,
)
def test_errors_of_object_stores_name_their_place(
    ask: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> object:
        raise type(error)(*error.args)

    for call in ("cat_file", "ls", "find", "info"):
        monkeypatch.setattr(MemoryFileSystem, call, fail)
    for command in ("status", "verify", "gc", "report"):
        asked = ask(command, "memory://bucket/out")
        assert asked.exit_code == 4
        assert asked.stderr.count("memory://bucket/out/job.json") == 1, asked.stderr
        assert error.args[-1] in asked.stderr
    store = open_store("memory://bucket/out")
    for path, call in (("a", store.open), ("b", lambda path: list(store.find(path))), ("c", store.names)):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            call(path)
        assert caught.value.__notes__ == [f"memory://bucket/out/{path}"]


def test_dry_run_shows_the_resolved_job_and_writes_nothing(folder: Path, ask: Callable[..., Result]) -> None:
    for number in range(12):
        (folder / f"photos/{number:02}.txt").write_text("-")
    before = files(folder)
    shown = ask("run", "job.toml", "--dry-run", "--set", "seed=5")
    assert shown.exit_code == 0, shown.stderr
    resolved = json.loads(shown.stdout[: shown.stdout.rindex("}") + 1])
    assert resolved["seed"] == 5
    assert resolved["method"]["style_weight"] == 1e6
    assert "6 photographs in 6 shards; nothing was written" in shown.stdout
    assert "note: left out: 12 (12 .txt): no photographs" in shown.stdout
    named = re.findall("^left out: (.*)$", shown.stdout, re.M)
    assert named == [*(f"{number:02}.txt" for number in range(10)), "... and 2 more"]
    assert files(folder) == before


def test_a_convention_that_was_recognized_is_said(folder: Path, ask: Callable[..., Result]) -> None:
    """Before anything is written, when it runs, and in its record."""
    (folder / "vgg.safetensors").write_bytes(safetensors.torch.save(caffe_vgg()))
    said = f"weights {folder / 'vgg.safetensors'}: recognized as the original Caffe convention (BGR, 0..255)"
    job = ["run", "job.toml", "--set", "method.weights=vgg.safetensors", "--pool", "local"]
    shown = ask(*job, "--dry-run")
    assert shown.exit_code == 0, shown.stderr
    assert f"note: {said}\n" in shown.stdout
    assert "note:" not in ask(*job, "--dry-run", "--set", "method.weights_convention=torchvision").stdout
    refused = ask(*job, "--set", "method.weights_convention=cafe")
    assert (refused.exit_code, (folder / "out").exists()) == (2, False)
    assert re.search(r"method\.weights_convention = 'cafe'.*Choices: torchvision, caffe", refused.stderr)
    created = create_or_open(read_job_file(folder / "job.toml", ["method.weights=vgg.safetensors"]))
    assert said in created.notes
    assert said in json.loads((folder / "out/job.json").read_text())["notes"]
    assert said in reopen(created.store).notes


def test_stylize_and_dream_need_no_job_file(folder: Path, ask: Callable[..., Result]) -> None:
    small = ["--pool", "local", "--workers", 1, "--size", 32, "--set", "method.weights=seeded"]
    small += ["--set", "method.network=vgg16"]
    done = ask(
        *["stylize", "photos", "--style", "style.png", "--out", "painted", *small],
        *["--set", "method.steps=2", "--set", "method.coarse_steps=2", "--set", "image.format=webp"],
    )
    assert done.exit_code == 0, done.stderr
    assert len(list((folder / "painted/images").rglob("*.webp"))) == 6
    done = ask(
        *["dream", "photos/*.jpg", "--out", "dreamed", *small, "--set", "method.layers={relu1_1 = 1.0}"],
        *["--set", "method.steps=1"],
    )
    assert done.exit_code == 0, done.stderr
    assert len(list((folder / "dreamed/images").rglob("*.jpg"))) == 4


def test_photos_may_be_files(folder: Path, ask: Callable[..., Result]) -> None:
    """What people type first: one file, and `*.jpg` without quotes, which the shell makes many of."""
    both = ["photos/photo 000.jpg", "photos/deeper/still/photo 002.jpg"]
    for command in (["stylize", "--style", "style.png"], ["dream"]):
        for given in (both[:1], both, [*both, "out"]):
            shown = ask(*command, *given, "--out", "out", "--dry-run", "--set", "method.network=embedded")
            assert shown.exit_code == 0, shown.output
            resolved = json.loads(shown.output[: shown.output.rindex("}") + 1])
            places = [str(folder / each) for each in given if each != "out"]
            assert resolved["photos"] == (places if len(places) > 1 else places[0])
            several = "" if len(places) == 1 else "s"
        assert f"{len(places)} photograph{several} in {len(places)} shard{several}; nothing" in shown.output
    missing = ask("dream", both[0], "none.jpg", "--out", "out", "--set", "method.network=embedded")
    assert missing.exit_code == 2
    assert re.match(r"error: photos = '.*none\.jpg': there is no such folder or file", missing.stderr)


def test_a_dream_may_have_a_guide(folder: Path, ask: Callable[..., Result]) -> None:
    command = ["dream", "photos", "--out", "out", "--dry-run", "--set", "method.network=embedded"]
    for given, expected in (([], None), (["--guide", "style.png"], str(folder / "style.png"))):
        shown = ask(*command, *given)
        assert shown.exit_code == 0, shown.output
        resolved = json.loads(shown.output[: shown.output.rindex("}") + 1])
        assert resolved["method"].get("guide") == expected
    missing = ask(*command[:4], *command[5:], "--guide", "none.png", "--pool", "local")
    assert missing.exit_code == 2
    assert re.match(r"error: method\.guide = '.*none\.png': there is no such file", missing.stderr)


@pytest.mark.parametrize("connected", [False, True])
def test_an_address_where_nobody_is_is_refused_at_once(
    connected: bool, folder: Path, ask: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program that has a connection to another cluster, too."""
    monkeypatch.setattr("ray.is_initialized", lambda: connected)
    began = time.monotonic()
    refused = ask("run", "job.toml", "--dry-run", "--address", "127.0.0.1:9")
    assert refused.exit_code == 2, refused.output
    assert re.match(r"error: resources\.address = '127\.0\.0\.1:9': .*refused", refused.stderr), refused.stderr
    assert time.monotonic() - began < 60
    assert not (folder / "out").exists()


def test_an_address_is_of_a_ray_cluster(
    folder: Path, ask: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the job file says of the pool."""
    monkeypatch.setattr("jobs.pools.ray_session.cluster_resources", lambda _address: {"CPU": 4, "memory": 1e10})
    (folder / "job.toml").write_text(f'{JOB}[resources]\npool = "local"\n')
    for given, pool in (([], "local"), (["--address", "h:1"], "ray")):
        shown = ask("run", "job.toml", "--dry-run", *given)
        assert shown.exit_code == 0, shown.output
        resolved = json.loads(shown.output[: shown.output.rindex("}") + 1])
        assert resolved["resources"]["pool"] == pool


def test_style_may_be_repeated(folder: Path, ask: Callable[..., Result]) -> None:
    """One is a plain path, several are a list."""
    command = ["stylize", "photos", "--out", "out", "--dry-run", "--set", "method.network=embedded"]
    style = str(folder / "style.png")
    for given, expected in ((1, style), (2, [style, style])):
        shown = ask(*command, *["--style", "style.png"] * given)
        assert shown.exit_code == 0, shown.output
        resolved = json.loads(shown.output[: shown.output.rindex("}") + 1])
        assert resolved["method"]["style"] == expected
    assert ask(*command).exit_code == 2


def test_style_may_be_a_folder(folder: Path, ask: Callable[..., Result]) -> None:
    (folder / "paintings").mkdir()
    command = ["stylize", "photos", "--out", "out", "--set", "method.network=embedded", "--style", "paintings"]
    empty = ask(*command)
    assert empty.exit_code == 2
    assert re.search(r"method\.style = '.*paintings': there is no picture in this folder", empty.stderr)
    assert not (folder / "out").exists()
    for name in ("b.png", "a.png"):
        (folder / "paintings" / name).write_bytes((folder / "style.png").read_bytes())
    shown = ask(*command, "--dry-run")
    assert shown.exit_code == 0, shown.output
    resolved = json.loads(shown.output[: shown.output.rindex("}") + 1])
    assert resolved["method"]["style"] == [str(folder / "paintings" / name) for name in ("a.png", "b.png")]


def test_methods_lists_every_option_with_its_meaning(ask: Callable[..., Result]) -> None:
    shown = ask("methods").stdout
    for part in (
        "style_transfer",
        "deepdream",
        "style_weight",
        "octave_scale",
        "Long side of the style picture",
    ):
        assert part in shown


def test_help_names_every_command_and_exit_code(ask: Callable[..., Result]) -> None:
    shown = ask("--help").stdout
    for part in (
        "run",
        "stylize",
        "dream",
        "resume",
        "retry",
        "status",
        "report",
        "methods",
        "demo",
        "75 stopped",
    ):
        assert part in shown


def test_version() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"nst {importlib.metadata.version('nst')}\n")


def test_status_is_whole_on_narrow_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and commands are copied from it, and searched in what it is piped to."""
    monkeypatch.setenv("COLUMNS", "40")
    output, long = f"s3://bucket/{'folder/' * 20}out", "a-long-name-without-a-blank/" * 9
    failure = Row(row=3, key=f"{long}x", url="", status="failed", error="[b]no\x1b picture[/b]\nok: y")
    show_status(
        JobStatus(
            output=output,
            kind="stub",
            created="2026-11-30T17:00:00Z",
            fingerprint="",
            rows=20,
            shards=1,
            sealed_shards=1,
            counts={"ok": 18, "failed": 2, "quarantined": 0},
            failures=(failure,),
            notes=(f"what was said of {long}",),
            adapting=None,
            driver=None,
        ),
        ["--set", "storage.region=eu"],
    )
    assert capsys.readouterr().out.splitlines() == [
        f"job     stub, begun 2026-11-30T17:00:00Z, in {output}",
        "state   complete, with failures",
        "images  20 of 20 done: 18 ok, 2 failed, 0 quarantined",
        "shards  1 of 1 sealed",
        f"        failed: {long}x: [b]no\ufffd picture[/b]\ufffdok: y",
        f"        and 1 more; all of them: nst status {output} --set storage.region=eu --failed",
        f"note    what was said of {long}",
    ]


def test_errors_have_no_escapes(tmp_path: Path) -> None:
    """Names of files are in them."""
    told = CliRunner().invoke(app, ["status", str(tmp_path / "no\x1b[2J job")])
    assert (told.exit_code, "no\ufffd[2J job is no job" in told.stderr) == (2, True), told.stderr


def test_status_loads_neither_torch_nor_ray(folder: Path, ask: Callable[..., Result]) -> None:
    assert ask("run", "job.toml", "--pool", "local").exit_code == 0
    script = (
        "import sys; from jobs.cli.app import app\n"
        "try: app(['status', 'out'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'ray', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, capture_output=True)


@pytest.mark.slow
def test_status_takes_little_more_than_the_libraries_that_it_needs(
    folder: Path, ask: Callable[..., Result]
) -> None:
    assert ask("run", "job.toml", "--pool", "local").exit_code == 0
    status = [*NST, "status", "out"]
    libraries = "import fsspec, pyarrow.parquet, pydantic, rich.console, rich.progress, typer"
    ratios = []
    for _ in range(3):
        took = []
        for command in (status, [sys.executable, "-c", libraries]):
            before = children_cpu_s()
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
            took.append(children_cpu_s() - before)
        ratios.append(took[0] / took[1])
    assert min(ratios) < 2, ratios


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.ray
def test_a_signal_stops_gently_with_exit_code_75(
    folder: Path, ask: Callable[..., Result], ray_session: str
) -> None:
    """SIGTERM, for which Ray brings a handler of its own. Of local processes: test_stop_signals.py."""
    process = spawn(
        [*NST, "run", "job.toml", "--address", ray_session, "--set", "method.steps=250", "--workers", "1"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(folder.glob("out/journal/*/*")) and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    os.kill(process.pid, signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stdout + stderr
    assert "go on with: nst resume" in stdout
    assert stderr == ""
    deadline = time.monotonic() + 10  # Python's own helper processes notice a moment later
    while living("group", process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not living("group", process.pid)
    done = json.loads(ask("status", "out", "--json").stdout)["done"]
    assert 0 < done < 6
    again = ask("resume", "out", "--pool", "local", "--workers", 1)
    assert again.exit_code == 0, again.stderr
    assert len(outputs(folder / "out")) == 6


def pictures(folder: Path) -> int:
    return sum(1 for _ in (folder / "out/images").rglob("*.png"))


def kill_and_resume(
    folder: Path, ask: Callable[..., Result], kills: int, *pool: str, steps: int, span_s: float, seed: int
) -> int:
    """Run 24 photographs, kill the driver's process group at random moments, resume. Returns the kills that
    hit a job that was begun and not finished; checks that everything is as if nothing had happened."""
    resources = ["--workers", "2", *pool]
    run = ["run", "job.toml", *resources, "--set", f"method.steps={steps}"]
    alone = ask("run", "job.toml", "--pool", "local", *run[-2:], "--set", "output=undisturbed")
    assert alone.exit_code == 0, alone.output
    expected = outputs(folder / "undisturbed")
    assert len(expected) == 24

    moments, hits = random.Random(seed), 0
    for kill in range(kills):
        begun = (folder / "out/job.json").exists()
        command = ["resume", "out", *resources] if begun else run
        process = spawn([*NST, *command], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if kill % 2:  # every other time while photographs are being done, not from the start
            before = pictures(folder)
            while pictures(folder) == before and process.poll() is None:
                time.sleep(0.05)
        time.sleep(moments.uniform(0.1, span_s / 4 if kill % 2 else span_s))
        running = process.poll() is None
        if running:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        hits += running and (folder / "out/job.json").exists()
        done = len(Ledger(LocalStore(str(folder / "out"))).done())
        print(f"kill {kill}: {'hit' if running else 'was finished'}, {done} of 24 shards sealed")
        if not running:
            break
    last = ask("resume", "out", *resources)
    assert last.exit_code == 0, last.stderr
    assert outputs(folder / "out") == expected
    for key, digest in expected.items():
        ours, theirs = folder / f"out/images/{key}.png", folder / f"undisturbed/images/{key}.png"
        assert ours.read_bytes() == theirs.read_bytes(), (key, digest)
    layout = (
        r"(job\.json|manifest\.parquet|images|images/.+|results|results/shard-\d{5}\.parquet|journal(/.+)?)"
    )
    assert all(re.fullmatch(layout, name) for name in files(folder / "out")), files(folder / "out")
    return hits


@pytest.mark.ray
def test_kill_9_of_the_driver_loses_and_doubles_nothing(
    folder: Path, photos: Photos, ask: Callable[..., Result], ray_session: str
) -> None:
    """On a cluster that outlives the driver, so that orphaned actors may still be writing."""
    photos(24)
    assert kill_and_resume(folder, ask, 3, "--address", ray_session, steps=60, span_s=6, seed=1) >= 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_of_the_driver_ten_times(folder: Path, photos: Photos, ask: Callable[..., Result]) -> None:
    """With the Ray that the driver starts itself, and that dies with it."""
    photos(24)
    assert kill_and_resume(folder, ask, 10, steps=2000, span_s=16, seed=2) == 10
