"""Where a training's parts are in its folder. Loads no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from typing import Any

from jobs.stores.store import Store

__all__ = [
    "DONE",
    "GENERATOR",
    "KIND",
    "STOP",
    "best_step",
    "checkpoint_path",
    "checkpoint_steps",
    "evaluation_path",
    "generator_path",
    "generator_steps",
    "manifest_path",
    "read_done",
    "read_evaluations",
    "read_skipped",
    "sample_path",
    "sample_steps",
    "skipped_path",
]

KIND = "train cyclegan"
DONE = "done.json"
"""Published last: the training is complete."""
GENERATOR = "generator.safetensors"
STOP = "stop-requested"
"""An object of this name asks for a checkpoint and the end of the run."""
_CHECKPOINTS, _GENERATORS, _SAMPLES, _EVALUATIONS = "checkpoints", "generators", "samples", "evaluations"
_SKIPPED = "skipped"


def checkpoint_path(step: int) -> str:
    """Of all that is needed to go on from after a step."""
    return f"{_CHECKPOINTS}/step-{step:09d}.pt"


def generator_path(step: int) -> str:
    """Of the generators as they were after a step."""
    return f"{_GENERATORS}/step-{step:09d}.safetensors"


def manifest_path(collection: str) -> str:
    """Of a collection's listing."""
    return f"manifest_{collection}.parquet"


def sample_path(step: int) -> str:
    return f"{_SAMPLES}/step-{step:09d}.jpg"


def evaluation_path(step: int) -> str:
    return f"{_EVALUATIONS}/step-{step:09d}.json"


def checkpoint_steps(store: Store) -> list[int]:
    """In order, as the others."""
    return _steps(store, _CHECKPOINTS)


def generator_steps(store: Store) -> list[int]:
    return _steps(store, _GENERATORS)


def sample_steps(store: Store) -> list[int]:
    return _steps(store, _SAMPLES)


def read_evaluations(store: Store, but: Container[int] = ()) -> dict[int, dict[str, float]]:
    """By step, but for some: `fid_NAME` and `kid_NAME` for each of the recipe's translations, as `fid_A2B`."""
    steps = [step for step in _steps(store, _EVALUATIONS) if step not in but]
    return {step: json.loads(store.read(evaluation_path(step))) for step in steps}


def best_step(found: Mapping[int, Mapping[str, float]], metric: str) -> int | None:
    """Whose mean over the translations that all have is least, the first of equal ones; None: none has any."""
    names = [name for name in next(iter(found.values()), ()) if name.startswith(f"{metric}_")]
    shared = [name for name in names if all(name in each for each in found.values())]

    def distance(step: int) -> tuple[float, int]:
        return sum(found[step][name] for name in shared), step

    return min(found, key=distance) if shared else None


def read_done(store: Store) -> dict[str, Any] | None:
    """What `done.json` says; None: the training is not complete."""
    if DONE not in store.names(""):
        return None
    done: dict[str, Any] = json.loads(store.read(DONE))
    return done


def skipped_path(name: str) -> str:
    """Of the note on a photograph that cannot be read."""
    return f"{_SKIPPED}/{name}.json"


def read_skipped(store: Store, but: Container[str] = ()) -> dict[str, dict[str, str]]:
    """`url` and `error` of each, by name, but for some."""
    names = [name for name in store.names(_SKIPPED) if name not in but]
    return {name: json.loads(store.read(f"{_SKIPPED}/{name}")) for name in names}


def _steps(store: Store, folder: str) -> list[int]:
    found = (re.fullmatch(r"step-([0-9]+)\.[a-z]+", name) for name in store.names(folder))
    return sorted(int(match[1]) for match in found if match)
