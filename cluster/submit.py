"""Command lines on a running Ray cluster, through its jobs API: submitted, followed, stopped.

Ray takes a submission's id once and for ever, so that of two who submit the same at once one is refused; ids
are a name and a number.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

__all__ = ["Cluster", "ClusterError", "Command", "Found"]

T = TypeVar("T")

STOPPED = 75
UNFINISHED = 4
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_POLL_S = 0.5
_START_S = 60.0
_SILENT_S = 60.0
"""A log that says nothing for so long may be one whose connection is dead."""
_STOP_MARGIN_S = 60
"""For what a driver does after its grace period: it says how it ended, and leaves Ray."""


class ClusterError(Exception):
    """The cluster cannot be reached, or refuses; the message is for whoever asked."""


class _UnreachedError(ClusterError):
    """It may answer in a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line to be run on a cluster's head."""

    name: str
    """The same for what must not run twice at once."""
    waits: bool
    """By itself, until another of its name has ended."""
    line: str
    folder: Path
    """The files that it is run with, and all that the cluster gets."""
    grace_s: float
    """When stopped with SIGTERM it has this long until SIGKILL."""


@dataclass(frozen=True, slots=True)
class Found:
    """A submission that the cluster knows."""

    id: str
    running: bool
    """Or about to."""
    exit_code: int | None
    """None: it is running."""
    message: str
    """What Ray says about its end."""
    said_itself: bool
    """It ended by itself, with an exit code of its own: its output says why."""


class Cluster:
    """The jobs API of a cluster.

    Args:
        address: of its dashboard, http://HEAD:8265; None: RAY_API_SERVER_ADDRESS or RAY_ADDRESS.

    Raises:
        ClusterError: nobody is there, or the token is missing or wrong.
    """

    def __init__(self, address: str | None) -> None:
        named = "--address" if address is not None else next((n for n in _ADDRESSES if os.environ.get(n)), None)
        self.address = address or (os.environ[named] if named else "")
        if not self.address.startswith(("http://", "https://")):
            given = f"{named} = {self.address!r}" if named else "no --address"
            raise ClusterError(f"{given}: expected that of the cluster's dashboard, http://HEAD:8265")
        _use_token()
        with _asked(self.address), _without(_ADDRESSES):
            from ray.job_submission import JobSubmissionClient

            for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
                logging.getLogger(name).setLevel(logging.CRITICAL)  # some set their own levels when imported
            self._client = JobSubmissionClient(self.address)

    def newest(self, name: str) -> Found | None:
        """The last submission of a name."""
        with _asked(self.address):
            found = {
                int(each.submission_id.rsplit("-", 1)[1]): each
                for each in self._client.list_jobs()
                if each.submission_id is not None
                and each.submission_id.startswith(f"{name}-")
                and each.submission_id.rsplit("-", 1)[1].isdigit()
            }
        return _found(found[max(found)]) if found else None

    def submit(self, command: Command) -> str:
        """Gives the submission's id.

        Raises:
            ClusterError: it runs already, or the cluster refuses it.
        """
        before = self.newest(command.name)
        if before is not None and before.running and not command.waits:
            raise ClusterError(f"it is running on {self.address} already, as {before.id}")
        number = 1 if before is None else int(before.id.rsplit("-", 1)[1]) + 1
        id = f"{command.name}-{number}"
        wait_s = math.ceil(command.grace_s) + _STOP_MARGIN_S
        environment = {
            "working_dir": str(command.folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(wait_s)},
        }
        deadline = time.monotonic() + _START_S
        while True:
            try:
                with _asked(self.address):
                    self._client.submit_job(entrypoint=command.line, submission_id=id, runtime_env=environment)
                return id
            except ClusterError as error:
                if "already exists" in str(error.__cause__):
                    text = f"it was submitted to {self.address} a moment ago, as {id}"
                    raise ClusterError(text) from error
                # A head that has just started.
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_S)

    def follow(self, id: str, write: Callable[[str], None]) -> Found:
        """Write what a submission says until it has ended."""
        written = 0
        while True:
            written = asyncio.run(self._tail(id, written, write))
            found = self._patiently(lambda: _found(self._client.get_job_info(id)))
            if not found.running:
                write(self._patiently(lambda: self._client.get_job_logs(id))[written:])
                return found
            time.sleep(_POLL_S)

    async def _tail(self, id: str, written: int, write: Callable[[str], None]) -> int:
        """Writes what comes after the first `written` characters; gives how many there are now.

        A connection that is refused, cut or silent ends it like the log's end does: who asks knows what to do.
        """
        import aiohttp

        there = 0
        texts = aiter(self._client.tail_job_logs(id))
        while True:
            try:
                async with asyncio.timeout(_SILENT_S):
                    text = await anext(texts)
            except (StopAsyncIteration, RuntimeError, OSError, aiohttp.ClientError):
                return max(written, there)
            new = text[max(0, written - there) :]
            there += len(text)
            if new:
                write(new)
                written = there

    def stop(self, id: str) -> Found:
        """Ask a submission to end, with SIGTERM, and wait until it has."""
        with _asked(self.address):
            self._client.stop_job(id)
        while (found := self._patiently(lambda: _found(self._client.get_job_info(id)))).running:
            time.sleep(_POLL_S)
        return found

    def _patiently(self, call: Callable[[], T]) -> T:
        """A head that does not answer for a moment is asked again."""
        deadline = time.monotonic() + _START_S
        while True:
            try:
                with _asked(self.address):
                    return call()
            except _UnreachedError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_S)


def _found(details: object) -> Found:
    status = str(getattr(details, "status", ""))
    code = getattr(details, "driver_exit_code", None)
    running = status in ("PENDING", "RUNNING")
    ended = {"SUCCEEDED": 0, "STOPPED": STOPPED}.get(
        status, code if code is not None and code >= 0 else UNFINISHED
    )
    return Found(
        id=str(getattr(details, "submission_id", "")),
        running=running,
        exit_code=None if running else ended,
        message=str(getattr(details, "message", "") or ""),
        said_itself=status != "FAILED" or (code is not None and code >= 0),
    )


def _use_token() -> None:
    """Who has given Ray a token means it to be used: by itself, the client does that in token mode only."""
    default = Path.home() / ".ray" / "auth_token"
    if any(os.environ.get(name) for name in _TOKENS) or default.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path and not os.environ.get("RAY_AUTH_TOKEN") and not Path(path).is_file():
        raise ClusterError(f"RAY_AUTH_TOKEN_PATH = {path!r}: there is no such file")


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Ray's client prefers these to the address that it is given."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _asked(address: str) -> Iterator[None]:
    """One message for whatever Ray's client raises."""
    import ray.exceptions
    import requests

    try:
        yield
    except ray.exceptions.AuthenticationError as error:
        problem = "asks for a token" if "Authentication required" in str(error) else "refuses this token"
        raise ClusterError(
            f"{address} {problem}: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to the file that holds it"
        ) from error
    except (ConnectionError, requests.exceptions.RequestException) as error:
        raise _UnreachedError(f"{address} cannot be reached: {_brief(error)}") from error
    except RuntimeError as error:
        raise ClusterError(f"{address} refuses: {_brief(error)}") from error


def _brief(error: BaseException) -> str:
    """Without the stack of a server."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-1:] if "Traceback" in str(error) else lines)[:500]
