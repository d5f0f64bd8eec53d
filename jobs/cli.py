"""The command line. Every command that does not compute loads neither torch nor ray."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.errors import EXIT_FAULTS, EXIT_UNFINISHED, exit_code_of
from jobs.filesystems import absolute_url
from jobs.news import News, Teller
from jobs.storage import open_store
from nst.errors import NstError

if TYPE_CHECKING:
    from jobs.actions import Work
    from jobs.job import Job
    from jobs.lease import LeaseOptions
    from jobs.spec import JobFile
    from jobs.storage import Store
    from jobs.training.job import TrainJob

__all__ = ["app", "main"]

app = typer.Typer(
    help="Stylize collections of photographs: neural style transfer and DeepDream on pools of workers.",
    epilog="Exit codes: 0 all images ok, 2 asked for wrongly, 3 finished with failed images, 4 shards "
    "unfinished, 5 faults found by `verify`, 75 stopped and resumable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

train = typer.Typer(
    help='Train generators for `kind = "cyclegan"` and `kind = "modulated"` on a cluster.', no_args_is_help=True
)
app.add_typer(train, name="train")

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set an option, e.g. method.steps=200.")
]
PoolName = Annotated[str | None, typer.Option("--pool", help="ray or local.")]
Address = Annotated[str | None, typer.Option("--address", help="Of a running Ray cluster.")]
Workers = Annotated[int | None, typer.Option("--workers", help="At most this many workers.")]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The job's folder or bucket prefix.")]
Reach = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="storage.NAME=VALUE", help="How to reach OUT, e.g. storage.endpoint_url=http://..."
    ),
]
_CHANGEABLE = ("resources", "storage", "log", "evaluation", "ddp")
"""Tables of a training's job file whose options may be others when it goes on."""
Wait = Annotated[
    bool,
    typer.Option(
        "--wait-for-lease",
        help="If another driver is at this job: wait until it ends, or seems dead for a minute.",
    ),
]
LogFormat: TypeAlias = Literal["text", "json"]
Format = Annotated[
    LogFormat,
    typer.Option("--log-format", help="json: one object per line, for programs, of all that happens."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the resolved job and write nothing.")]


@app.command()
def run(
    job: Annotated[Path, typer.Argument(metavar="JOB.TOML", help="The job file.")],
    set_: Set = None,
    dry_run: DryRun = False,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Run a job file; go on with it if its output folder holds the same job, begun earlier."""
    with _errors():
        from jobs.spec import read_job_file

        file = read_job_file(job, [*(set_ or []), *_resources(pool, address, workers)])
        _begin(file, dry_run, wait=wait, log_format=log_format)


@app.command()
def stylize(
    photos: Annotated[str, typer.Argument(help="A folder, glob, bucket prefix, or manifest.")],
    style: Annotated[list[str], typer.Option("--style", help="The style picture; may be repeated.")],
    out: Annotated[str, typer.Option("--out", help="The job's folder or bucket prefix.")],
    size: Annotated[int | None, typer.Option("--size", help="Long side of the pictures in pixels.")] = None,
    set_: Set = None,
    dry_run: DryRun = False,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Paint photographs in the style of a picture."""
    with _errors():
        method = {"kind": "style_transfer", "style": style[0] if len(style) == 1 else style}
        overrides = [*(set_ or []), *_resources(pool, address, workers)]
        _quick(photos, out, method, size, overrides, dry_run, wait, log_format)


@app.command()
def dream(
    photos: Annotated[str, typer.Argument(help="A folder, glob, bucket prefix, or manifest.")],
    out: Annotated[str, typer.Option("--out", help="The job's folder or bucket prefix.")],
    guide: Annotated[str | None, typer.Option("--guide", help="A picture whose like is to appear.")] = None,
    size: Annotated[int | None, typer.Option("--size", help="Long side of the pictures in pixels.")] = None,
    set_: Set = None,
    dry_run: DryRun = False,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Let a network dream on photographs."""
    with _errors():
        method = {"kind": "deepdream"} if guide is None else {"kind": "deepdream", "guide": guide}
        overrides = [*(set_ or []), *_resources(pool, address, workers)]
        _quick(photos, out, method, size, overrides, dry_run, wait, log_format)


@train.command()
def cyclegan(
    job: Annotated[Path, typer.Argument(metavar="JOB.TOML", help="The job file.")],
    set_: Set = None,
    dry_run: DryRun = False,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Train both generators of a CycleGAN with Ray Train, or one for many styles; go on with it if its output
    folder holds the same."""
    with _errors():
        from jobs.training.job import create_or_open_training, plan_training
        from jobs.training.spec import read_train_file, train_to_table

        file = read_train_file(job, [*(set_ or []), *_resources(None, address, workers)])
        if dry_run:
            planned = plan_training(file)
            print(json.dumps(train_to_table(file), indent=2))
            steps = planned.epoch_steps
            total = f"{steps * file.spec.schedule.epochs} steps, {steps} per epoch"
            print(f"{_counted(planned.rows)} photographs, {total}; nothing was written")
            return
        _train(lambda: create_or_open_training(file), wait, log_format)


def _counted(rows: Mapping[str, int]) -> str:
    """`11 and 7` of two collections, `11 (photo), 7 (ukiyo-e) and 5 (pastel)` of styles."""
    if rows.keys() == {"a", "b"}:
        return f"{rows['a']} and {rows['b']}"
    *most, last = [f"{number} ({name})" for name, number in rows.items()]
    return f"{', '.join(most)} and {last}"


@train.command()
def options() -> None:
    """List the options of a training's job file, table by table."""
    with _errors():
        from jobs.describe import options_of
        from jobs.filesystems import StorageOptions
        from jobs.training.spec import TABLES, StylesSpec, TrainSpec
        from nst.cyclegan.many_styles import ManyStylesOptions

        _show_options("a job file", TrainSpec, leave_out=TABLES)
        both = [*TABLES, *(option.name for option in options_of(TrainSpec))]
        _show_options("of many styles", StylesSpec, leave_out=both)
        for name, cls in {**TABLES, "storage": StorageOptions}.items():
            _show_options(f"[{name}]", cls)
            if name == "model":
                _show_options('[model], generator = "modulated"', ManyStylesOptions, leave_out=("styles",))


@app.command()
def resume(
    out: Out,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    set_: Set = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Go on with a job that was stopped or killed. --set takes options of `resources` and `storage` only; of a
    training also those of `log`, `evaluation` and `ddp`."""
    with _errors():
        overrides = [*(set_ or []), *_resources(pool, address, workers)]
        _tables(overrides, _CHANGEABLE)
        if _is_training(_store(out, [each for each in overrides if each.startswith("storage.")])):
            _train(lambda: _reopen_training(out, overrides), wait, log_format)
        else:
            _execute(lambda: (_reopen(out, overrides), None), wait=wait, log_format=log_format)


@app.command()
def retry(
    out: Out,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="Only this photograph; may be repeated.")
    ] = None,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    set_: Set = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Do the failed and quarantined photographs of a job again."""
    with _errors():
        from jobs.stylize import retry_work

        def failed_ones() -> tuple[Job, Callable[[], list[Work]]]:
            job = _reopen(out, [*(set_ or []), *_resources(pool, address, workers)])
            return job, lambda: retry_work(job, key)

        _execute(failed_ones, wait=wait, log_format=log_format)


@app.command()
def submit(
    job: Annotated[Path, typer.Argument(metavar="JOB.TOML", help="The job file, of either kind.")],
    address: Annotated[
        str | None,
        typer.Option("--address", help="The cluster's dashboard, http://HEAD:8265. Else RAY_ADDRESS."),
    ] = None,
    set_: Set = None,
    workers: Workers = None,
    shared_paths: Annotated[
        bool, typer.Option("--shared-paths", help="Local paths in the job file are the same on every node.")
    ] = False,
    wait: Wait = False,
    log_format: Format = "text",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow it.")] = False,
    attach: Annotated[bool, typer.Option("--attach", help="Follow what was submitted.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop what was submitted, gently.")] = False,
) -> None:
    """Run a job file on a Ray cluster, with the driver there. Ends with the job's exit code, or with 130 if
    Ctrl-C ends the following only. A cluster that asks for a token gets RAY_AUTH_TOKEN, or what is in
    RAY_AUTH_TOKEN_PATH."""
    with _errors():
        import jobs.submit as submission
        from nst.errors import OptionError

        if attach + stop + no_wait > 1:
            raise OptionError("--attach", attach, reason="is one of --attach, --stop and --no-wait")
        prepared = submission.prepare(
            job,
            [*(set_ or []), *_resources(None, None, workers)],
            shared_paths=shared_paths or attach or stop,
            wait_for_lease=wait,
            log_format=log_format,
        )
        if stop:
            raise typer.Exit(submission.stop(prepared, address))
        if attach:
            raise typer.Exit(submission.follow(prepared, address))
        raise typer.Exit(submission.submit(prepared, address, wait=not no_wait))


@app.command()
def status(
    out: Out,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    set_: Reach = None,
) -> None:
    """Say how far a job is, from its store alone."""
    with _errors():
        from jobs.status import job_status

        store = _store(out, set_)
        if _is_training(store):
            _show_training(store, as_json)
            return
        found = job_status(store)
        if as_json:
            print(json.dumps(found.to_json()))
            return
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_row("job", escape(f"{found.kind}, begun {found.created}, in {found.output}"))
        table.add_row("state", found.state)
        counts = ", ".join(f"{number} {name}" for name, number in found.counts.items())
        table.add_row("images", f"{found.done} of {found.rows} done: {counts}")
        table.add_row("shards", f"{found.sealed_shards} of {found.shards} sealed")
        if found.driver is not None:
            table.add_row("driver", escape(found.driver.describe()))
        for note in found.notes:
            table.add_row("note", escape(note))
        Console().print(table, highlight=False)


@app.command()
def report(out: Out, set_: Reach = None) -> None:
    """Write a contact sheet of a job, OUT/report.html, that opens from disk."""
    with _errors():
        from jobs.report import publish_report
        from jobs.training.report import publish_training_report

        store = _store(out, set_)
        print(publish_training_report(store) if _is_training(store) else publish_report(store))


@app.command()
def verify(
    out: Out,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per fault.")] = False,
    set_: Reach = None,
) -> None:
    """Read a job again, every row and every picture and curve, and list what is not as it must be."""
    with _errors():
        from dataclasses import asdict

        from jobs.audit import verify
        from jobs.text import printable

        found = 0
        for fault in verify(_store(out, set_)):
            found += 1
            about = "" if fault.key is None else f" ({fault.key})"
            print(json.dumps(asdict(fault)) if as_json else printable(f"{fault.path}{about}: {fault.problem}"))
        if not as_json:
            print(f"{found} faults" if found else "no faults: every row once, every picture as it was made")
        if found:
            raise typer.Exit(EXIT_FAULTS)


@app.command()
def gc(
    out: Out,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, only count.")] = False,
    set_: Reach = None,
) -> None:
    """Remove journals of finished shards and half-made leftovers; not while the job runs."""
    with _errors():
        from jobs.audit import collect_garbage

        garbage = collect_garbage(_store(out, set_), remove=not dry_run)
        done = "would be removed" if dry_run else "removed"
        orphans = f"{len(garbage.pictures)} orphaned pictures and curves"
        print(f"{len(garbage.journals)} journal parts and {orphans} {done}")


@app.command()
def explain(
    out: Out, key: Annotated[str, typer.Argument(help="Of the photograph.")], set_: Reach = None
) -> None:
    """Tell what became of one photograph: attempts, workers, errors, times."""
    with _errors():
        from jobs.audit import explain
        from jobs.text import printable

        for line in explain(_store(out, set_), key):
            print(printable(line))


@app.command()
def methods() -> None:
    """List the methods and their options."""
    with _errors():
        from nst.methods import METHODS

        for kind, cls in METHODS.items():
            _show_options(kind, cls)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for photographs, pictures and reports.")] = Path(
        "demo-out"
    ),
    pool: PoolName = None,
) -> None:
    """Stylize and dream on a few public-domain photographs, offline, with two Ray actors."""
    with _errors():
        from jobs.demo import demo_jobs
        from jobs.report import publish_report

        reports = []
        for job_file in demo_jobs(out.resolve(), pool or "ray"):
            _begin(job_file, dry_run=False, leave=False)
            reports.append(publish_report(open_store(job_file.spec.output)))
        for path in reports:
            print(f"report: {path}")


def main() -> None:
    """Entry point of the console script."""
    app()


@contextmanager
def _errors() -> Iterator[None]:
    """One message and the right exit code; no traceback for what is not our fault."""
    try:
        yield
    except NstError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(exit_code_of(error)) from None
    except OSError as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_UNFINISHED) from None


def _show_options(title: str, cls: type[Any], leave_out: Container[str] = ()) -> None:
    from jobs.describe import options_of

    summary = (cls.__doc__ or "").split("\n\n")[0]
    table = Table(title=escape(f"{title}: {summary}"), title_justify="left", title_style="bold", box=None)
    for name in ("option", "default", "meaning"):
        table.add_column(name, overflow="fold")
    for option in options_of(cls):
        if option.name not in leave_out:
            table.add_row(option.name, escape(option.default or "required"), escape(option.help))
    console = Console()
    console.print(table)
    console.print()


def _store(out: str, overrides: Sequence[str] | None) -> Store:
    """The store at OUT, reached as `--set storage.NAME=VALUE` says."""
    return _open(out, _tables(overrides, ("storage",)))


def _open(out: str, tables: Mapping[str, Any]) -> Store:
    from jobs.spec import storage_from_table

    return open_store(absolute_url(out, Path.cwd()), storage_from_table(tables.get("storage", {})))


def _tables(overrides: Sequence[str] | None, allowed: tuple[str, ...]) -> dict[str, Any]:
    from jobs.spec import apply_overrides
    from nst.errors import OptionError

    table = apply_overrides({}, overrides or ())
    for name, value in table.items():
        if name not in allowed or not isinstance(value, dict):
            choices = [f"{each}.*" for each in allowed]
            raise OptionError(name, value, choices=choices, reason="is fixed once a job is begun")
    return table


def _resources(pool: str | None, address: str | None, workers: int | None) -> list[str]:
    """The short options as what --set would take."""
    given = {"pool": pool, "address": address, "max_workers": workers}
    return [f"resources.{name}={json.dumps(value)}" for name, value in given.items() if value is not None]


def _quick(
    photos: str,
    out: str,
    method: dict[str, Any],
    size: int | None,
    overrides: list[str],
    dry_run: bool,
    wait: bool,
    log_format: LogFormat,
) -> None:
    from jobs.spec import apply_overrides, job_from_table

    table: dict[str, Any] = {"photos": photos, "output": out, "method": method}
    if size is not None:
        table["image"] = {"max_side_px": size}
    file = job_from_table(apply_overrides(table, overrides), Path.cwd())
    _begin(file, dry_run, wait=wait, log_format=log_format)


def _begin(
    job_file: JobFile,
    dry_run: bool,
    *,
    leave: bool = True,
    wait: bool = False,
    log_format: LogFormat = "text",
) -> None:
    from jobs.job import create_or_open, plan
    from jobs.spec import job_to_table

    if dry_run:
        planned = plan(job_file)
        print(json.dumps(job_to_table(job_file), indent=2))
        print(f"{planned.manifest.rows} photographs in {planned.manifest.shards} shards; nothing was written")
        return
    _execute(lambda: (create_or_open(job_file), None), leave=leave, wait=wait, log_format=log_format)


def _reopen(out: str, overrides: list[str]) -> Job:
    from jobs.job import reopen

    tables = _tables(overrides, ("resources", "storage"))
    return reopen(_open(out, tables), overrides=tables)


def _execute(
    prepare: Callable[[], tuple[Job, Callable[[], list[Work]] | None]],
    *,
    leave: bool = True,
    wait: bool = False,
    log_format: LogFormat = "text",
) -> None:
    """Plan, run, show progress, say how it ended. Leaves with the exit code; with 0 only if `leave`."""
    from jobs.display import Display, describe_summary
    from jobs.json_log import JsonLog
    from jobs.stop import StopSignal
    from jobs.stylize import run

    with StopSignal().on_signals(last=leave) as stop:
        job, work = prepare()
        url = job.store.url
        log = JsonLog(url, sys.stdout) if log_format == "json" else Display(Console())
        with log:
            _tell_notes(log, job.notes)
            summary = run(job, work, observe=log, stop=stop, lease=_lease(log, wait))
    command = "resume" if work is None else "retry"
    go_on = summary.stopped or summary.exit_code == EXIT_UNFINISHED
    values = {"exit_code": summary.exit_code, **summary.to_json()}
    _tell_end(
        log,
        f"{describe_summary(summary)}: {url}",
        values,
        summary.error,
        f"nst {command} {url}" if go_on else None,
    )
    if leave or summary.exit_code:
        raise typer.Exit(summary.exit_code)


def _tell_notes(log: Teller, notes: Iterable[str]) -> None:
    for note in notes:
        log.tell(News(event="note", text=f"note: {note}"))


def _tell_end(
    log: Teller, text: str, values: Mapping[str, Any], error: NstError | None, go_on: str | None
) -> None:
    log.tell(News(event="ended", text=text, values=values))
    if error is not None:
        log.tell(News(event="error", level="error", text=str(error)))
    if go_on is not None:
        log.tell(News(event="go_on", text=f"go on with: {go_on}"))


def _lease(log: Teller, wait: bool) -> LeaseOptions:
    from jobs.lease import LeaseOptions

    return LeaseOptions(wait=wait, say=lambda text: log.tell(News(event="waiting_for_lease", text=text)))


# Trainings


def _is_training(store: Store) -> bool:
    from jobs.record import job_kind
    from jobs.training.layout import KIND

    return job_kind(store) == KIND


def _reopen_training(out: str, overrides: list[str]) -> TrainJob:
    from jobs.training.job import reopen_training

    tables = _tables(overrides, _CHANGEABLE)
    return reopen_training(_open(out, tables), overrides=tables)


def _train(prepare: Callable[[], TrainJob], wait: bool = False, log_format: LogFormat = "text") -> None:
    """Plan, train, show progress, say how it ended. Leaves with the exit code."""
    from jobs.json_log import JsonLog
    from jobs.stop import StopSignal
    from jobs.train_cyclegan import run_training
    from jobs.training.display import TrainDisplay
    from jobs.training.report import publish_training_report

    with StopSignal().on_signals() as stop:
        job = prepare()
        url = job.store.url
        log = JsonLog(url, sys.stdout) if log_format == "json" else TrainDisplay(Console())
        with log:
            _tell_notes(log, job.notes)
            summary = run_training(job, observe=log, stop=stop, lease=_lease(log, wait))
    where, option = url.rstrip("/"), job.file.spec.method_option
    values = {"exit_code": summary.exit_code, "steps": summary.steps, "done": summary.done}
    if summary.done is None:
        _tell_end(log, "", values, summary.error, f"nst resume {url}")
    else:
        lines = (
            f"{summary.steps} steps: {where}",
            f'{option} = "{where}/{summary.done["generator"]}"',
            f'{option}_sha256 = "{summary.done["sha256"]}"',
            f"report: {publish_training_report(job.store)}",
        )
        _tell_end(log, "\n".join(lines), values, None, None)
    raise typer.Exit(summary.exit_code)


def _show_training(store: Store, as_json: bool) -> None:
    from jobs.training.display import describe_losses
    from jobs.training.metrics import grouped
    from jobs.training.status import train_status

    found = train_status(store)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("job", escape(f"{found.kind}, begun {found.created}, in {found.output}"))
    table.add_row("state", found.state)
    table.add_row("photos", ", ".join(f"{number} of {name}" for name, number in found.named_photos.items()))
    if found.driver is not None:
        table.add_row("driver", escape(found.driver.describe()))
    table.add_row("step", f"{found.step}; the newest checkpoint is of {found.checkpoint or 'none'}")
    if found.losses:
        for group, losses in grouped(found.losses).items():
            name = "losses" if group == "loss" else group.replace("_to_", " to ")
            table.add_row(name, describe_losses(losses))
    if found.skipped:
        table.add_row("left out", f"{found.skipped} photographs that cannot be read")
    for step, distances in found.evaluations.items():
        table.add_row(f"at {step}", describe_losses(distances))
    if found.done is not None:
        table.add_row("generator", escape(f"{found.done['generator']}, of step {found.done['step']}"))
    for note in found.notes:
        table.add_row("note", escape(note))
    Console().print(table, highlight=False)
