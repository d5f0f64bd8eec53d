"""The command that hands a trained generator to other programs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from jobs.cli.arguments import examples
from jobs.cli.work import errors

__all__ = ["app"]

app = typer.Typer()


@app.command(
    rich_help_panel="Train what methods apply",
    epilog=examples(
        "nst export horse2zebra/generator.safetensors zebra.pt2",
        "nst export latest_net_G_B.pth horse.onnx --onnx",
        "nst export styles/generator.safetensors pastel.onnx --onnx --style pastel",
    ),
)
def export(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            help="The generator's file, as the method's options take it; embedded: the painter that comes "
            "with nst.",
        ),
    ],
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="The file to write: NAME.pt2, or NAME.onnx with --onnx.")
    ],
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write ONNX, and not what torch.export.load reads.")
    ] = False,
    direction: Annotated[
        Literal["A2B", "B2A"] | None,
        typer.Option("--direction", help="Which generator of a CycleGAN's file that has both; else A2B."),
    ] = None,
    style: Annotated[
        str | None, typer.Option("--style", metavar="NAME", help="The style, of a generator that has many.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Option to set of the method or the storage, e.g. method.padding=replicate; may be repeated.",
        ),
    ] = None,
) -> None:
    """Write a trained generator as a file that other programs run, for any number of images of any size.

    The file takes and gives (N, 3, H, W), RGB in [-1, 1]; H and W are multiples of 4, of a painter of 8, of a
    U-Net of 128 or 256.
    It is read back, and must make the pictures that the generator makes.
    """
    with errors():
        from jobs.cli.export import export_generator

        print(export_generator(weights, out, onnx=onnx, direction=direction, style=style, overrides=set_ or []))
