"""What `nst export` does: write a trained generator as a file that other programs run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jobs.config.styles import style_place
from jobs.config.tables import apply_overrides, parse_table
from jobs.driver.assets import by_url, read_assets
from jobs.errors import UsageError
from jobs.spec import storage_from_table
from jobs.stores.filesystems import absolute_url, read_url, why_unreadable
from jobs.stores.store import open_store
from nst.errors import OptionError, WeightsError
from nst.methods import METHODS
from nst.styles import PREFIX

if TYPE_CHECKING:
    from jobs.stores.filesystems import StorageOptions
    from nst.stylizer import ExportableMethod

__all__ = ["export_generator"]


def export_generator(
    weights: str, out: str, *, onnx: bool, direction: str | None, style: str | None, overrides: Sequence[str]
) -> str:
    """Export the generator in `weights`, check the file against it, publish it, and say so in a line.

    Raises:
        OptionError, UsageError: it is asked for wrongly. Nothing was written.
        NstError: the file does not compute what the generator does. Nothing was written.
    """
    from nst.features import read_state_dict
    from nst.feed_forward.method import FeedForward
    from nst.gan.export import export_onnx, export_torch, missing_packages

    _check_out(out, onnx)
    if onnx and (missing := missing_packages()):
        raise UsageError(f"--onnx needs {', '.join(missing)}: pip install 'nst[onnx]'")
    tables = apply_overrides({}, overrides)
    for name, value in tables.items():
        if name not in ("method", "storage") or not isinstance(value, dict):
            raise OptionError("--set", name, choices=("method.*", "storage.*"))
    storage = storage_from_table(tables.get("storage", {}))
    url, data = _read(weights, storage)
    try:
        read_state_dict(data)
        method = _method(url, data, direction, style, tables.get("method", {}))
        assets = by_url(read_assets(method, storage))
        if isinstance(method, FeedForward) and method.style is None:
            exportable = method.exportable(assets, style)
        else:
            exportable = method.exportable(assets)
    except WeightsError as error:
        raise OptionError("WEIGHTS", weights, reason=str(error)) from error
    exported, difference = (export_onnx if onnx else export_torch)(exportable)
    folder, _, name = absolute_url(out, Path.cwd()).rpartition("/")
    store = open_store(folder or "/", storage)
    store.publish(name, exported)
    store.clean()
    checked = f"its pictures differ from the generator's by {difference:.1e} at most, of pixels in [-1, 1]"
    return f"{out}: {len(exported) / 1e6:.1f} MB; {checked}"


def _check_out(out: str, onnx: bool) -> None:
    extension = ".onnx" if onnx else ".pt2"
    if not out.endswith(extension):
        reason = "the name of an ONNX model" if onnx else "the name of a torch.export file; --onnx writes ONNX"
        raise OptionError("OUT", out, reason=f"must end with {extension}, {reason}")


def _read(weights: str, storage: StorageOptions) -> tuple[str, bytes]:
    """What the method's options call the network's file, and the file."""
    from nst.features.weights import published_bytes
    from nst.feed_forward.method import SHIPPED

    url = absolute_url(weights, Path.cwd())
    if weights == "embedded" and not Path(url).exists():
        return weights, published_bytes(SHIPPED)
    try:
        return url, read_url(url, storage)
    except OSError as error:
        raise OptionError("WEIGHTS", weights, reason=why_unreadable(error)) from error


def _method(
    url: str, data: bytes, direction: str | None, style: str | None, more: dict[str, Any]
) -> ExportableMethod:
    """The method that would apply the generator."""
    from nst.feed_forward.files import is_painter, read_names
    from nst.modulated.method import styles_in

    styles = styles_in(data)
    options: dict[str, Any]
    if is_painter(data):
        if direction is not None:
            raise OptionError("--direction", direction, reason="is for CycleGANs; this network paints")
        kind, options = "feed_forward", {"weights": url}
        learned = [each.name for each in read_names(data)]
        if style is None and len(learned) > 1 and "style" not in more:
            raise OptionError(
                "--style", None, choices=learned, reason="is required: the network learned several"
            )
        if style is not None and style not in learned:
            place = style_place(style)
            options["style"] = place if place.startswith(PREFIX) else absolute_url(place, Path.cwd())
    elif styles is None:
        if style is not None:
            raise OptionError("--style", style, reason="is for generators of many styles, and this is another")
        kind, options = "cyclegan", {"weights": url, **({} if direction is None else {"direction": direction})}
    else:
        if direction is not None:
            raise OptionError("--direction", direction, reason="is for CycleGANs; this generator has styles")
        if style is None and "style" not in more:
            raise OptionError("--style", None, choices=styles, reason="is required: the generator has many")
        kind, options = "modulated", {"generator": url, **({} if style is None else {"style": style})}
    return cast("ExportableMethod", parse_table(METHODS[kind], {**options, **more}, "method"))
