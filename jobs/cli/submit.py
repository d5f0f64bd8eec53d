"""A job file on a running Ray cluster: what is sent there, and whether it can work there at all.

The driver runs on the cluster's head, and is this very code: what is sent is the packages with what they bring
along, the job file, and nothing else; no photograph, no picture, no environment variable. What the job file
names must be where the cluster's nodes find it. How far the job is, its store says.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from jobs.cli.running import reach
from jobs.config.tables import apply_overrides, as_words, read_toml
from jobs.errors import EXIT_OK, EXIT_STOPPED, EXIT_UNFINISHED, UsageError
from jobs.ledger.lease import refuse_if_held
from jobs.stores.filesystems import StorageOptions, local_path, refuse_secrets
from jobs.stores.store import open_store
from jobs.training.recipes import is_training
from nst.errors import OptionError
from nst.styles import PREFIX

if TYPE_CHECKING:
    from cluster.submit import Cluster, Found
    from nst.stylizer import AssetRef

__all__ = ["DETACHED", "Prepared", "follow", "is_training_file", "pack", "prepare", "stop", "submit"]

DETACHED = 130
"""Exit code when the following was ended, and the job goes on."""
_PACKAGES = ("nst", "jobs", "cluster")
_SUFFIXES = (".py", ".safetensors", ".jpg", ".html", ".css", ".js", ".svg")
"""Of the packages' files that are read when a job runs. What else lies in a clone, such as a list of keys in
`cluster`, is nobody's business."""
_JOB_FILE = "job.toml"


_Places: TypeAlias = "str | tuple[str, ...]"


@dataclass(frozen=True, slots=True)
class _Named:
    """What a job file of either kind names."""

    command: tuple[str, ...]
    """Words of the command line that runs it."""
    output: str
    storage: StorageOptions
    grace_s: float
    places: Mapping[str, _Places]
    """Options that are places, as --set takes them."""
    files: Mapping[str, tuple[object, Sequence[AssetRef]]]
    """Options that name files, by their table, and these files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job file that can be run on a cluster."""

    path: Path
    """Path of the job file here."""
    name: str
    """Name of its submissions: the same for all that goes to the same output."""
    arguments: tuple[str, ...]
    """Arguments of the command line on the cluster."""
    output: str
    """The job's folder or bucket prefix."""
    storage: StorageOptions
    """How the output is reached."""
    grace_s: float
    """Seconds that what is in work has to finish when the job is stopped."""
    waits: bool
    """Whether the driver waits for another driver's lease."""
    again: tuple[str, ...]
    """Arguments of `nst submit` that find, or submit, the same."""
    log_format: str
    """`text` or `json`."""


def prepare(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    shared_paths: bool = False,
    growth: Sequence[str] = (),
    wait_for_lease: bool = False,
    log_format: str = "text",
) -> Prepared:
    """Resolve a job file, of either kind, for a cluster.

    Args:
        shared_paths: local paths are the same on every node.
        growth: what --no-new and --changed are, as `Growth.words`.

    Raises:
        UsageError: the file is missing or is no TOML.
        OptionError: an option has a value that it cannot take, or that the cluster would not find.
    """
    named = (_of_training if is_training_file(path, overrides) else _of_photographs)(path, overrides)
    command = [*named.command, "--address", "auto", *growth]
    local = [*_local(named, shared_paths)]
    again = [str(path), *as_words(overrides), *growth]
    if local:
        again.append("--shared-paths")
    command += as_words([*overrides, *local])
    if wait_for_lease:
        command.append("--wait-for-lease")
    if log_format != "text":
        command += ["--log-format", log_format]
    digest = hashlib.sha256(named.output.rstrip("/").encode()).hexdigest()
    return Prepared(
        path=path,
        name=f"nst-{digest[:12]}",
        arguments=tuple(command),
        output=named.output,
        storage=named.storage,
        grace_s=named.grace_s,
        waits=wait_for_lease,
        again=tuple(again),
        log_format=log_format,
    )


def is_training_file(path: Path, overrides: Sequence[str] = ()) -> bool:
    """Whether a job file is a training's, and not photographs'.

    Raises:
        UsageError: the file is missing or is no TOML.
    """
    return is_training(apply_overrides(read_toml(path), overrides))


def _of_training(path: Path, overrides: Sequence[str]) -> _Named:
    from jobs.training.job_file import read_train_file

    file = read_train_file(path, overrides)
    spec, evaluation = file.spec, file.evaluation
    places: dict[str, _Places] = {
        spec.recipe.option_of(name): place for name, place in spec.collections.items()
    }
    places["output"] = spec.output
    if spec.init.places:
        places["init.weights"] = spec.init.weights
    places |= {f"evaluation.held_out.{name}": place for name, place in (evaluation.held_out or {}).items()}
    files = {
        "model": (spec.recipe.model, spec.recipe.assets()),
        "evaluation": (evaluation, evaluation.assets()),
    }
    return _Named(("train", _JOB_FILE), spec.output, file.storage, file.resources.grace_s, places, files)


def _of_photographs(path: Path, overrides: Sequence[str]) -> _Named:
    from jobs.spec import read_job_file

    job = read_job_file(path, overrides)
    spec, refs = job.spec, job.spec.method.assets()
    places: dict[str, _Places] = {"photos": spec.photos, "output": spec.output}
    if spec.listing.not_in:
        places["not_in"] = spec.listing.not_in
    if spec.styles_per_photo is not None:  # what the job file calls them
        styles = [ref for ref in refs if ref.option.partition("[")[0] == "style"]
        refs = [ref for ref in refs if ref not in styles]
        places |= {"styles": tuple(ref.url for ref in styles)} if styles else {}
    command, files = ("run", _JOB_FILE, "--pool", "ray"), {"method": (spec.method, refs)}
    return _Named(command, spec.output, job.storage, job.resources.grace_s, places, files)


def _local(named: _Named, shared_paths: bool) -> Iterator[str]:
    """Local places, absolute, as what --set takes: on the cluster, the job file is in another folder.

    Raises:
        OptionError: there are some, and they are not shared.
    """
    from nst.features.weights import is_published

    values: dict[str, Any] = {
        name: place
        for name, place in named.places.items()
        if any(map(_is_local, [place] if isinstance(place, str) else place))
    }
    found = dict(values)
    for table, (options, refs) in named.files.items():
        for ref in refs:
            if not is_published(ref.url) and _is_local(ref.url):
                option = ref.option.partition("[")[0]
                values[f"{table}.{option}"] = getattr(options, option)
                found[f"{table}.{ref.option}"] = ref.url
    if found and not shared_paths:
        option, place = next(iter(found.items()))
        others = "".join(f"; so is {each}" for each in list(found)[1:])
        raise OptionError(
            option,
            place,
            reason="is a path of this machine, which the cluster's nodes do not see; use a URL, as s3://..., "
            f"or --shared-paths if they all have it{others}",
        )
    for name, value in values.items():
        yield f"{name}={json.dumps(value, ensure_ascii=False)}"


def _is_local(place: str) -> bool:
    """Whether a place is a path, and not a URL, nor a style that comes with this package."""
    return local_path(place) is not None and not place.startswith(PREFIX)


def pack(prepared: Prepared, folder: Path) -> None:
    """Put all that the cluster gets into an empty folder."""
    root = Path(__file__).resolve().parents[2]
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                target = folder / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    if (root / "pyproject.toml").is_file():
        shutil.copyfile(root / "pyproject.toml", folder / "pyproject.toml")
    # A job's record holds this program's version, which Python asks of what is installed.
    version = importlib.metadata.version("nst")
    about = folder / f"nst-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: nst\nVersion: {version}\n")
    shutil.copyfile(prepared.path, folder / _JOB_FILE)


def submit(prepared: Prepared, address: str | None, *, wait: bool) -> int:
    """Have a job run. Returns its exit code, or at once 0 if it is not to be waited for.

    Raises:
        UsageError: it runs already, or the cluster cannot be reached or refuses.
    """
    from cluster.submit import Command

    if not prepared.waits:
        _refuse_if_running(prepared)
    with _cluster(address) as cluster, tempfile.TemporaryDirectory(prefix="nst-submit-") as folder:
        pack(prepared, Path(folder))
        line = "exec " + shlex.join(["python", "-m", "jobs", *prepared.arguments])
        id = cluster.submit(
            Command(
                name=prepared.name,
                waits=prepared.waits,
                line=line,
                folder=Path(folder),
                grace_s=prepared.grace_s,
            )
        )
        _say(prepared, f"submitted to {cluster.address} as {id}")
        if wait:
            return _follow(cluster, id, prepared, address)
        _tell(prepared, address)
        return EXIT_OK


def follow(prepared: Prepared, address: str | None) -> int:
    """Show what the newest submission says. Returns its exit code.

    Raises:
        UsageError: there is none, or the cluster cannot be reached.
    """
    with _cluster(address) as cluster:
        return _follow(cluster, _newest(cluster, prepared).id, prepared, address)


def stop(prepared: Prepared, address: str | None) -> int:
    """Stop the newest submission gently: photographs in work are finished. Returns 0.

    Raises:
        UsageError: there is none, or the cluster cannot be reached.
    """
    with _cluster(address) as cluster:
        found = _newest(cluster, prepared)
        how = "had ended already,"
        if found.running:
            _say(prepared, f"stopping {found.id}: what is in work has {prepared.grace_s:g} s")
            found, how = cluster.stop(found.id), "has ended"
        unfinished = found.exit_code in (EXIT_STOPPED, EXIT_UNFINISHED)
        go_on = f"; go on with: {_again(prepared, address)}" if unfinished else ""
        _say(prepared, f"{found.id} {how} with exit code {found.exit_code}{go_on}")
        return EXIT_OK


def _newest(cluster: Cluster, prepared: Prepared) -> Found:
    found = cluster.newest(prepared.name)
    if found is None:
        raise UsageError(f"{cluster.address} knows no submission for {prepared.output}")
    return found


def _follow(cluster: Cluster, id: str, prepared: Prepared, address: str | None) -> int:
    try:
        found = cluster.follow(id, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        _say(prepared, f"\nno longer following {id}, which goes on")
        _tell(prepared, address)
        return DETACHED
    assert found.exit_code is not None
    if found.exit_code and found.message and not found.said_itself:
        print(f"{id}: {found.message}", file=sys.stderr)
    return found.exit_code


def _say(prepared: Prepared, text: str) -> None:
    """Print our own words: where programs read what the driver writes, they are not among it."""
    print(text, file=sys.stderr if prepared.log_format == "json" else sys.stdout, flush=True)


def _tell(prepared: Prepared, address: str | None) -> None:
    for what, option in (("follow it", "--attach"), ("stop it", "--stop")):
        _say(prepared, f"{what}: {_again(prepared, address, option)}")
    words = ["nst", "status", prepared.output, *reach(prepared.storage)]
    _say(prepared, f"how far it is: {shlex.join(words)}")


def _again(prepared: Prepared, address: str | None, *options: str) -> str:
    given = () if address is None else ("--address", address)
    return shlex.join(["nst", "submit", *prepared.again, *given, *options])


def _refuse_if_running(prepared: Prepared) -> None:
    """Refuse by the lease in the store, if this machine can reach that; the driver looks itself."""
    try:
        refuse_if_held(open_store(prepared.output, prepared.storage))
    except OSError as error:
        print(f"note: {prepared.output} cannot be asked from here: {error}", file=sys.stderr)


@contextmanager
def _cluster(address: str | None) -> Iterator[Cluster]:
    from cluster.submit import Cluster, ClusterError

    if address is not None:
        refuse_secrets("--address", address)
    try:
        yield Cluster(address)
    except ClusterError as error:
        raise UsageError(str(error)) from error
