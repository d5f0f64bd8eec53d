"""The rows of a job that count, as everybody is shown them."""

from __future__ import annotations

from typing import NamedTuple

from jobs.ledger.parts import path_below
from jobs.ledger.results import STATUSES
from jobs.stores.store import Store
from jobs.view.index import Index


class Counted(NamedTuple):
    """A photograph's row."""

    key: str
    url: str
    status: str
    output: str | None
    """Path of the picture below the job's folder."""
    part: int
    """0: of the job itself."""


def rows_that_count(store: Store) -> list[Counted]:
    """One row for each photograph that has any, if all is well."""
    index = Index(store)
    index.refresh()
    assert not index.damaged
    rows, found = index.rows(), []
    for place, part in enumerate(rows.part):
        key, url, output = (rows.text(name, place) for name in ("key", "url", "output"))
        assert key is not None
        assert url is not None
        output = None if output is None else path_below(index.parts[part].store, output)
        found.append(Counted(key, url, STATUSES[rows.status[place]], output, int(part)))
    return found
