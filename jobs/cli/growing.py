"""Jobs that grow: what commands say of a collection that has changed, and which parts they run for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.cli.running import ToRun, execute, lease_options, tell_notes
from jobs.console.log_events import LogEvent, LogSink
from jobs.errors import StoreError
from nst.errors import OptionError

if TYPE_CHECKING:
    from jobs.cli.arguments import LogFormat
    from jobs.driver.collection import Changes
    from jobs.driver.job import Job
    from jobs.driver.redo import Redone
    from jobs.ledger.lease import LeaseOptions
    from jobs.spec import JobFile

__all__ = ["Growth", "execute_redo", "execute_retries", "grown", "growth_of", "unfinished"]

_NAMED = 10


@dataclass(frozen=True, slots=True)
class Growth:
    """What becomes of a finished job whose photographs are others now."""

    new: bool = True
    """Whether those that came later are added."""
    changed: bool = False
    """Whether those that were changed are done again."""

    def words(self) -> list[str]:
        """Words of a command line that say so."""
        return ["--no-new"] * (not self.new) + ["--changed"] * self.changed


def growth_of(no_new: bool, changed: bool, *, training: bool) -> Growth:
    """What --no-new and --changed say.

    Raises:
        OptionError: they are said of a training.
    """
    for option, given in (("--no-new", no_new), ("--changed", changed)):
        if given and training:
            raise OptionError(option, True, reason="is for jobs of photographs, and this is a training")
    return Growth(not no_new, changed)


def grown(
    job: Job, file: JobFile, growth: Growth, log: LogSink, lease: LeaseOptions
) -> Generator[ToRun, None, None]:
    """The parts of a finished job that are to be run, and those that it grows by.

    Raises:
        StoreError: at the end, if photographs were to be added and their store fails.
    """
    from jobs.driver.parts import grow

    problems: list[str] = []

    def tell(changes: Changes) -> None:
        if changes.failed and (growth.new or growth.changed):
            places = ", ".join(changes.places)
            problems.append(f"{places} cannot be listed, and no photograph is added: {changes.problem}")
        else:
            _tell_changes(log, changes, growth)

    photos = file.spec.photos if isinstance(file.spec.photos, str) else None
    for part in grow(
        job,
        file.spec.places,
        photos=photos,
        new=growth.new,
        again=growth.changed,
        tell=tell,
        lease=lease,
    ):
        yield part, None
    if problems:
        raise StoreError(problems[0])


def unfinished(job: Job, photos: str | None) -> Generator[ToRun, None, None]:
    """The parts of a finished job that are to be run."""
    from jobs.driver.parts import unfinished_parts

    for part in unfinished_parts(job, photos):
        yield part, None


def _tell_changes(log: LogSink, changes: Changes, growth: Growth) -> None:
    """Say what came, what is gone and what was changed."""
    places = ", ".join(changes.places)
    if changes.problem is not None:
        tell_notes(log, [f"the photographs cannot be listed, and none is added: {changes.problem}"])
    if changes.new and growth.new:
        keys = [photo.key for photo in changes.new]
        _tell(log, "photos_added", keys, f"of {places} came after the job was begun, and {{}} added to it")
    if changes.gone:
        text = f"of this job {{}} not at {places} any more; what was made of {{them}} stays"
        _tell(log, "photos_gone", changes.gone, text)
    if changes.changed:
        then = "{} done again" if growth.changed else "{} left as {they}; --changed does {them} again"
        keys = [photo.key for photo in changes.changed]
        _tell(log, "photos_changed", keys, f"of {places} changed since the job was begun, and {then}")


def _tell(log: LogSink, event: str, keys: Collection[str], text: str) -> None:
    """Say something of photographs: how many, and the first of them by name."""
    one = len(keys) == 1
    shown = ", ".join(list(keys)[:_NAMED]) + (f", and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")
    words = ("is", "it", "it is") if one else ("are", "them", "they are")
    said = text.format(words[0], them=words[1], they=words[2])
    line = f"{len(keys)} photograph{'' if one else 's'} {said}: {shown}"
    log.emit(LogEvent(event=event, text=line, values={"count": len(keys), "keys": list(keys)[:_NAMED]}))


# Doing again


def redo_keys(job: Job, marked: str | None, keys: Sequence[str] | None) -> list[str]:
    """Keys of the photographs that are to be done again.

    Raises:
        OptionError: it is not said which, or said in two ways, or there are none.
    """
    from jobs.ledger.marks import MARK_NAMES, read_marks
    from jobs.ledger.parts import manifests_of

    if (marked is None) == (not keys):
        reason = "either this mark or --key says which photographs are done again"
        raise OptionError("--marked", marked, choices=MARK_NAMES, reason=reason)
    if keys:
        return list(keys)
    if marked not in MARK_NAMES:
        raise OptionError("--marked", marked, choices=MARK_NAMES)
    wanted = {key for key, mark in read_marks(job.store).items() if mark == marked}
    found = [key for manifest in manifests_of(job.store) for key in manifest.column("key") if key in wanted]
    if not found:
        raise OptionError("--marked", marked, reason="no photograph of this job has this mark")
    return list(dict.fromkeys(found))


def execute_redo(
    prepare: Callable[[], Job],
    marked: str | None,
    keys: Sequence[str] | None,
    options: Mapping[str, Any],
    photos: str | None,
    *,
    wait: bool,
    log_format: LogFormat,
) -> None:
    """Do photographs of a job again, with other options. Leaves with the exit code."""
    from jobs.driver.redo import redo

    def first() -> ToRun:
        job = prepare()
        redo_keys(job, marked, keys)  # which refuses before anything is run
        return job, None

    def more(job: Job, log: LogSink) -> Generator[ToRun, None, None]:
        def tell(redone: Redone) -> None:
            _tell_redone(log, redone)

        wanted = redo_keys(job, marked, keys)
        for part in redo(job, wanted, options, photos=photos, tell=tell, lease=lease_options(log, wait)):
            yield part, None

    execute(first, more, wait=wait, log_format=log_format, later=False, quiet=True)


def _tell_redone(log: LogSink, redone: Redone) -> None:
    options = ", ".join(f"{name} = {value!r}" for name, value in redone.options.items())
    how = f"with {options}" if options else "with the job's own options"
    if redone.already:
        _tell(log, "photos_left", redone.already, f"{{}} left: last made {how}, too")
    if redone.keys:
        _tell(log, "photos_again", redone.keys, f"{{}} done again {how}")


def execute_retries(
    prepare: Callable[[], Job],
    keys: Sequence[str] | None,
    photos: str | None,
    *,
    wait: bool,
    log_format: LogFormat,
) -> None:
    """Do again what failed in a job and its parts. Leaves with the exit code."""
    from jobs.driver.parts import retries

    waiting: list[Generator[ToRun, None, None]] = []

    def first() -> ToRun:
        waiting.append(retries(prepare(), keys, photos))
        return next(waiting[0])

    execute(first, lambda job, log: waiting[0], wait=wait, log_format=log_format)  # noqa: ARG005
