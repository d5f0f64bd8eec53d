"""Checkpoints: all that is needed to go on from after a step, one object each."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch

from jobs.errors import JobMismatch
from jobs.stores.store import Store
from jobs.training.layout import checkpoint_path

__all__ = ["checkpoint_bytes", "read_checkpoint"]

_FORMAT = 1


def checkpoint_bytes(fingerprint: str, step: int, state: Mapping[str, Any]) -> bytes:
    """A checkpoint as it is published.

    Args:
        state: `training`, of the trainer, and what else is to be remembered; tensors and plain values.
    """
    out = io.BytesIO()
    torch.save({"format": _FORMAT, "fingerprint": fingerprint, "step": step, **state}, out)
    return out.getvalue()


def read_checkpoint(store: Store, step: int, fingerprint: str) -> dict[str, Any]:
    """The state that `checkpoint_bytes` was given.

    Raises:
        JobMismatch: it is of another training, or of this one with other options.
        FileNotFoundError: there is no checkpoint after this step.
    """
    data = store.read(checkpoint_path(step))
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if state.get("format") != _FORMAT or state.get("fingerprint") != fingerprint:
        raise JobMismatch(f"{store.url}/{checkpoint_path(step)} is not a checkpoint of this training")
    return state
