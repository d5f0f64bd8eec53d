"""What Ray says of workers that failed, in this program's words."""

from __future__ import annotations

import ray.train

from jobs.errors import StepFailed, WorkersBroken
from nst.errors import NstError

__all__ = ["brief", "cause_of", "may_pass", "no_room"]

_NO_ROOM = ("WorkerGroupStartupTimeoutError", "InsufficientClusterResourcesError")
"""Ray's own errors of clusters that did not have what workers need for as long as it was told to wait."""


def may_pass(error: BaseException) -> bool:
    """Whether other workers may do better: these failed, or could not be started."""
    return isinstance(error, ray.train.TrainingFailedError) and not _is_of_room(error)


def cause_of(error: BaseException | None) -> NstError:
    """What workers died of: this program's own error, if there is one behind what Ray says."""
    if error is None:
        return WorkersBroken("the workers ended before the training did")
    if _is_of_room(error):
        return no_room()
    failures = list((getattr(error, "worker_failures", None) or {0: error}).values())
    causes = [each for each in map(_own, failures) if each is not None]
    died = [each for each in failures if _own(each) is None]
    if died:  # then the others fail of the step in which they miss it
        causes = [each for each in causes if not isinstance(each, StepFailed)]
    if causes:
        return min(causes, key=lambda each: isinstance(each, StepFailed))
    if isinstance(error, ray.train.TrainingFailedError):
        return WorkersBroken(f"workers failed more often than resources.max_failures: {brief(died[0])}")
    return WorkersBroken(f"Ray Train gave up: {brief(error)}")


def no_room() -> WorkersBroken:
    """What to raise where workers were waited for, and did not start."""
    return WorkersBroken(
        "workers cannot start: for longer than resources.start_timeout_s the cluster has not had what they "
        "need; see resources.min_workers, num_cpus and num_gpus"
    )


def _own(error: BaseException) -> NstError | None:
    """This program's error behind one of Ray's, if there is one."""
    seen = [error]
    for found in seen:  # grows
        if isinstance(found, NstError):
            return found
        behind = (getattr(found, name, None) for name in ("cause", "_base_exc", "__cause__"))
        seen += [each for each in behind if isinstance(each, BaseException) and each not in seen]
    return None


def _is_of_room(error: BaseException) -> bool:
    return type(getattr(error, "controller_failure", None)).__name__ in _NO_ROOM


def brief(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:500]
