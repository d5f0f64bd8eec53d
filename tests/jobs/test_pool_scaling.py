"""The scaling benchmark, small: that it measures what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pool_scaling import simulate, steady, write_listing
from jobs.ledger.results import Result


def results(worker: int, times: list[float]) -> list[Result]:
    return [
        Result(row=0, key="", url="", status="ok", worker_host="h", worker_pid=worker, finished_at=time)
        for time in times
    ]


def test_actors_that_never_wait_are_ideal() -> None:
    both = results(1, [11.0 + n for n in range(200)]) + results(2, [11.0 + n for n in range(200)])
    found = steady(both, 2, 1.0, ready_at=10.0)
    assert found == {"efficiency": 1.0, "steady_s": 200.0, "tail_waste_s": 0.0}


def test_an_actor_that_waits_at_the_end_is_waste() -> None:
    both = results(1, [1.0 + n for n in range(200)]) + results(2, [1.0 + n for n in range(100)])
    found = steady(both, 2, 1.0, ready_at=0.0)
    assert found == {"efficiency": 0.75, "steady_s": 200.0, "tail_waste_s": 100.0}


def test_an_actor_that_did_nothing_is_no_result() -> None:
    with pytest.raises(SystemExit, match="1 of 2 actors"):
        steady(results(1, [1.0, 2.0]), 2, 1.0, ready_at=0.0)


def test_a_small_simulation_ends_near_its_bound(tmp_path: Path) -> None:
    write_listing(tmp_path / "photos.parquet", 6000)
    found = simulate(tmp_path, 8)
    assert found["photos"] == 6000
    assert found["shards"] == 94
    assert found["actors"] == 8
    assert found["tasks"] > 94
    assert 0 < found["run_us_per_photo"] < found["driver_us_per_photo"]
    assert found["bound_s"] == pytest.approx(6000 / 8, rel=0.1)
    assert 1 < found["makespan_over_bound"] < 1.1
