"""Files of weights that a training begins with, instead of random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from jobs.driver.assets import Asset, by_url, read_assets
from jobs.training.spec import TrainFile
from nst.errors import OptionError, WeightsError

__all__ = ["INIT", "read_starts", "same_starts", "start_notes"]

INIT = "init."
"""Before the options of these files, among the assets in `job.json`."""


def read_starts(file: TrainFile) -> tuple[Asset, ...]:
    """The files that the table `init` names. Raises OptionError: one is not there, or no state dict."""
    return tuple(read_assets(file.spec.init, file.storage, table="init"))


def start_notes(file: TrainFile, starts: Sequence[Asset]) -> list[str]:
    """What is taken of them, unless it is all.

    Raises:
        OptionError: they do not fit the training's networks.
    """
    if not starts:
        return []
    spec = file.spec
    trainer = spec.recipe.build(seed=spec.seed, device=torch.device("cpu"))
    try:
        notes = trainer.start_from(by_url(starts), spec.init.networks, strict=spec.init.strict)
    except WeightsError as error:
        raise OptionError("init.weights", spec.init.weights, reason=str(error)) from error
    return [f"init: {note}" for note in notes]


def same_starts(file: TrainFile, begun_with: Mapping[str, str]) -> tuple[Asset, ...]:
    """The files as they were when the training was begun.

    Args:
        begun_with: SHA-256 of each, by option.

    Raises:
        OptionError: one is not there, or another one.
    """
    starts = read_starts(file)
    for asset in starts:
        option = INIT + asset.option
        if asset.sha256 != begun_with[option]:
            reason = f"its SHA-256 is {asset.sha256}; the training was begun with {begun_with[option]}"
            raise OptionError(option, asset.url, reason=reason)
    return starts
