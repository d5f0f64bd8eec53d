"""Whether workers that failed are started again. Loads neither torch nor ray."""

from __future__ import annotations

from jobs.errors import JobMismatch
from nst.errors import Diverged

__all__ = ["Failures"]

_FINAL = (Diverged, JobMismatch)
"""Every worker raises them, at the same step, and would again: what is trained does not depend on the try."""


class Failures:
    """Counts them since the newest checkpoint, so that a long training is not ended by many that it got over.

    Args:
        most: so many in a row are got over; -1: any number.
        checkpoint: step of the newest one; 0: there is none.
    """

    def __init__(self, most: int, checkpoint: int) -> None:
        self._most, self._checkpoint, self._count = most, checkpoint, 0

    def go_on(self, cause: BaseException, checkpoint: int) -> bool:
        """Whether workers are to be started again, from `checkpoint`, after they failed of `cause`."""
        self._count = 1 if checkpoint > self._checkpoint else self._count + 1
        self._checkpoint = checkpoint
        return not isinstance(cause, _FINAL) and (self._most < 0 or self._count <= self._most)
