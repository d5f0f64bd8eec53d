"""What is sent to a cluster, and what is refused before that. Without a cluster."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.main import get_command
from typer.testing import CliRunner

from cluster.submit import Cluster
from jobs.cli.app import app
from jobs.cli.growing import Growth
from jobs.cli.submit import Prepared, pack, prepare
from jobs.driver.job import create_or_open
from jobs.errors import LeaseHeld, UsageError
from jobs.ledger.lease import LeaseOptions, hold
from jobs.spec import read_job_file
from jobs.training.job_file import read_train_file
from nst.errors import OptionError
from tests.cluster.checks import ROOT, tracked
from tests.conftest import encoded, picture
from tests.jobs.fake_head import LOG, FakeHead, Tail

Photos = Callable[..., Path]
pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated")  # Ray's client gives aiohttp that
REMOTE = """
photos = "s3://bucket/photos"
output = "s3://bucket/out/"
[method]
kind = "style_transfer"
style = ["s3://bucket/a.png", "s3://bucket/b.png"]
[resources]
pool = "local"
grace_s = 7
"""
LOCAL = """
photos = "photos"
output = "out"
[method]
kind = "style_transfer"
style = ["style é.png", "s3://bucket/b.png"]
"""
STYLES = 'output = "s3://bucket/many"\n[styles]\nphoto = "s3://bucket/a"\nukiyo-e = "s3://bucket/b"\n'
STYLES += '[model]\ngenerator = "modulated"\n'
TRAINING = 'a = "s3://bucket/a"\nb = "s3://bucket/b"\noutput = "s3://bucket/trained"\n'


def write(folder: Path, text: str) -> Path:
    (folder / "job.toml").write_text(text)
    return folder / "job.toml"


def sets(prepared: Prepared) -> dict[str, Any]:
    """What --set gives on the cluster."""
    arguments = prepared.arguments
    given = [arguments[place + 1] for place, each in enumerate(arguments) if each == "--set"]
    return {
        name: tomllib.loads(f"value = {text}")["value"] for name, _, text in (g.partition("=") for g in given)
    }


def test_urls_go_as_they_are_and_the_pool_is_the_clusters(tmp_path: Path) -> None:
    prepared = prepare(write(tmp_path, REMOTE))
    assert prepared.arguments == ("run", "job.toml", "--pool", "ray", "--address", "auto")
    assert prepared.grace_s == 7
    path = write(tmp_path, REMOTE.replace("out/", "out"))
    elsewhere = prepare(path, ["seed=4"], wait_for_lease=True, log_format="json")
    assert elsewhere.name == prepared.name, "of the output alone"
    assert elsewhere.arguments[-5:] == ("--set", "seed=4", "--wait-for-lease", "--log-format", "json")
    assert prepare(write(tmp_path, REMOTE), ["output=s3://bucket/other"]).name != prepared.name
    training = prepare(write(tmp_path, TRAINING))
    assert training.arguments == ("train", "job.toml", "--address", "auto")
    assert training.name != prepared.name
    many = prepare(write(tmp_path, STYLES))
    assert many.arguments == training.arguments


def test_what_becomes_of_a_job_that_is_done_is_said_on_the_cluster(tmp_path: Path) -> None:
    path = write(tmp_path, REMOTE)
    prepared = prepare(path, ["seed=4"], growth=Growth(new=False, changed=True).words())
    assert prepared.arguments[5:] == ("auto", "--no-new", "--changed", "--set", "seed=4")
    assert prepared.again[1:] == ("--set", "seed=4", "--no-new", "--changed")
    assert not {"--no-new", "--changed"} & {*prepare(path).arguments}
    # The same command there takes what was sent.
    context = get_command(app).commands["run"].make_context("run", list(prepared.arguments[1:]))  # type: ignore[attr-defined]
    assert (context.params["no_new"], context.params["changed"]) == (True, True)


def test_paths_of_this_machine_are_refused_unless_they_are_shared(tmp_path: Path) -> None:
    path = write(tmp_path, LOCAL)
    with pytest.raises(OptionError) as caught:
        prepare(path)
    message = str(caught.value)
    assert message.startswith(f"photos = '{tmp_path}/photos': is a path of this machine, which the cluster's")
    assert message.endswith("; so is output; so is method.style[0]")
    with pytest.raises(OptionError, match=r"^evaluation\.weights = '.*w.pth': is a path of this machine"):
        prepare(write(tmp_path, TRAINING), ["evaluation.every=5", "evaluation.weights=w.pth"])
    with pytest.raises(OptionError, match=r"^init\.weights = .*w.pth.*: is a path of this machine"):
        prepare(write(tmp_path, TRAINING), ["init.weights=w.pth"])
    begun = prepare(
        write(tmp_path, TRAINING), ['init.weights=["w.pth", "s3://bucket/v.pth"]'], shared_paths=True
    )
    assert sets(begun)["init.weights"] == [f"{tmp_path}/w.pth", "s3://bucket/v.pth"]

    prepared = prepare(write(tmp_path, LOCAL), ["seed=4"], shared_paths=True)
    assert sets(prepared) == {
        "seed": 4,
        "photos": f"{tmp_path}/photos",
        "output": f"{tmp_path}/out",
        "method.style": [f"{tmp_path}/style é.png", "s3://bucket/b.png"],
    }
    (tmp_path / "sent").mkdir()
    pack(prepared, tmp_path / "sent")
    overrides = [each for each in prepared.arguments if "=" in each]
    there = read_job_file(tmp_path / "sent/job.toml", overrides)
    assert there.spec == read_job_file(path, ["seed=4"]).spec, "the same job, wherever its file is"


def test_lists_of_places_are_sent_as_what_they_are_here(tmp_path: Path) -> None:
    several = ['photos=["a.jpg", "s3://bucket/b.jpg"]', 'not_in=["out-1"]']
    with pytest.raises(OptionError, match=r"a\.jpg.* is a path of this machine.*; so is output; so is not_in"):
        prepare(write(tmp_path, LOCAL), several)
    sent = sets(prepare(write(tmp_path, LOCAL), several, shared_paths=True))
    assert sent["photos"] == [f"{tmp_path}/a.jpg", "s3://bucket/b.jpg"]
    assert sent["not_in"] == [f"{tmp_path}/out-1"]


def test_styles_that_come_along_are_on_the_cluster_too(tmp_path: Path) -> None:
    own = REMOTE.replace(
        '["s3://bucket/a.png", "s3://bucket/b.png"]', '["nst:style/rose", "s3://bucket/b.png"]'
    )
    assert "method.style" not in sets(prepare(write(tmp_path, own)))
    each = 'styles = ["swirls", "s3://bucket/b.png"]\n' + REMOTE.replace("style = [", "# style = [")
    assert "styles" not in sets(prepare(write(tmp_path, each)))
    beside = each.replace('"s3://bucket/b.png"]', '"b.png"]')
    with pytest.raises(OptionError, match=r"styles = .*b\.png.* is a path of this machine"):
        prepare(write(tmp_path, beside))
    sent = sets(prepare(write(tmp_path, beside), shared_paths=True))
    assert sent["styles"] == ["nst:style/swirls", f"{tmp_path}/b.png"]


def test_files_and_held_out_photographs_of_a_training_are_places_too(tmp_path: Path) -> None:
    held_out = f'{TRAINING}[evaluation]\nheld_out = {{ a = "test a" }}\n'
    with pytest.raises(OptionError, match=r"evaluation\.held_out\.a = .*test a': is a path of this machine"):
        prepare(write(tmp_path, held_out))
    path = write(tmp_path, held_out)
    sent = tmp_path / "sent"
    sent.mkdir()
    prepared = prepare(path, shared_paths=True)
    pack(prepared, sent)
    there = read_train_file(sent / "job.toml", [each for each in prepared.arguments if "=" in each])
    assert there == read_train_file(path)
    style = 'photos = "s3://bucket/a"\noutput = "s3://bucket/trained"\n[model]\nkind = "feed_forward_styles"\n'
    painted = write(tmp_path, f'{style}style = ["wave.jpg", "nst:style/rose"]\n')
    with pytest.raises(OptionError, match=r"model\.style\[0\] = .*wave\.jpg': is a path of this machine"):
        prepare(painted)
    assert sets(prepare(painted, shared_paths=True)) == {
        "model.style": [f"{tmp_path}/wave.jpg", "nst:style/rose"]
    }
    assert sets(prepare(write(tmp_path, f'{style}style = "nst:style/rose"\n'))) == {}


@pytest.mark.parametrize(
    ("text", "error"),
    [("photos = ", "is not valid TOML"), ("a = 1", "photos"), ('[method]\nkind = "x"', "photos")],
)
def test_a_wrong_job_file_is_refused(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises((UsageError, OptionError), match=error):
        prepare(write(tmp_path, text))
    with pytest.raises(UsageError, match="No such file"):
        prepare(tmp_path / "none.toml")


def test_the_code_and_the_job_file_are_sent_and_nothing_else(tmp_path: Path) -> None:
    """And that is enough to run it, also where this program is not installed."""
    prepared = prepare(write(tmp_path, REMOTE))
    sent = tmp_path / "sent"
    sent.mkdir()
    pack(prepared, sent)
    files = {str(path.relative_to(sent)) for path in sent.rglob("*") if path.is_file()}
    assert {
        "job.toml",
        "pyproject.toml",
        "jobs/__main__.py",
        "nst/features/embedded/embedded.safetensors",
    } < files
    others = {path for path in files if path.split("/")[0] not in ("nst", "jobs", "cluster")}
    assert {path.split(".dist-info")[0].split("-")[0] for path in others} == {
        "job.toml",
        "pyproject.toml",
        "nst",
    }
    ours = [str(path.relative_to(ROOT)) for path in tracked()]
    needed = {path for path in ours if path.startswith(("nst/", "jobs/")) and not path.endswith(".md")}
    needed |= {path for path in ours if re.fullmatch(r"cluster/.*\.py", path)}
    assert files - others == needed, "all that a job reads, on GPUs and at a training's end, too"
    assert (sent / "job.toml").read_text() == REMOTE
    script = (
        "import importlib.metadata, jobs, jobs.ledger.begin_job; "
        "print(jobs.__file__, importlib.metadata.version('nst'))\n"
        "from jobs.view.page import static; from nst.styles import STYLES, style_bytes\n"
        "assert static('report.js') and all(style_bytes(f'nst:style/{name}') for name in STYLES)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=sent, env=environment, capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith(str(sent))


@pytest.fixture
def ask(tmp_path: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    photos(2)
    (tmp_path / "style é.png").write_bytes(encoded(picture(99, 60, 60), "PNG"))
    write(tmp_path, LOCAL.replace(', "s3://bucket/b.png"', ""))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    return lambda *arguments: CliRunner().invoke(app, ["submit", "job.toml", *arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], r"error: photos = .* is a path of this machine"),
        (
            ["--shared-paths"],
            r"error: no --address: expected that of the cluster's dashboard, http://HEAD:8265",
        ),
        (["--shared-paths", "--address", "head:6379"], r"error: --address = 'head:6379': expected that of the"),
        (["--shared-paths", "--address", "http://me:secret@head:8265"], r"error: --address = 'http://\*\*\*'"),
        (["--attach", "--stop"], r"error: --attach = True: is one of --attach, --stop and --no-wait"),
    ],
    ids=str,
)
def test_asked_for_wrongly_is_one_message(ask: Callable[..., Result], arguments: list[str], said: str) -> None:
    asked = ask(*arguments)
    assert asked.exit_code == 2, asked.output
    assert re.match(said, asked.stderr), asked.stderr
    assert len(asked.stderr.splitlines()) == 1
    assert "secret@" not in asked.stderr


def test_what_another_driver_is_at_is_not_even_submitted(ask: Callable[..., Result]) -> None:
    job = create_or_open(read_job_file(Path("job.toml"), ["method.weights=seeded", "method.network=vgg16"]))
    with hold(job.store, LeaseOptions()):
        asked = ask("--shared-paths", "--address", "http://127.0.0.1:1")
        assert asked.exit_code == LeaseHeld.exit_code == 2
        assert f"is being worked on by process {os.getpid()} on" in asked.stderr


# On a cluster


def submission(number: int) -> str:
    """Its id, of what goes to `out`."""
    return f"{prepare(Path('job.toml'), shared_paths=True).name}-{number}"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "tails",
    [["cut 30"], ["cut 170", "cut 120", "cut 300"], [502, "cut 80"], [502], ["silent"], ["cut 99", "silent"]],
    ids=str,
)
def test_a_log_is_written_once_however_often_its_connection_ends(
    ask: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tails: list[Tail]
) -> None:
    monkeypatch.setattr("cluster.submit._SILENT_S", 1.0)
    head = FakeHead(*tails, end=3)
    head.add(submission(1))
    with head.serving() as address:
        asked = ask("--attach", "--address", address)
    assert asked.exit_code == 3, asked.output
    assert asked.stdout == LOG
    assert asked.stderr == ""
    assert head.tails == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("status", "said"), [(401, "asks for a token: set RAY_AUTH"), (404, "refuses: .* 404")]
)
def test_a_head_that_knows_it_no_longer_is_one_message(
    ask: Callable[..., Result], status: int, said: str
) -> None:
    head = FakeHead("cut 30", status, "never reached")
    head.add(submission(1))
    with head.serving() as address:
        asked = ask("--attach", "--address", address)
    assert asked.exit_code == 2
    assert re.fullmatch(f"error: {address} {said}.*\n", asked.stderr), asked.stderr
    assert asked.stdout == LOG[:30]


@pytest.mark.timeout(60)
def test_who_no_longer_reads_ends_the_following(ask: Callable[..., Result]) -> None:  # noqa: ARG001
    def write(_: str) -> None:
        raise BrokenPipeError

    head = FakeHead("cut 30", "never reached")
    head.add(submission(1))
    with head.serving() as address, pytest.raises(BrokenPipeError):
        Cluster(address).follow(submission(1), write)
    assert head.tails == ["never reached"]


def test_who_waits_for_the_lease_is_submitted_beside_what_runs(ask: Callable[..., Result]) -> None:
    head = FakeHead()
    head.add(submission(1))
    with head.serving() as address:
        asked = ask("--shared-paths", "--address", address, "--no-wait")
        assert asked.exit_code == 2
        assert asked.stderr == f"error: it is running on {address} already, as {submission(1)}\n"
        asked = ask("--shared-paths", "--address", address, "--no-wait", "--wait-for-lease")
    assert asked.exit_code == 0, asked.stderr
    assert list(head.jobs) == [submission(1), submission(2)]
    assert head.jobs[submission(2)]["entrypoint"].endswith(" --wait-for-lease")


def test_a_job_that_grows_is_submitted(ask: Callable[..., Result], tmp_path: Path) -> None:
    head = FakeHead()
    with head.serving() as address:
        asked = ask("--shared-paths", "--address", address, "--no-wait", "--changed", "--no-new")
    assert asked.exit_code == 0, asked.output
    assert "--address auto --no-new --changed --set" in head.jobs[submission(1)]["entrypoint"]
    follow = next(line for line in asked.stdout.splitlines() if line.startswith("follow it: "))
    assert "--no-new --changed" in follow
    write(tmp_path, TRAINING)
    for option in ("--no-new", "--changed"):
        asked = ask("--address", address, option)
        assert asked.exit_code == 2
        assert asked.stderr.startswith(
            f"error: {option} = True: is for jobs of photographs, and this is a training"
        )


def test_what_is_advised_works_as_it_is_printed(ask: Callable[..., Result], tmp_path: Path) -> None:
    other = ["method.weights=seeded", "method.network=vgg16", "output=an other", "storage.region=eu west"]
    create_or_open(read_job_file(Path("job.toml"), other))
    sets = [word for each in other for word in ("--set", each)]
    head = FakeHead()

    def typed(output: str, what: str) -> Result:
        line = re.search(f"{what}: nst (.*)", output)
        assert line is not None, output
        return CliRunner().invoke(app, shlex.split(line[1]))

    with head.serving() as address:
        asked = ask("--shared-paths", "--address", address, "--no-wait", *sets)
        assert asked.exit_code == 0, asked.stderr
        (id,) = head.jobs
        assert id != submission(1)
        told = typed(asked.stdout, "how far it is")
        assert told.exit_code == 0, told.output
        line = f"how far it is: nst status '{tmp_path}/an other' --set 'storage.region=\"eu west\"'"
        assert asked.stdout.splitlines()[-1] == line
        stopped = typed(asked.stdout, "stop it")
        assert stopped.exit_code == 0, stopped.output
        assert head.stopped == [id]
        assert f"{id} has ended with exit code 75; go on with: nst submit job.toml" in stopped.stdout
        attached = typed(asked.stdout, "follow it")
        assert (attached.exit_code, attached.stdout) == (0, LOG)
        again = typed(stopped.stdout, "go on with")
        assert (again.exit_code, again.stderr) == (0, ""), again.output
    assert list(head.jobs) == [id, f"{id[:-1]}2"]


@pytest.mark.parametrize(("code", "advised"), [(0, False), (3, False), (4, True)])
def test_what_has_ended_is_not_stopped(ask: Callable[..., Result], code: int, advised: bool) -> None:
    head = FakeHead()
    head.add(submission(1))
    head.end(submission(1), code)
    with head.serving() as address:
        asked = ask("--stop", "--address", address)
    go_on = f"; go on with: nst submit job.toml --shared-paths --address {address}" if advised else ""
    assert asked.exit_code == 0, asked.stderr
    assert asked.stdout == f"{submission(1)} had ended already, with exit code {code}{go_on}\n"
    assert head.stopped == []


def test_programs_read_nothing_but_what_the_driver_writes(ask: Callable[..., Result]) -> None:
    head = FakeHead()
    as_json = ("--shared-paths", "--log-format", "json", "--address")
    with head.serving() as address:
        asked = ask(*as_json, address)
        assert (asked.exit_code, asked.stdout) == (0, LOG), asked.stderr
        assert asked.stderr == f"submitted to {address} as {submission(1)}\n"
        asked = ask(*as_json, address, "--no-wait")
        assert (asked.exit_code, asked.stdout) == (0, "")
        assert asked.stderr.count("\n") == 4
        asked = ask(*as_json, address, "--stop")
        assert (asked.exit_code, asked.stdout) == (0, "")
        assert "has ended with exit code 75" in asked.stderr
