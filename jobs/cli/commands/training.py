"""Commands that train what methods apply."""

from __future__ import annotations

import json
from collections.abc import Mapping

import typer

from jobs.cli.arguments import Address, DryRun, Format, JobPath, Set, Wait, Workers, examples
from jobs.cli.work import errors, execute_training, resources

__all__ = ["app"]

app = typer.Typer(
    help='Train generators for `kind = "cyclegan"` and `kind = "modulated"` on a cluster.', no_args_is_help=True
)


@app.command(
    epilog=examples(
        "nst train cyclegan train.toml",
        "nst train cyclegan train.toml --dry-run",
        "nst train cyclegan train.toml --set schedule.n_epochs=20 --workers 4",
    ),
)
def cyclegan(
    job: JobPath,
    set_: Set = None,
    dry_run: DryRun = False,
    address: Address = None,
    workers: Workers = None,
    wait: Wait = False,
    log_format: Format = "text",
) -> None:
    """Train both generators of a CycleGAN with Ray Train, or one for many styles.

    Goes on with the training if its output folder holds the same one, begun earlier.
    """
    with errors(log_format):
        from jobs.training.job import create_or_open_training, plan_training
        from jobs.training.spec import read_train_file, train_to_table

        file = read_train_file(job, [*(set_ or []), *resources(None, address, workers, training=True)])
        if dry_run:
            planned = plan_training(file)
            print(json.dumps(train_to_table(file), indent=2))
            print("".join(f"note: {note}\n" for note in planned.notes), end="")
            steps = planned.epoch_steps
            total = f"{steps * file.spec.schedule.epochs} steps, {steps} per epoch"
            print(f"{_counted(planned.rows)} photographs, {total}; nothing was written")
            return
        execute_training(lambda: create_or_open_training(file), wait=wait, log_format=log_format)


def _counted(rows: Mapping[str, int]) -> str:
    """`11 and 7` of two collections, `11 (photo), 7 (ukiyo-e) and 5 (pastel)` of styles."""
    if rows.keys() == {"a", "b"}:
        return f"{rows['a']} and {rows['b']}"
    *most, last = [f"{number} ({name})" for name, number in rows.items()]
    return f"{', '.join(most)} and {last}"


@app.command(epilog=examples("nst train options", "nst options cyclegan"))
def options() -> None:
    """List the options of a training's job file, table by table; the same as `nst options training`."""
    with errors():
        from jobs.cli.sections import sections
        from jobs.cli.tables import show_sections

        show_sections([section for section in sections() if section.training])
