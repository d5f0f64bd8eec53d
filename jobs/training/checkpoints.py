"""Checkpoints: all that is needed to go on from after a step, one object each."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch

from jobs.errors import JobMismatch, StoreError
from jobs.stores.store import Store
from jobs.training.layout import checkpoint_path
from jobs.training.recipes import Trainer

__all__ = ["checkpoint_bytes", "take_up"]

_FORMAT = 1


def checkpoint_bytes(fingerprint: str, step: int, state: Mapping[str, Any]) -> bytes:
    """A checkpoint as it is published.

    Args:
        state: `training`, of the trainer, and what else is to be remembered; tensors and plain values.
    """
    out = io.BytesIO()
    torch.save({"format": _FORMAT, "fingerprint": fingerprint, "step": step, **state}, out)
    return out.getvalue()


def take_up(trainer: Trainer, store: Store, step: int, fingerprint: str) -> dict[str, Any]:
    """Have a trainer go on from after a step; gives the state that `checkpoint_bytes` was given.

    Raises:
        JobMismatch: the checkpoint is of another training, or of this one with other options, or of a version
            that trained otherwise.
        StoreError: the checkpoint is damaged.
        FileNotFoundError: there is no checkpoint after this step.
    """
    path = checkpoint_path(step)
    state = _loaded(store, path)
    if state.get("format") != _FORMAT or state.get("fingerprint") != fingerprint:
        raise JobMismatch(f"{store.url}/{path} is not a checkpoint of this training")
    try:
        trainer.load_state_dict(state["training"])
    except (KeyError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "state_dict" not in str(error):  # as of memory
            raise
        raise JobMismatch(
            f"{store.url}/{path} is of a version of nst that trained otherwise ({error!r}). This one cannot "
            "go on; another training can begin with its networks: see init.weights"
        ) from error
    return state


def _loaded(store: Store, path: str) -> dict[str, Any]:
    data = store.read(path)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"{type(state).__name__} is no table")
    except Exception as error:  # whatever damaged bytes lead its readers to
        why = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:200]
        raise StoreError(
            f"{store.url}/{path} is damaged ({why}). If it stays so, remove it: `nst resume` goes on from the "
            "checkpoint before, if one was kept, or from the beginning"
        ) from error
    return state
