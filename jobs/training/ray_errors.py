"""What Ray says of workers that failed, in this program's words."""

from __future__ import annotations

import ray.train

from jobs.errors import WorkersBroken
from nst.errors import NstError

__all__ = ["brief", "cause_of"]


def cause_of(error: BaseException | None) -> NstError:
    """What workers died of: this program's own error, if there is one behind what Ray says."""
    failures = getattr(error, "worker_failures", {}) or {}
    seen: list[BaseException] = [each for each in [error, *failures.values()] if each is not None]
    for found in seen:  # grows
        if isinstance(found, NstError):
            return found
        behind = (getattr(found, name, None) for name in ("cause", "_base_exc", "__cause__"))
        seen += [each for each in behind if isinstance(each, BaseException) and each not in seen]
    if error is None:
        return WorkersBroken("the workers ended before the training did")
    if isinstance(error, ray.train.WorkerGroupError):
        return WorkersBroken(f"workers failed more often than resources.max_failures: {brief(error)}")
    return WorkersBroken(f"Ray Train gave up: {brief(error)}")


def brief(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:500]
