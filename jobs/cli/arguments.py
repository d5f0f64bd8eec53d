"""Arguments and options that several commands share, and the examples that end a command's help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

__all__ = [
    "Address",
    "Changed",
    "DryRun",
    "Format",
    "JobPath",
    "LogFormat",
    "NoNew",
    "Out",
    "OutOption",
    "Photos",
    "PhotosNow",
    "PoolName",
    "Reach",
    "Set",
    "SetAgain",
    "SetHow",
    "SetTraining",
    "Size",
    "Styles",
    "Wait",
    "Workers",
    "examples",
]

LogFormat: TypeAlias = Literal["text", "json"]

JobPath = Annotated[Path, typer.Argument(metavar="JOB.TOML", help="The job file.")]
Photos = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTOS...",
        help="The photographs: a folder, a glob, a bucket prefix, a manifest; or several files and folders.",
    ),
]
PhotosNow = Annotated[
    str | None,
    typer.Option(
        "--photos",
        metavar="PHOTOS",
        help="Where the job's photographs are now, if they were moved; they must be the same.",
    ),
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The job's folder or bucket prefix.")]
OutOption = Annotated[
    str, typer.Option("--out", metavar="OUT", help="The folder or bucket prefix that the job is to be in.")
]
Size = Annotated[
    int | None, typer.Option("--size", metavar="PIXELS", help="Long side that photographs are shrunk to.")
]
Styles = Annotated[
    list[str] | None,
    typer.Option(
        "--styles",
        metavar="FOLDER",
        help="Styles in each of which every photograph is painted, into a folder of the style's name: what "
        "--style may be; may be repeated. With --set styles_per_photo=one, one is drawn for each photograph.",
    ),
]


def _option_like(example: str) -> Any:
    """The option --set, whose help has an example that the command takes."""
    text = f"Option to set, e.g. {example}; may be repeated. `nst options` lists all."
    return typer.Option("--set", metavar="NAME=VALUE", help=text)


Set = Annotated[list[str] | None, _option_like("method.steps=200")]
SetHow = Annotated[list[str] | None, _option_like("resources.timeout_s=3600")]
SetAgain = Annotated[list[str] | None, _option_like("method.strength=0.5")]
SetTraining = Annotated[list[str] | None, _option_like("schedule.n_epochs=20")]
Reach = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="storage.NAME=VALUE",
        help="Option that says how OUT is reached, e.g. storage.endpoint_url=http://...; may be repeated.",
    ),
]
PoolName = Annotated[
    str | None,
    typer.Option(
        "--pool",
        metavar="POOL",
        help="What the workers are: `ray`, actors; `local`, processes here; `auto`, what suits.",
    ),
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="ADDRESS", help="Address of a running Ray cluster.")
]
Workers = Annotated[int | None, typer.Option("--workers", metavar="NUMBER", help="Number of workers at most.")]
Wait = Annotated[
    bool,
    typer.Option(
        "--wait-for-lease",
        help="Wait while another driver is at this job: until it ends, or seems dead for a minute.",
    ),
]
Format = Annotated[
    LogFormat,
    typer.Option("--log-format", help="Form of what is said: text, or json, one object per line for programs."),
]
NoNew = Annotated[
    bool,
    typer.Option("--no-new", help="Only say which photographs came since the job was begun; add none to it."),
]
Changed = Annotated[
    bool,
    typer.Option(
        "--changed",
        help="Do photographs again whose files were changed since they were done; former pictures are kept.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the resolved job and write nothing.")]


def examples(*lines: str) -> str:
    """The end of a command's help: command lines that work as they are written, one each.

    Lines are paragraphs, since what prints the help joins the lines of one.
    """
    return "\n\n".join(("Examples:", *lines))
