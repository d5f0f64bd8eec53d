"""Whether a training is asked to stop: all of its processes get the same answer after the same step."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from jobs.stores.store import Store
from jobs.training.layout import STOP
from nst.gan.parallel import Share

__all__ = ["StopRequest"]

_EVERY_S = 2.0
_MOST_STEPS = 20


class StopRequest:
    """Looks for `STOP` every two seconds.

    Args:
        waits: the processes wait for their devices to be told. That is done every twentieth step, and sooner
            where steps take long: who stops a training waits for `grace_s`, and not for twenty of them.
    """

    def __init__(self, store: Store, share: Share, device: torch.device, *, waits: bool) -> None:
        self._store, self._share, self._device = store, share, device
        self._most = _MOST_STEPS if waits and share.world > 1 else 1
        self._looked_at = 0.0
        self._told, self._told_at = 0, time.monotonic()
        """The last step after which all were told, and when that was."""
        self._next = 0

    def after(self, step: int) -> bool:
        """Whether all are to end after this step; to be asked after each."""
        if step < self._next:
            return False
        asked, now = False, time.monotonic()
        if self._share.rank == 0 and now - self._looked_at > _EVERY_S:
            self._looked_at = now
            asked = self._store.exists(STOP)
        if self._share.world == 1:
            return asked
        answer = torch.tensor([int(asked), self._steps_until_next(step, now)], device=self._device)
        dist.broadcast(answer, 0)
        asked_by_first, steps = answer.tolist()
        self._told, self._told_at, self._next = step, now, step + steps
        return bool(asked_by_first)

    def _steps_until_next(self, step: int, now: float) -> int:
        """As many as take as long as it is until the store is asked again."""
        seconds = (now - self._told_at) / max(1, step - self._told)
        return max(1, min(self._most, int(_EVERY_S / max(1e-9, seconds))))
