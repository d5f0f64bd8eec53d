"""Whether workers that failed are started again. Loads neither torch nor ray."""

from __future__ import annotations

from jobs.errors import JobMismatch, NoPhotographs, StepFailed, StoreRefuses, TrainingDiverged

__all__ = ["Failures"]

_FINAL = (JobMismatch, NoPhotographs, StoreRefuses, TrainingDiverged)
"""To try again is of no use. All workers raise them, but for StoreRefuses, at the same step: what is trained
does not depend on the try."""


_SAME_STEP = 3
"""So often a step may fail in a row."""


class Failures:
    """Counts them since the newest checkpoint, so that a long training is not ended by many that it got over.

    Args:
        most: so many in a row are got over; -1: any number.
        checkpoint: step of the newest one; 0: there is none.
    """

    def __init__(self, most: int, checkpoint: int) -> None:
        self._most, self._checkpoint, self._count = most, checkpoint, 0
        self._step, self._same = 0, 0

    def go_on(self, cause: BaseException, checkpoint: int) -> bool:
        """Whether workers are to be started again, from `checkpoint`, after they failed of `cause`."""
        self._count = 1 if checkpoint > self._checkpoint else self._count + 1
        self._checkpoint = checkpoint
        if isinstance(cause, StepFailed):
            self._same = self._same + 1 if cause.step == self._step else 1
            self._step = cause.step
            if self._same == _SAME_STEP:
                return False
        return not isinstance(cause, _FINAL) and (self._most < 0 or self._count <= self._most)
