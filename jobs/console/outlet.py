"""Standard output and error that may go away while a command runs: a terminal is closed, or what reads the
other end of a pipe has ended, as `tee` does when Ctrl-C reaches it, too."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["lasting_output"]


class _Lasting:
    """A stream that, once it cannot be written any more, goes nowhere: nobody reads it, and no harm is done.
    Letters that its encoding does not have, as of a photograph's name, are written as escapes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError:
            self._to_nowhere()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._to_nowhere()
            self._stream.flush()

    def _to_nowhere(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _nowhere() -> TextIO:
    """In place of a stream that was closed before this process began, as `>&-` has it: Python has none then. It
    takes the lowest number that is free, most likely that stream's, which no file of a job should get."""
    return open(os.devnull, "w")


@contextmanager
def lasting_output() -> Iterator[None]:
    """Have all that is written to standard output and error from here on be written or forgotten."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Lasting(_nowhere() if each is None else each) for each in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
