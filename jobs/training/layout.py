"""Where everything of a training lies in its folder. Loads no torch.

    job.json                            what the training is: written once, before any work
    manifest_<collection>.parquet       the photographs of `a` and `b`, or of a style, listed once
    checkpoints/step-000001000.pt       all that is needed to go on from after a step
    generators/step-000001000.safetensors   the generators as they were, until they are evaluated
    evaluations/step-000001000.json     what their pictures are like
    metrics/step-000000100.jsonl        losses of the steps up to this one
    metrics.parquet                     losses of all steps, when the training is complete
    tensorboard/events.out.tfevents.0000000100.nst   the same for TensorBoard
    samples/step-000001000.jpg          translations of the first photographs
    skipped/<name>.json                 a photograph that cannot be read
    generator.safetensors               what the training was for
    done.json                           published last: the training is complete
    stop-requested                      asks for a checkpoint and the end of the run

Leases, the report and `.tmp/` are where `jobs.ledger.layout` says, as in the folder of any job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from typing import Any

from jobs.stores.store import Store

__all__ = [
    "DONE",
    "GENERATOR",
    "METRICS",
    "STOP",
    "best_step",
    "checkpoint_path",
    "checkpoint_steps",
    "evaluation_path",
    "evaluation_steps",
    "events_path",
    "events_steps",
    "generator_path",
    "generator_steps",
    "manifest_path",
    "metrics_path",
    "metrics_steps",
    "read_done",
    "read_evaluations",
    "read_skipped",
    "sample_path",
    "sample_steps",
    "skipped_path",
]

DONE = "done.json"
"""Published last: the training is complete."""
GENERATOR = "generator.safetensors"
METRICS = "metrics.parquet"
STOP = "stop-requested"
"""An object of this name asks for a checkpoint and the end of the run."""
_CHECKPOINTS, _GENERATORS, _SAMPLES, _EVALUATIONS = "checkpoints", "generators", "samples", "evaluations"
_METRICS, _EVENTS, _SKIPPED = "metrics", "tensorboard", "skipped"


def checkpoint_path(step: int) -> str:
    """Where all is that is needed to go on from after a step."""
    return f"{_CHECKPOINTS}/step-{step:09d}.pt"


def generator_path(step: int) -> str:
    """Where the generators are as they were after a step."""
    return f"{_GENERATORS}/step-{step:09d}.safetensors"


def manifest_path(collection: str) -> str:
    """Where a collection's listing is."""
    return f"manifest_{collection}.parquet"


def metrics_path(step: int) -> str:
    """Where the losses are of the steps that were published together, by the last of them."""
    return f"{_METRICS}/step-{step:09d}.jsonl"


def events_path(step: int) -> str:
    """Where the same are for TensorBoard, which reads such files in the order of their names."""
    return f"{_EVENTS}/events.out.tfevents.{step:010d}.nst"


def sample_path(step: int) -> str:
    """Where the translations are that were made after a step."""
    return f"{_SAMPLES}/step-{step:09d}.jpg"


def evaluation_path(step: int) -> str:
    """Where the distances of the generators after a step are."""
    return f"{_EVALUATIONS}/step-{step:09d}.json"


def skipped_path(name: str) -> str:
    """Where the note on a photograph is that cannot be read."""
    return f"{_SKIPPED}/{name}.json"


def checkpoint_steps(store: Store) -> list[int]:
    """Steps after which there is a checkpoint, in order, as those of the others."""
    return _steps(store, _CHECKPOINTS)


def metrics_steps(store: Store) -> list[int]:
    """Last steps of the losses that were published together."""
    return _steps(store, _METRICS)


def events_steps(store: Store) -> list[int]:
    """Steps for which TensorBoard has a file."""
    return _steps(store, _EVENTS)


def generator_steps(store: Store) -> list[int]:
    return _steps(store, _GENERATORS)


def sample_steps(store: Store) -> list[int]:
    return _steps(store, _SAMPLES)


def evaluation_steps(store: Store) -> list[int]:
    return _steps(store, _EVALUATIONS)


def read_evaluations(store: Store, but: Container[int] = ()) -> dict[int, dict[str, float]]:
    """By step, but for some: `fid_NAME` and `kid_NAME` for each of the recipe's translations, as `fid_A2B`."""
    steps = [step for step in evaluation_steps(store) if step not in but]
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


def read_skipped(store: Store, but: Container[str] = ()) -> dict[str, dict[str, str]]:
    """`url` and `error` of each, by name, but for some."""
    names = [name for name in store.names(_SKIPPED) if name not in but]
    return {name: json.loads(store.read(f"{_SKIPPED}/{name}")) for name in names}


def _steps(store: Store, folder: str) -> list[int]:
    """Steps of the files in a folder, in order."""
    named = r"(?:step-|events\.out\.tfevents\.)([0-9]+)\.[a-z]+"
    found = (re.fullmatch(named, name) for name in store.names(folder))
    return sorted(int(match[1]) for match in found if match)
