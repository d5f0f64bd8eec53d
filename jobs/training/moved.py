"""A training that was moved together with its photographs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from jobs.driver.moved import first_that_differs
from jobs.errors import JobMismatch
from jobs.ledger.listing import root_of
from jobs.ledger.manifest import Manifest
from jobs.stores.filesystems import is_url
from jobs.stores.moved import Move, moved_along
from jobs.training.recipes.recipe import Recipe
from jobs.training.spec import TrainFile
from nst.errors import OptionError

__all__ = ["as_recorded", "check_moved", "held_out_now", "moved_urls", "photographs_now"]


def as_recorded(table: dict[str, Any], recipe: Recipe, stored: Mapping[str, Any], now: str) -> dict[str, Any]:
    """A resolved table with the places on record of what was moved with the training: collections, and files
    that it needs.

    Args:
        stored: the table on record.
        now: where the training's folder is.
    """
    recorded = {name: holder.get(option) for name, holder, option in _all_places(stored, recipe)}
    for name, holder, option in _all_places(table, recipe):
        before = recorded[name]
        if isinstance(before, str) and before != holder.get(option) and _is_gone(before):
            move = _along(before, stored["output"], now)
            if move is not None and move.place(before) == holder.get(option):
                holder[option] = before
    return table


def photographs_now(recipe: Recipe, table: Mapping[str, Any], before: str, now: str) -> dict[str, Move]:
    """Where collections are now that are not where they were, by name.

    Args:
        table: a resolved one, with the places on record.
        before, now: where the training's folder was, and where it is.

    Raises:
        OptionError: one is gone, and not where it would be if it had been moved with the training.
    """
    found = {}
    for name, holder, option in _places(table, recipe):
        place = holder[option]
        if not _is_gone(place):
            continue
        move = _along(place, before, now)
        if move is None or not os.path.exists(move.now):
            reason = (
                "is not there any more; put it, or a link to it, where it was, or move it with the training"
            )
            raise OptionError(recipe.option_of(name), place, reason=reason)
        found[name] = move
    return found


def held_out_now(file: TrainFile, before: str, now: str) -> TrainFile:
    """A training with the places of its held-out photographs as they are now, if these were moved with it.

    Args:
        before, now: where the training's folder was, and where it is.
    """
    places = dict(file.evaluation.held_out or {})
    for name, place in places.items():
        move = _along(place, before, now) if _is_gone(place) else None
        if move is not None and os.path.exists(move.now):
            places[name] = move.place(place)
    return replace(file, evaluation=replace(file.evaluation, held_out=places or None))


def check_moved(name: str, manifest: Manifest, move: Move, file: TrainFile) -> None:
    """Raises JobMismatch: a collection's photographs are not those that were listed, by names and sizes."""
    there = move.place(file.spec.collections[name])
    differing = first_that_differs(manifest, move, [there], exclude=file.spec.output, storage=file.storage)
    if differing is not None:
        raise JobMismatch(
            f"{name} = {there!r}: does not hold the photographs of this training, which were in "
            f"{move.before!r}: {differing}"
        )


def moved_urls(manifest: Manifest, move: Move) -> pa.ChunkedArray:
    """Places of a collection's photographs, as they are now."""
    return pa.chunked_array([pa.array([move.place(url) for url in manifest.urls().to_pylist()], pa.string())])


def _places(table: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each collection's name, the table that holds its place, and under which name."""
    for name in recipe.collections:
        *above, option = recipe.option_of(name).split(".")
        holder: Any = table
        for each in above:
            holder = holder.get(each, {})
        yield name, holder, option


def _all_places(table: Mapping[str, Any], recipe: Recipe) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Those of the collections, of one file of weights to begin with, and of the recipe's files."""
    yield from _places(table, recipe)
    yield "init.weights", table.get("init", {}), "weights"
    for ref in recipe.assets():
        yield f"model.{ref.option}", table["model"], ref.option


def _is_gone(place: str) -> bool:
    return not is_url(place) and not os.path.exists(root_of(place))


def _along(place: str, before: str, now: str) -> Move | None:
    there = moved_along(root_of(place), before, now)
    return None if there is None else Move(root_of(place), there)
