"""What a job is: `StylizeSpec` says WHAT comes out, `Resources` says HOW it is computed. From TOML, to JSON.

Importing this loads no torch; resolving a method does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from jobs.config.hints import hints
from jobs.config.listing import ListingOptions
from jobs.config.resources import Resources
from jobs.config.styles import PerPhoto, StyleOptions, method_in_styles, said_as_styles, takes_pictures
from jobs.config.tables import apply_overrides, later_options, parse_table, read_toml, without_defaults
from jobs.stores.filesystems import (
    STANDARD_STORAGE,
    StorageOptions,
    absolute_url,
    is_url,
    option_place,
    refuse_secret_options,
    refuse_secrets,
)
from nst import check
from nst.errors import OptionError
from nst.methods import METHODS
from nst.styles import PREFIX

if TYPE_CHECKING:
    from nst.stylizer import Method

__all__ = [
    "HOW",
    "ImageSpec",
    "JobFile",
    "Resources",
    "StylizeSpec",
    "fingerprint",
    "job_from_table",
    "job_to_table",
    "read_job_file",
    "storage_from_table",
]

HOW = ("output", "resources", "storage")
"""Parts of a job file that no picture depends on."""

_LATER = ("truncated",)
"""Options of the table `[image]` that were added later: recorded where they are set, so that jobs begun before
are the same."""

Registry = Mapping[str, "type[Method]"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """How photographs are read and pictures written."""

    max_side_px: int | None = 512
    """Long side that photographs are shrunk to; none are enlarged. 0: they keep their size."""
    max_pixels: int = 200_000_000
    """Most pixels that a photograph may have; one with more is refused from its header, before decoding."""
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Color that shows through transparency: red, green and blue, each from 0 to 1."""
    alpha: Literal["composite", "keep"] = "composite"
    """What becomes of transparency: `composite` paints over `background`; `keep` makes the picture as
    transparent as the photograph, which JPEG cannot be."""
    keep_exif: Literal["none", "basic", "all"] = "basic"
    """What the picture gets of the photograph's EXIF data. `basic`: author, copyright, description, camera,
    dates, exposure; `all`: also the place, serial numbers and the rest. Orientation, thumbnails and makers'
    notes are never kept."""
    format: Literal["jpeg", "png", "webp", "avif", "tiff"] = "jpeg"
    """File format of the pictures; TIFF is deflated."""
    bit_depth: Literal[8, 16] = 8
    """Bits per channel of the pictures; 16 in PNG and TIFF only. Photographs are read with 8."""
    quality: int = 95
    """Quality of JPEG, WebP and AVIF, 1 to 100."""
    animation: Literal["none", "gif", "webp"] = "none"
    """Format of one file more per photograph that plays its intermediate pictures, or its zoom, without
    transparency; `none`: there is no such file."""
    frames_per_second: float = 10.0
    """Speed of the animation, 0.1 to 100."""
    truncated: Literal["fail", "keep"] = "fail"
    """What becomes of a JPEG or PNG whose file ends too early: `fail` makes it a failed row; `keep` takes the
    pixels that are there, and says so in the row's `stats`."""

    def __post_init__(self) -> None:
        if self.max_side_px == 0:
            object.__setattr__(self, "max_side_px", None)
        if self.max_side_px is not None and self.max_side_px < 1:
            reason = "must be at least 1, or 0: photographs keep their size"
            raise OptionError("max_side_px", self.max_side_px, reason=reason)
        check.at_least("max_pixels", self.max_pixels, 1)
        if not 1 <= self.quality <= 100:
            raise OptionError("quality", self.quality, reason="must be from 1 to 100")
        if not 0.1 <= self.frames_per_second <= 100:
            raise OptionError("frames_per_second", self.frames_per_second, reason="must be from 0.1 to 100")
        if self.alpha == "keep" and self.format == "jpeg":
            reason = "JPEG has no transparency; format may be png, webp, avif or tiff"
            raise OptionError("alpha", "keep", reason=reason)
        if self.bit_depth == 16 and self.format not in ("png", "tiff"):
            reason = f"format = {self.format!r} has 8 bits per channel; format may be png or tiff"
            raise OptionError("bit_depth", 16, reason=reason)
        if any(not 0 <= value <= 1 for value in self.background):
            raise OptionError("background", self.background, reason="each must be from 0 to 1")

    @property
    def extension(self) -> str:
        """The extension of the pictures' names, with its dot."""
        return {"jpeg": ".jpg", "tiff": ".tif"}.get(self.format, f".{self.format}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StylizeSpec:
    """What comes out: everything that a picture depends on, and where it goes."""

    photos: str | tuple[str, ...]
    """Where the photographs are: a folder, a glob, a bucket prefix, a file, a manifest (.parquet, .csv, .tsv,
    .jsonl) with a column `url`; or a list of files and folders."""
    output: str
    """Where the job is kept and its pictures go: a folder or a bucket prefix."""
    listing: ListingOptions = field(default_factory=ListingOptions)
    """Which of the files there are photographs; options beside `photos`."""
    kind: str
    """Name of the method; the option `kind` of the table `[method]`."""
    method: Method
    """The method with its options; the rest of the table `[method]`."""
    image: ImageSpec = field(default_factory=ImageSpec)
    """How photographs are read and pictures written; the table `[image]`."""
    styles_per_photo: PerPhoto | None = None
    """How many styles each photograph is painted in; see `StyleOptions`, whose `styles` are the method's
    `style`. None: all have the same, but for those with one of their own in the manifest."""
    seed: int = 0
    """Number that all random numbers of the job come from, each photograph's together with its key; 0 to
    2^63 - 1."""

    @property
    def places(self) -> tuple[str, ...]:
        """`photos` as a list."""
        return (self.photos,) if isinstance(self.photos, str) else self.photos


@dataclass(frozen=True, slots=True)
class JobFile:
    """A job as its user wrote it, resolved: every option has its value, every path is absolute."""

    spec: StylizeSpec
    resources: Resources
    storage: StorageOptions = STANDARD_STORAGE


def read_job_file(path: Path, overrides: Sequence[str] = (), registry: Registry = METHODS) -> JobFile:
    """Read a TOML job file. Relative paths are taken from the file's folder.

    Raises:
        UsageError: the file is missing or is no TOML.
        OptionError: an option is unknown, missing, or has a value that it cannot take.
    """
    return job_from_table(apply_overrides(read_toml(path), overrides), path.resolve().parent, registry)


def job_from_table(table: Mapping[str, Any], base: Path, registry: Registry = METHODS) -> JobFile:
    """Resolve a job file's table; see `read_job_file`."""
    kind = table["method"].get("kind") if isinstance(table.get("method"), Mapping) else None
    known = {"": _TOP} | {
        name: _names(cls)
        for name, cls in (
            ("method", registry[kind] if isinstance(kind, str) and kind in registry else None),
            ("image", ImageSpec),
            ("resources", Resources),
            ("storage", StorageOptions),
        )
        if cls is not None
    }
    with hints(known):
        return _resolved(table, base, registry)


def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(option.name for option in fields(cls))


_TOP = ("photos", "output", "seed", *_names(ListingOptions), *_names(StyleOptions))
"""Options above all tables."""


def _resolved(table: Mapping[str, Any], base: Path, registry: Registry) -> JobFile:
    choices = (*_TOP, "method", "image", "resources", "storage")
    for name in table:
        if name not in choices:
            raise OptionError(name, table[name], choices=choices, reason="unknown option")
    for name in ("method", "image", "resources", "storage"):
        if not isinstance(table.get(name, {}), Mapping):
            raise OptionError(name, table[name], reason=f"must be a table: [{name}]")
    photos = _places("photos", table.get("photos"), base)
    output = option_place("output", table.get("output"), base)
    seed = table.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise OptionError("seed", seed, reason="must be a whole number from 0 to 2^63 - 1")
    styles = parse_table(StyleOptions, _part(table, StyleOptions), "")
    method_table, per_photo = method_in_styles(styles, table.get("method", {}), base, registry)
    with said_as_styles(per_photo):
        kind, method = _method(method_table, base, registry)
        for ref in method.assets():
            refuse_secrets(f"method.{ref.option}", ref.url)
    spec = StylizeSpec(
        photos=photos if len(photos) > 1 else photos[0],
        output=output,
        listing=_listing(_part(table, ListingOptions), base),
        kind=kind,
        method=method,
        styles_per_photo=per_photo,
        seed=seed,
        image=parse_table(ImageSpec, table.get("image", {}), "image"),
    )
    resources = parse_table(Resources, table.get("resources", {}), "resources")
    storage = storage_from_table(table.get("storage", {}))
    if any(map(is_url, (*photos, output))) and resources.timeout_s <= storage.slowest_s:
        reason = (
            f"must be more than {storage.slowest_s:g}, the time that a call of the object store may take: "
            f"storage.deadline_s + connect_timeout_s + read_timeout_s"
        )
        raise OptionError("resources.timeout_s", resources.timeout_s, reason=reason)
    return JobFile(spec, resources, storage)


def _part(table: Mapping[str, Any], cls: type[Any]) -> dict[str, Any]:
    """What a job file's table has of the options of `cls`."""
    return {name: table[name] for name in _names(cls) if name in table}


def _places(option: str, value: Any, base: Path) -> tuple[str, ...]:
    """One place, or each of a list."""
    if isinstance(value, list | tuple) and value:
        return tuple(option_place(f"{option}[{index}]", each, base) for index, each in enumerate(value))
    return (option_place(option, value, base),)


def _listing(table: Mapping[str, Any], base: Path) -> ListingOptions:
    lists = ("exclude", "not_in")  # of one, as a plain text
    table = {
        name: [value] if name in lists and isinstance(value, str) else value for name, value in table.items()
    }
    options = parse_table(ListingOptions, table, "")
    jobs = _places("not_in", options.not_in, base) if options.not_in else ()
    return dataclasses.replace(options, not_in=jobs)


def storage_from_table(table: Mapping[str, Any]) -> StorageOptions:
    """The `[storage]` table.

    Raises:
        OptionError: an option is unknown, has a wrong value, or is a secret, which is not repeated.
    """
    refuse_secret_options("storage", table)
    known = {option.name for option in fields(StorageOptions)}
    # Who knows what a name unknown to us was meant to hold: it is refused without its value.
    return parse_table(
        StorageOptions,
        {name: value if name in known else "***" for name, value in table.items()},
        "storage",
    )


def job_to_table(job: JobFile) -> dict[str, Any]:
    """The inverse of `job_from_table`, of JSON types only."""
    spec = job.spec
    method = {"kind": spec.kind, **without_defaults(spec.method, later_options(spec.method))}
    styles: dict[str, Any] = {}
    if spec.styles_per_photo is not None:
        styles["styles_per_photo"] = spec.styles_per_photo
        if takes_pictures(type(spec.method)):
            pictures = method.pop("style")
            styles |= {} if pictures is None else {"styles": pictures}
    table = {
        "photos": spec.photos,
        "output": spec.output,
        "seed": spec.seed,
        **without_defaults(spec.listing),
        **styles,
        "method": method,
        "image": {
            **without_defaults(spec.image, _LATER),
            "max_side_px": spec.image.max_side_px or 0,
        },
        "resources": dataclasses.asdict(job.resources),
        "storage": dataclasses.asdict(job.storage),
    }
    return cast(dict[str, Any], json.loads(json.dumps(table)))


def fingerprint(table: Mapping[str, Any], assets: Mapping[str, str], manifest: str) -> str:
    """Digest of all that the pictures depend on: the resolved job but for its place, resources and storage, the
    digests of its assets by option, and that of its manifest."""
    what = {name: value for name, value in table.items() if name not in HOW}
    text = json.dumps({"spec": what, "assets": assets, "manifest": manifest}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _method(table: Mapping[str, Any], base: Path, registry: Registry) -> tuple[str, Method]:
    options = dict(table)
    kind = options.pop("kind", None)
    if not isinstance(kind, str) or kind not in registry:
        raise OptionError("method.kind", kind, choices=registry, reason=None if kind else "is required")
    method = parse_table(registry[kind], options, "method")
    urls = {ref.option: ref.url for ref in method.assets()}

    def absolute(option: str, value: Any) -> Any:
        """`value`, its places made absolute; options like `weights` have values that are no places, too."""
        if isinstance(value, list | tuple):
            return type(value)(absolute(f"{option}[{index}]", item) for index, item in enumerate(value))
        is_place = isinstance(value, str) and urls.get(option) == value and not value.startswith(PREFIX)
        if is_place and not value.strip():  # it would be the job file's folder, with all that is in it
            raise OptionError(f"method.{option}", value, reason="a path or URL is required")
        return absolute_url(value, base) if is_place else value

    given = {item.name: getattr(method, item.name) for item in fields(cast(Any, method))}
    resolved = {option: absolute(option, value) for option, value in given.items()}
    places = {option: value for option, value in resolved.items() if value != given[option]}
    return kind, dataclasses.replace(cast(Any, method), **places) if places else method
