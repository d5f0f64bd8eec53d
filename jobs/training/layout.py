"""Where everything of a training lies in its folder. Loads no torch.

    job.json                            what the training is: written once, before any work
    manifest_<collection>.parquet       the photographs of `a` and `b`, or of a style, listed once
    changes/000001.json                 options that were changed since: see `jobs.training.changes`
    checkpoints/step-000001000.pt       all that is needed to go on from after a step
    generators/step-000001000.safetensors   the generators as they were, until they are evaluated
    snapshots/step-000001000.safetensors    the same, kept for good: see `log.keep_every` and `nst snapshot`
    evaluations/step-000001000.json     what their pictures are like
    evaluations/compared.json           options by which all of these were found
    metrics/step-000000100.jsonl        losses of the steps up to this one
    metrics.parquet                     losses of all steps, when the training is complete
    tensorboard/events.out.tfevents.0000000100.nst   the same for TensorBoard
    tensorboard/events.out.tfevents.0000000100.nst.000000.samples-000000090   and samples
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
    "COMPARED",
    "DONE",
    "GENERATOR",
    "METRICS",
    "STOP",
    "best_step",
    "change_numbers",
    "change_path",
    "checkpoint_path",
    "checkpoint_steps",
    "evaluation_path",
    "evaluation_steps",
    "events_path",
    "events_steps",
    "forget_later",
    "generator_path",
    "generator_steps",
    "late_events",
    "late_events_path",
    "manifest_path",
    "metrics_path",
    "metrics_steps",
    "read_done",
    "read_evaluations",
    "read_last_end",
    "read_skipped",
    "sample_path",
    "sample_steps",
    "skipped_path",
    "snapshot_path",
    "snapshot_steps",
]

DONE = "done.json"
"""Published last: the training is complete."""
GENERATOR = "generator.safetensors"
METRICS = "metrics.parquet"
STOP = "stop-requested"
"""An object of this name asks for a checkpoint and the end of the run."""
_CHECKPOINTS, _GENERATORS, _SAMPLES, _EVALUATIONS = "checkpoints", "generators", "samples", "evaluations"
COMPARED = f"{_EVALUATIONS}/compared.json"
"""Options by which distances were found, without which others do not compare."""
_METRICS, _EVENTS, _SKIPPED, _CHANGES = "metrics", "tensorboard", "skipped", "changes"
_SNAPSHOTS = "snapshots"


def change_path(number: int) -> str:
    """Where the change of options with this number is, from 1."""
    return f"{_CHANGES}/{number:06d}.json"


def checkpoint_path(step: int) -> str:
    """Where all is that is needed to go on from after a step."""
    return f"{_CHECKPOINTS}/step-{step:09d}.pt"


def generator_path(step: int) -> str:
    """Where the generators are as they were after a step."""
    return f"{_GENERATORS}/step-{step:09d}.safetensors"


def snapshot_path(step: int) -> str:
    """Where the generators are that are kept as they were after a step."""
    return f"{_SNAPSHOTS}/step-{step:09d}.safetensors"


def manifest_path(collection: str) -> str:
    """Where a collection's listing is."""
    return f"manifest_{collection}.parquet"


def metrics_path(step: int) -> str:
    """Where the losses are of the steps that were published together, by the last of them."""
    return f"{_METRICS}/step-{step:09d}.jsonl"


def events_path(step: int) -> str:
    """Where the same are for TensorBoard, which reads such files in the order of their names."""
    return f"{_EVENTS}/events.out.tfevents.{step:010d}.nst"


def late_events_path(newest: int, number: int, kind: str, step: int) -> str:
    """Where samples, or an evaluation, are for TensorBoard: it reads no file whose name comes before one that
    it has read.

    Args:
        newest: the last step of the losses that it has.
        number: how many such files there were before.
        kind: `samples` or `evaluation`.
    """
    return f"{events_path(newest)}.{number:06d}.{kind}-{step:09d}"


def late_events(store: Store) -> dict[tuple[str, int], int]:
    """Numbers of the files with samples and evaluations that TensorBoard has, by kind and step."""
    named = r"\.([0-9]+)\.(samples|evaluation)-([0-9]+)$"
    found = (re.search(named, name) for name in store.names(_EVENTS))
    return {(match[2], int(match[3])): int(match[1]) for match in found if match}


def sample_path(step: int) -> str:
    """Where the translations are that were made after a step."""
    return f"{_SAMPLES}/step-{step:09d}.jpg"


def evaluation_path(step: int) -> str:
    """Where the distances of the generators after a step are."""
    return f"{_EVALUATIONS}/step-{step:09d}.json"


def skipped_path(name: str) -> str:
    """Where the note on a photograph is that cannot be read."""
    return f"{_SKIPPED}/{name}.json"


def change_numbers(store: Store) -> list[int]:
    """Numbers of the changes of options, in order."""
    found = (re.fullmatch(r"([0-9]{6,})\.json", name) for name in store.names(_CHANGES))
    return sorted(int(match[1]) for match in found if match)


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


def snapshot_steps(store: Store) -> list[int]:
    return _steps(store, _SNAPSHOTS)


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
    """What `done.json` says; None: the training is not complete, or was made longer since."""
    done = read_last_end(store)
    return None if done is None or done.get("changes", 0) < len(change_numbers(store)) else done


def read_last_end(store: Store) -> dict[str, Any] | None:
    """What `done.json` says, also if the training was made longer since; None: it has not ended yet."""
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
    found = (
        re.fullmatch(r"(?:step-|events\.out\.tfevents\.)([0-9]+)\.[a-z]+", name) for name in store.names(folder)
    )
    return sorted(int(match[1]) for match in found if match)


def forget_later(store: Store, step: int) -> None:
    """Remove what was published of later steps than this one, which are to be done again with other numbers."""
    for folder in (_METRICS, _EVENTS, _SAMPLES, _GENERATORS, _EVALUATIONS, _SNAPSHOTS):
        for name in store.names(folder):
            if max(map(int, re.findall(r"[0-9]+", name)), default=0) > step:
                store.remove(f"{folder}/{name}")
