"""The learning rates of ten epochs by every policy, as docs/training.md has them.

python -m tests.rates       writes them there
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import torch

from nst.gan.schedule import Policy, Schedule, Scheduler

__all__ = ["PAGE", "TABLE", "of_policy", "rates", "table"]

PAGE = Path(__file__).parents[1] / "docs/training.md"
TABLE = re.compile(r"(?<=<!-- rates -->\n).*?(?=<!-- /rates -->)", re.S)
EPOCHS = 10


def of_policy(policy: Policy) -> list[float]:
    """Those of the table, relative to the first one."""
    return rates(EPOCHS, lr_policy=policy, n_epochs=5, n_epochs_decay=5, lr_decay_iters=3)


def rates(epochs: int, first: float = 1.0, **options: Any) -> list[float]:
    """Those of the first epochs by a `Schedule` of these options, while the losses do not fall."""
    optimizer = torch.optim.SGD([torch.zeros(1)], first)
    scheduler = Scheduler(Schedule(**options), [optimizer])
    found = []
    for epoch in range(epochs):
        scheduler.begin(epoch)
        found.append(optimizer.param_groups[0]["lr"])
        scheduler.end(1.0)
    return found


def table() -> str:
    """A table in Markdown."""
    lines = [
        "| epoch | " + " | ".join(str(epoch) for epoch in range(1, EPOCHS + 1)) + " |",
        "|---" * (EPOCHS + 1) + "|",
    ]
    for policy in get_args(Policy):
        lines.append(f"| `{policy}` | " + " | ".join(f"{rate:.3g}" for rate in of_policy(policy)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(table().replace("\\", r"\\"), PAGE.read_text()))
