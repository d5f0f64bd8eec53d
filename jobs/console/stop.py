"""How a running job is asked to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jobs.errors import Stopped

__all__ = ["STOP_SIGNALS", "Interrupted", "StopSignal"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a job to stop. They may come to each of its processes; the driver alone acts on them."""
_ECHO_S = 0.5
"""Seconds within which more signals are the same request: `timeout` signals the driver and then its group, and
systemd sends SIGHUP after SIGTERM, if told to."""


class Interrupted(BaseException):
    """Out of a signal handler, so nobody may take it for an error of what was going on."""


class StopSignal:
    """Asked once, the job finishes what is in work; asked twice, it ends at once; asked while it is still being
    planned, or what comes after it is, all is over."""

    def __init__(self) -> None:
        self._asked = 0
        self._running = False

    def ask(self) -> None:
        self._asked += 1
        if not self._running and self._asked == 1:
            raise Interrupted

    def running(self) -> None:
        """Note that the job runs: from here on, `gently` and `at_once` are looked at."""
        self._running = True

    def planning(self) -> None:
        """Note that the run has ended, and that what comes next is looked for. Asked before, there is none."""
        self._running = False
        if self._asked:
            raise Interrupted

    @property
    def gently(self) -> bool:
        return self._asked > 0

    @property
    def at_once(self) -> bool:
        return self._asked > 1

    @contextmanager
    def on_signals(self, *, last: bool = True) -> Iterator[StopSignal]:
        """Ask at SIGINT, SIGTERM and SIGHUP; not at one that was ignored before, as SIGHUP is by `nohup`. For
        the main thread.

        Args:
            last: the program ends after this: further signals must not change with which exit code.

        Raises:
            Stopped: asked while nothing was running.
        """
        asked_at = -_ECHO_S

        def ask(_number: int, _frame: FrameType | None) -> None:
            nonlocal asked_at
            if time.monotonic() - asked_at >= _ECHO_S:
                asked_at = time.monotonic()
                self.ask()

        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        numbers = [each for each in STOP_SIGNALS if each != signal.SIGHUP or not ignored]
        before = {number: signal.signal(number, ask) for number in numbers}
        try:
            yield self
        except Interrupted:
            raise Stopped("stopped while no photograph was in work") from None
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if last or self._asked else handler)
