"""Whether a network is only looked at, to be run elsewhere."""

from __future__ import annotations

import torch

__all__ = ["is_captured"]


def is_captured() -> bool:
    """Whether torch is exporting or tracing what is computed: only torch's own operations can be in what comes
    out, and what was decided by an input's size is in it for good."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or torch.compiler.is_exporting()
