"""What ends a job, and with which exit code.

NstError
├── OptionError          exit 2: an option has a value that it cannot take (from `nst`)
└── JobError
    ├── UsageError       exit 2: the job was asked for wrongly; nothing was written
    │   ├── NoPhotographs    none of a collection can be trained on
    │   ├── JobMismatch      the output folder belongs to another job
    │   └── LeaseHeld        another driver works on the output folder
    ├── StoreError       exit 4: a store failed for good; what is done is kept
    │   └── StoreRefuses     it takes nothing: no space is left, or no right to write
    ├── LeaseLost        exit 4: another driver has taken the job over; what is done is kept
    ├── Stopped          exit 75: asked to stop while no photograph was in work
    ├── StepFailed       exit 4: a step of a training fails, again and again
    ├── TrainingDiverged exit 6: a training goes on only with other options
    └── WorkersBroken    exit 4: workers cannot be started or keep dying; what is done is kept
"""

from __future__ import annotations

from nst.errors import NstError

__all__ = [
    "EXIT_DIVERGED",
    "EXIT_FAILED_CHECKS",
    "EXIT_FAILED_ROWS",
    "EXIT_FAULTS",
    "EXIT_OK",
    "EXIT_STOPPED",
    "EXIT_UNFINISHED",
    "EXIT_USAGE",
    "JobError",
    "JobMismatch",
    "LeaseHeld",
    "LeaseLost",
    "NoPhotographs",
    "StepFailed",
    "Stopped",
    "StoreError",
    "StoreRefuses",
    "TrainingDiverged",
    "UsageError",
    "WorkersBroken",
    "exit_code_of",
]

EXIT_OK = 0
EXIT_FAILED_CHECKS = 1
EXIT_USAGE = 2
EXIT_FAILED_ROWS = 3
EXIT_UNFINISHED = 4
EXIT_FAULTS = 5
EXIT_DIVERGED = 6
EXIT_STOPPED = 75


def exit_code_of(error: NstError) -> int:
    """The exit code for an error that ends a job: errors of `nst` itself are the user's to mend."""
    return error.exit_code if isinstance(error, JobError) else EXIT_USAGE


class JobError(NstError):
    """Base of what ends a job."""

    exit_code = EXIT_UNFINISHED


class UsageError(JobError):
    """The job was asked for wrongly."""

    exit_code = EXIT_USAGE


class JobMismatch(UsageError):
    """The output folder belongs to a job that differs; the message shows in what."""


class NoPhotographs(UsageError):
    """Hardly any photograph of a collection can be trained on."""


class LeaseHeld(UsageError):
    """Another driver works on the job; the message says who, and for how long at least."""


class LeaseLost(JobError):
    """Another driver has taken the job over."""


class StoreError(JobError):
    """Reading or writing failed for good."""


class StoreRefuses(StoreError):
    """The store takes nothing, as a full disk does; until that is mended it is of no use to try again."""


class Stopped(JobError):
    """Asked to stop while there was nothing to finish."""

    exit_code = EXIT_STOPPED


class StepFailed(JobError):
    """A step of a training raised.

    Args:
        step: its number.
        text: what it raised, and which photographs it was of.
    """

    def __init__(self, step: int, text: str) -> None:
        super().__init__(step, text)
        self.step = step

    def __str__(self) -> str:
        return str(self.args[1])


class TrainingDiverged(JobError):
    """A loss or a parameter of a training is not finite. The message says which, in which step, and which
    options `nst resume` can change."""

    exit_code = EXIT_DIVERGED


class WorkersBroken(JobError):
    """Workers cannot be started, or die without getting anything done."""
