"""Which photographs are wanted, and in which order: figures are compared as columns, never row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.ledger.marks import MARK_NAMES, Mark
from jobs.ledger.results import STATUSES
from jobs.view.index import FIGURES, STATS, Array, Rows
from nst.errors import OptionError

__all__ = ["ORDERS", "UNMARKED", "Query", "figures_of", "headings", "places", "row_json"]

ORDERS = ("row", "key")
"""Orders that are not by a figure: that of the manifest, and the alphabet's."""
_MOST_HEADINGS = 5_000
_FEWEST_EACH = 4
"""Photographs below a heading, in the mean; fewer if there are but few headings."""
_FEW_HEADINGS = 20
UNMARKED = "none"
"""Asks for photographs without a mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked for; what is empty does not matter."""

    search: str = ""
    """Part of the key, in any case."""
    folder: str = ""
    """Beginning of the key, up to a `/`."""
    status: str = ""
    mark: str = ""
    sort: str = "row"
    descending: bool = False

    def __post_init__(self) -> None:
        for option, choices in (("status", STATUSES), ("mark", (*MARK_NAMES, UNMARKED))):
            value = getattr(self, option)
            if value and value not in choices:
                raise OptionError(option, value, choices=list(choices))


def figures_of(rows: Rows) -> list[str]:
    """Names of the figures that differ from photograph to photograph, the method's own first."""
    own = sorted(name for name in rows.figures if name.startswith(STATS))
    return [name for name in (*own, *FIGURES) if len(rows) and not np.isnan(rows.figures[name]).all()]


def places(rows: Rows, marks: Mapping[str, Mark], query: Query) -> Array:
    """Where the rows are that are wanted, in the order that is asked for. What has no such figure comes last.

    Raises:
        OptionError: there is no such figure.
    """
    wanted = np.ones(len(rows), bool)
    keys = rows.texts["key"]
    if query.status:
        wanted &= rows.status == STATUSES.index(query.status)
    if query.search:
        wanted &= _numpy(pc.match_substring(keys, query.search, ignore_case=True))
    if query.folder:
        wanted &= _numpy(pc.starts_with(keys, f"{query.folder}/"))
    if query.mark:
        marked = [key for key, mark in marks.items() if query.mark in (mark, UNMARKED)]
        found = _numpy(pc.is_in(keys, pa.array(marked, pa.string())))
        wanted &= ~found if query.mark == UNMARKED else found
    there = np.flatnonzero(wanted)
    if query.sort == "row":
        return there[::-1] if query.descending else there
    if query.sort == "key":
        order = "descending" if query.descending else "ascending"
        return there[_numpy(pc.array_sort_indices(keys.take(pa.array(there)), order=order))]
    if query.sort not in rows.figures:
        raise OptionError("sort", query.sort, choices=[*ORDERS, *figures_of(rows)])
    values = rows.figures[query.sort][there]
    return there[np.argsort(-values if query.descending else values, kind="stable")]


def headings(rows: Rows, order: Array, query: Query) -> list[tuple[int, str]]:
    """Where the photographs of each folder begin in the order that was asked for, and the folder. Empty where
    they would not help: the order is by a figure, all lie in one place, folders take turns, or they have a
    photograph or two each."""
    if query.sort not in ORDERS or not len(order):
        return []
    keys = rows.texts["key"].take(pa.array(order))
    folders = pc.replace_substring_regex(keys, "/?[^/]*$", "", max_replacements=1).dictionary_encode()
    codes = _numpy(folders.indices)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    names = folders.dictionary.to_pylist()
    most = max(len(order) // _FEWEST_EACH, min(_FEW_HEADINGS, 2 * len(names)))
    if len(starts) > min(most, _MOST_HEADINGS) or names == [""]:
        return []
    return [(int(start), names[codes[start]]) for start in starts]


def _numpy(array: Any) -> Array:
    found: Array = array.to_numpy(zero_copy_only=False)
    return found


def row_json(rows: Rows, place: int, marks: Mapping[str, Mark]) -> dict[str, Any]:
    """A photograph as the page is told of it."""
    key = rows.text("key", place) or ""
    figures = {name: float(column[place]) for name, column in rows.figures.items()}
    return {
        "row": int(rows.number[place]),
        "key": key,
        "status": STATUSES[rows.status[place]],
        "mark": marks.get(key),
        "reason": ": ".join(filter(None, (rows.text(name, place) for name in ("error_type", "error")))),
        "before": rows.text("before", place),
        "after": rows.text("after", place),
        "figures": {name: value for name, value in figures.items() if np.isfinite(value)},
    }
