"""The weights that a job's network has learned on the job's own photographs, and how far that is.

adapted/5e1f0c8a9b7d3f24.safetensors   what it ended with: published once, and used by every photograph
adapted/checkpoint.pt                  what it takes to go on; gone when it has ended
adapted/progress.json                  how far it is, for `nst status`
adapted/loading.json                   the photograph that is being decoded, and how often a process ended
                                       while it decoded one
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from jobs.ledger.layout import ADAPTED, adapted_path
from jobs.stores.store import Store

__all__ = [
    "CHECKPOINT",
    "LOADING",
    "PROGRESS",
    "AdaptProgress",
    "Loading",
    "clean_adapting",
    "read_adapted",
    "read_loading",
    "read_progress",
]

CHECKPOINT, PROGRESS, LOADING = (
    f"{ADAPTED}/{name}" for name in ("checkpoint.pt", "progress.json", "loading.json")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptProgress:
    """How far a network has learned."""

    step: int
    """Steps that were done."""
    steps: int
    """Steps that there are to do."""
    losses: Mapping[str, float]
    """Means over the last steps, by name."""
    seconds_left: float
    """How long the rest will take, about."""
    at: float = field(default_factory=time.time)
    """When this was, in seconds since 1970."""

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        losses = ", ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        minutes, seconds = divmod(round(self.seconds_left), 60)
        return f"step {self.step} of {self.steps}, {losses}, {minutes}:{seconds:02d} left"


def read_progress(store: Store, fingerprint: str) -> AdaptProgress | None:
    """How far it is; None: it has not begun, or has ended."""
    if store.exists(adapted_path(fingerprint)):
        return None
    try:
        return AdaptProgress(**json.loads(store.read(PROGRESS)))
    except (FileNotFoundError, ValueError, TypeError):  # also one that is written at this moment
        return None


def read_adapted(store: Store, fingerprint: str) -> bytes | None:
    """The weights; None: they are not learned yet."""
    try:
        return store.read(adapted_path(fingerprint))
    except FileNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class Loading:
    """Photographs that processes ended at."""

    key: str | None = None
    """The one that is being decoded."""
    deaths: Mapping[str, int] = field(default_factory=dict)
    """How often a process ended while it decoded one, by its key."""

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def ended(self) -> Loading:
        """The same after the process ended."""
        if self.key is None:
            return self
        return Loading(None, {**self.deaths, self.key: self.deaths.get(self.key, 0) + 1})

    @property
    def left_out(self) -> list[str]:
        """Keys of photographs that are not decoded again: once may have been chance."""
        return [key for key, number in self.deaths.items() if number > 1]


def read_loading(store: Store) -> Loading:
    """What the last process was at."""
    try:
        return Loading(**json.loads(store.read(LOADING)))
    except (FileNotFoundError, ValueError, TypeError):
        return Loading()


def clean_adapting(store: Store) -> None:
    """Remove what it needed on the way."""
    for path in (CHECKPOINT, PROGRESS, LOADING):
        if store.exists(path):
            store.remove(path)
