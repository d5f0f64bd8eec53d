"""Files of weights that a training begins with, instead of random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from jobs.driver.assets import Asset, by_url, read_assets
from jobs.ledger.job_record import RecordedAsset
from jobs.training.job_file import INIT
from jobs.training.spec import TrainFile
from nst.errors import OptionError, WeightsError

__all__ = ["read_starts", "recorded_assets", "same_starts", "start_notes"]


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


def same_starts(file: TrainFile, recorded: Mapping[str, RecordedAsset]) -> tuple[Asset, ...]:
    """The files as they were when the training was begun.

    Args:
        recorded: assets in `job.json`, by option.

    Raises:
        OptionError: one is not there, or another one.
    """
    starts = read_starts(file)
    for asset in starts:
        option = INIT + asset.option
        before = recorded[option].sha256
        if asset.sha256 != before:
            reason = f"its SHA-256 is {asset.sha256}; the training was begun with {before}"
            raise OptionError(option, asset.url, reason=reason)
    return starts


def recorded_assets(assets: Sequence[Asset], starts: Sequence[Asset]) -> dict[str, RecordedAsset]:
    """Assets of the evaluation, and these files, as `job.json` has them."""
    tables = (("", assets), (INIT, starts))
    return {
        table + asset.option: RecordedAsset(asset.url, asset.sha256) for table, some in tables for asset in some
    }
