"""Commands that begin a job of photographs, or go on with one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.arguments import (
    Address,
    Changed,
    DryRun,
    Format,
    JobPath,
    NoNew,
    Out,
    OutOption,
    Photos,
    PhotosNow,
    PoolName,
    Set,
    SetHow,
    Size,
    Styles,
    Wait,
    Workers,
    examples,
)
from jobs.cli.growing import execute_retries, growth_of, unfinished
from jobs.cli.quality import Quality, first_photo, stylize_table
from jobs.cli.running import execute
from jobs.cli.train import CHANGEABLE, begin_training, execute_training, is_training, reopen_training_at
from jobs.cli.work import (
    begin,
    begin_file,
    begin_later,
    begin_quickly,
    errors,
    place_now,
    reopen_at,
    resources,
    store_at,
    tables_of,
)
from jobs.stores.store import open_store
from nst.errors import OptionError
from nst.styles import STYLES

__all__ = ["app"]

app = typer.Typer()
_PANEL = "Begin a job, or go on with it"


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples(
        "nst run job.toml",
        "nst run job.toml --dry-run",
        "nst run job.toml --set method.steps=200 --pool local --workers 2",
    ),
)
def run(
    job: JobPath,
    set_: Set = None,
    dry_run: DryRun = False,
    no_new: NoNew = False,
    changed: Changed = False,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Run a job file, of photographs or of a training.

    Goes on with the job if its output folder holds the same one, begun earlier.
    """
    with errors(log_format):
        from jobs.cli.submit import is_training_file

        training = is_training_file(job, set_ or [])
        overrides = [*(set_ or []), *resources(pool, address, workers, training=training)]
        growth = growth_of(no_new, changed, training=training)
        if training:
            begin_training(job, overrides, dry_run=dry_run, wait=wait, log_format=log_format)
        else:
            begin_file(job, overrides, dry_run, growth, wait=wait, log_format=log_format)


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples(
        "nst stylize holiday/*.jpg --styles paintings --styles swirls --out painted",
        "nst stylize holiday --style swirls --out painted --quality best --size 800",
        "nst stylize frames --style wave.jpg --out painted --sequence",
    ),
)
def stylize(
    photos: Photos,
    out: OutOption,
    style: Annotated[
        list[str] | None,
        typer.Option(
            "--style",
            metavar="PICTURE",
            help="The style: a picture, a folder of them, or the name of one that comes with nst: "
            f"{', '.join(STYLES)}; may be repeated.",
        ),
    ] = None,
    styles: Styles = None,
    quality: Annotated[
        Quality | None,
        typer.Option(
            "--quality",
            help="How photographs are painted: draft, by a network, in one pass, at their own size; adapted, "
            "likewise, after the network has learned the style on some of them, for minutes; best, by "
            "optimization, 512 pixels long. Left out: draft, unless --set has an option that only best has.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="The network: what a training ended with, or one of PyTorch's examples. One that was trained "
            "for a style needs no --style. Left out: the network that comes with nst.",
        ),
    ] = None,
    sequence: Annotated[
        bool,
        typer.Option(
            "--sequence", help="The photographs are frames of one scene: all are painted as the first one is."
        ),
    ] = False,
    size: Size = None,
    set_: Set = None,
    dry_run: DryRun = False,
    no_new: NoNew = False,
    changed: Changed = False,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Paint photographs in the style of a picture."""
    with errors(log_format):
        first = first_photo(photos, out, set_ or []) if sequence else None
        tables = stylize_table(
            style or [], quality, set_ or [], first_frame=first, weights=weights, each_in=styles or []
        )
        overrides = [*(set_ or []), *resources(pool, address, workers)]
        growth = growth_of(no_new, changed, training=False)
        begin_quickly(photos, out, tables, size, overrides, dry_run, wait, log_format, growth)


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples(
        "nst dream holiday --out holiday-dreamed",
        "nst dream holiday --out dreamed --guide flowers.jpg --size 1024",
        "nst dream holiday --out dreamed --set method.network=embedded --set method.octaves=3",
    ),
)
def dream(
    photos: Photos,
    out: OutOption,
    guide: Annotated[
        str | None, typer.Option("--guide", metavar="PICTURE", help="A picture whose like is to appear.")
    ] = None,
    size: Size = None,
    set_: Set = None,
    dry_run: DryRun = False,
    no_new: NoNew = False,
    changed: Changed = False,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Let a network dream on photographs."""
    with errors(log_format):
        method = {"kind": "deepdream"} if guide is None else {"kind": "deepdream", "guide": guide}
        overrides = [*(set_ or []), *resources(pool, address, workers)]
        tables, growth = {"method": method}, growth_of(no_new, changed, training=False)
        begin_quickly(photos, out, tables, size, overrides, dry_run, wait, log_format, growth)


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples(
        "nst resume holiday-painted",
        "nst resume horse2zebra --set model.learning_rate=2e-5",
        "nst resume holiday-painted --new holiday-painted-2",
    ),
)
def resume(
    out: Out,
    photos: PhotosNow = None,
    new: Annotated[
        str | None,
        typer.Option(
            "--new",
            metavar="NEW_OUT",
            help="Folder or bucket prefix of another job like this one, of the photographs that came after it.",
        ),
    ] = None,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    set_: SetHow = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Go on with a job that was stopped or killed.

    --set takes options of `resources` and `storage` only; of a training also of `log`, `evaluation`, `ddp`,
    and learning rates, weights of losses and precision of `model`, and a greater `schedule.n_epochs`.
    """
    with errors(log_format):
        given = set_ or []
        tables_of(given, CHANGEABLE)
        training = is_training(store_at(out, [each for each in given if each.startswith("storage.")]))
        if training and photos is not None:
            reason = "is for jobs of photographs, and this is a training"
            raise OptionError("--photos", photos, reason=reason)
        overrides = [*given, *resources(pool, address, workers, training=training)]
        if new is not None:
            if training:
                raise OptionError("--new", new, reason="is for jobs of photographs; OUT holds a training")
            begin_later(out, new, overrides, photos, wait=wait, log_format=log_format)
        elif training:
            execute_training(lambda: reopen_training_at(out, overrides), wait=wait, log_format=log_format)
        else:
            execute(
                lambda: (reopen_at(out, overrides, photos), None),
                lambda job, _: unfinished(job, place_now(photos)),
                wait=wait,
                log_format=log_format,
            )


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples(
        "nst retry holiday-painted",
        "nst retry holiday-painted --key 2019/rome/0042",
        "nst retry holiday-painted --set resources.timeout_s=3600",
    ),
)
def retry(
    out: Out,
    photos: PhotosNow = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="Key of the only photograph to do; may be repeated."),
    ] = None,
    pool: PoolName = None,
    address: Address = None,
    workers: Workers = None,
    set_: SetHow = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Do the failed and quarantined photographs of a job again.

    --set takes options of `resources` and `storage` only.
    """
    with errors(log_format):
        overrides = [*(set_ or []), *resources(pool, address, workers)]
        now = place_now(photos)
        execute_retries(lambda: reopen_at(out, overrides, photos), key, now, wait=wait, log_format=log_format)


@app.command(
    rich_help_panel=_PANEL,
    epilog=examples("nst demo", "nst demo --out /tmp/demo --pool local"),
)
def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Folder for photographs, pictures and reports.")
    ] = Path("demo-out"),
    pool: PoolName = None,
) -> None:
    """Stylize and dream on a few public-domain photographs, offline, with two Ray actors."""
    with errors():
        from jobs.demo import demo_jobs
        from jobs.inspect.report import publish_report

        reports = []
        for job_file in demo_jobs(out.resolve(), pool or "ray"):
            begin(job_file, dry_run=False, leave=False)
            reports.append(publish_report(open_store(job_file.spec.output)))
        for path in reports:
            print(f"report: {path}")
