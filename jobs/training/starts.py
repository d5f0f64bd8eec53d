"""Files that a training needs beside photographs: weights that it begins with, and what its recipe asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.driver.assets import Asset, NeedsAssets, by_url, is_own, named_by_option, read_assets
from jobs.ledger.job_record import RecordedAsset
from jobs.stores.filesystems import StorageOptions
from jobs.training.evaluate import check_eyes
from jobs.training.job_file import INIT, MODEL
from jobs.training.spec import TrainFile
from nst.errors import OptionError, WeightsError

__all__ = [
    "TrainingFiles",
    "read_files",
    "recorded_assets",
    "refuse_other_eyes",
    "same_eyes",
    "same_files",
    "start_notes",
]


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """Files that a training needs, read and checked."""

    starts: tuple[Asset, ...] = ()
    """Those whose weights it begins with, instead of random ones; none once there is a checkpoint."""
    recipe: tuple[Asset, ...] = ()
    """Those that its recipe needs at every step."""

    def recorded(self) -> dict[str, RecordedAsset]:
        """As `job.json` has them, by option."""
        return {
            table + asset.option: RecordedAsset(asset.url, asset.sha256)
            for table, some in ((INIT, self.starts), (MODEL, self.recipe))
            for asset in some
        }


def read_files(file: TrainFile) -> TrainingFiles:
    """Read what a training needs to begin. Raises OptionError: a file is not there, or no state dict."""
    return TrainingFiles(
        _read(file.spec.init, INIT, file.storage), _read(file.spec.recipe, MODEL, file.storage)
    )


def _read(needs: NeedsAssets, table: str, storage: StorageOptions, **more: Any) -> tuple[Asset, ...]:
    return tuple(read_assets(needs, storage, table=table.rstrip("."), **more))


def start_notes(file: TrainFile, files: TrainingFiles) -> list[str]:
    """What is taken of weights that a training begins with, unless it is all.

    Raises:
        OptionError, WeightsError: they, or other files that it needs, do not fit the training's networks.
    """
    if not files.starts and not files.recipe:
        return []
    spec = file.spec
    trainer = spec.recipe.build(seed=spec.seed, device=torch.device("cpu"))
    try:
        spec.recipe.equip(trainer, by_url(files.recipe))
    except OptionError as error:
        raise error.within("model") from error
    except WeightsError as error:
        raise named_by_option(error, [*filter(is_own, spec.recipe.assets())], "model") from error
    if not files.starts:
        return []
    try:
        notes = trainer.start_from(by_url(files.starts), spec.init.networks, strict=spec.init.strict)
    except WeightsError as error:
        raise OptionError("init.weights", spec.init.weights, reason=str(error)) from error
    return [f"init: {note}" for note in notes]


def same_files(
    file: TrainFile,
    recorded: Mapping[str, RecordedAsset],
    elsewhere: Callable[[str], str | None],
    *,
    started: bool,
    over: bool,
) -> TrainingFiles:
    """Read what a training needs to go on, as it was when it was begun.

    Args:
        recorded: assets in `job.json`, by option.
        elsewhere: gives where else a file may be.
        started: it has weights of its own.
        over: it needs nothing any more.

    Raises:
        OptionError: a file is not there, or another one.
    """

    def read(needs: NeedsAssets, table: str) -> tuple[Asset, ...]:
        before = {
            name.removeprefix(table): asset.sha256 for name, asset in recorded.items() if name.startswith(table)
        }
        found = _read(needs, table, file.storage, recorded=before, elsewhere=elsewhere)
        for asset in found:
            _refuse_another(asset, before[asset.option], table)
        return found

    return TrainingFiles(
        starts=() if started else read(file.spec.init, INIT),
        recipe=() if over else read(file.spec.recipe, MODEL),
    )


def same_eyes(
    file: TrainFile, recorded: Mapping[str, RecordedAsset], elsewhere: Callable[[str], str | None]
) -> tuple[Asset, ...]:
    """Read the assets of an evaluation, where they were moved to with the training, too.

    Args:
        recorded, elsewhere: as of `same_files`.

    Raises:
        OptionError: a file is not there; or as of `refuse_other_eyes` and `check_eyes`.
    """
    digests = {name: asset.sha256 for name, asset in recorded.items()}
    found = _read(file.evaluation, "evaluation", file.storage, recorded=digests, elsewhere=elsewhere)
    refuse_other_eyes(found, recorded)
    check_eyes(file.evaluation, by_url(found))
    return found


def refuse_other_eyes(assets: Sequence[Asset], recorded: Mapping[str, RecordedAsset]) -> None:
    """Raise `OptionError` if an asset of an evaluation is another than the training was begun with, at the same
    place, so that distances would not be those of before."""
    for asset in assets:
        before = recorded.get(asset.option)
        if before is not None and before.url == asset.url:
            then = ", and distances would not compare. --set evaluation.every=0 goes on without them"
            _refuse_another(asset, before.sha256, "evaluation.", then)


def _refuse_another(asset: Asset, before: str, table: str, then: str = "") -> None:
    """Raise `OptionError` if an asset has another digest than `before`."""
    if asset.sha256 != before:
        reason = f"its SHA-256 is {asset.sha256}; the training was begun with {before}{then}"
        raise OptionError(table + asset.option, asset.url, reason=reason)


def recorded_assets(assets: Sequence[Asset], files: TrainingFiles) -> dict[str, RecordedAsset]:
    """Assets of the evaluation, and these files, as `job.json` has them."""
    evaluation = {asset.option: RecordedAsset(asset.url, asset.sha256) for asset in assets}
    return {**evaluation, **files.recorded()}
