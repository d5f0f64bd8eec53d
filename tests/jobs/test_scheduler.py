"""Decisions without a cluster: who is blamed, what is done again, and that every row ends exactly once."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, NoReturn

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.driver.actions import (
    Abort,
    Action,
    Conclude,
    Drain,
    GiveUp,
    Inspect,
    Seal,
    Start,
    Stop,
    Strike,
    Submit,
    Work,
)
from jobs.driver.scheduler import Limits, Scheduler
from jobs.errors import WorkersBroken
from jobs.ledger.results import Status
from jobs.worker.messages import (
    Cause,
    Died,
    Failed,
    Finished,
    Leaving,
    Progress,
    Ready,
    Spent,
    Task,
    TaskProgress,
    TaskReport,
    WorkerInfo,
)
from nst.errors import OptionError

INFO = WorkerInfo(host="h", pid=1)


class Simulation:
    """A store and workers in a few lines: the driver's side of the scheduler's contract.

    `poison` rows kill their worker at each attempt, `hanging` ones take for ever, others take one tick.
    """

    def __init__(
        self,
        shards: int,
        size: int,
        *,
        poison: frozenset[int] = frozenset(),
        hanging: frozenset[int] = frozenset(),
        max_workers: int = 3,
        window: int = 4,
        seed: int = 0,
        outside_kills: float = 0.0,
        node_losses: float = 0.0,
        task_failures: float = 0.0,
        notices: float = 0.0,
    ) -> None:
        self.size, self.shards = size, shards
        self.poison, self.hanging, self.window = poison, hanging, window
        self.random = random.Random(seed)
        self.outside_kills, self.node_losses, self.task_failures = outside_kills, node_losses, task_failures
        self.notices, self.draining, self.in_vain = notices, set[int](), 0
        self.journal: dict[int, str] = {}
        self.strikes: Counter[int] = Counter()
        self.sealed: Counter[int] = Counter()
        self.given_up: set[int] = set()
        self.aborted: Exception | None = None
        self.now = 0.0
        self.workers: dict[int, list[Task]] = {}
        self.starting: list[int] = []
        self.dead_of: list[tuple[int, Cause]] = []
        self.deaths_alone: Counter[int] = Counter()
        self.calls_at_once: list[list[Task]] = []
        limits = Limits(1, max_workers, window, timeout_s=5.0, start_timeout_s=50.0)
        work = [Work(shard) for shard in range(shards)]
        self.scheduler = Scheduler(work, lambda shard: range(shard * size, (shard + 1) * size), limits)

    def rows(self, task: Task) -> list[int]:
        whole = range(task.shard * self.size, (task.shard + 1) * self.size)
        return list(whole if task.rows is None else task.rows)

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                self.starting.append(action.worker)
            elif isinstance(action, Stop):
                if action.worker in self.workers or action.worker in self.starting:
                    self.dead_of.append((action.worker, action.cause))
            elif isinstance(action, Submit):
                assert action.worker not in self.draining, "it was told to end"
                assert len(self.workers[action.worker]) < 2
                self.workers[action.worker].append(action.task)
                tasks = self.workers[action.worker]
                assert len(tasks) == 1 or not any(task.probe for task in tasks), "a probe is alone"
            elif isinstance(action, Drain):
                self.draining.add(action.worker)
            elif isinstance(action, Inspect):
                done = [row for row in self.journal if row // self.size == action.task.shard]
                self.perform(self.scheduler.inspected(action, done, dict(self.strikes), self.now))
            elif isinstance(action, Strike):
                (row,) = self.rows(action.task)
                self.strikes[row] += 1
            elif isinstance(action, Conclude):
                (row,) = self.rows(action.task)
                assert row not in self.journal
                self.journal[row] = action.status
            elif isinstance(action, Seal):
                assert all(row in self.journal for row in self.shard_rows(action.shard))
                self.sealed[action.shard] += 1
            elif isinstance(action, GiveUp):
                self.given_up.add(action.shard)
            elif isinstance(action, Abort):
                self.aborted = action.error

    def shard_rows(self, shard: int) -> range:
        return range(shard * self.size, (shard + 1) * self.size)

    def die(self, worker: int, cause: Cause) -> None:
        for task in self.workers.pop(worker):
            if task.probe and cause == "crash":
                self.deaths_alone[self.rows(task)[0]] += 1
        self.perform(self.scheduler.on(Died(worker, cause, "gone"), self.now))

    def tick(self) -> None:
        self.now += 1.0
        for worker, cause in self.dead_of:
            if worker in self.workers:
                self.die(worker, cause)
        self.dead_of.clear()
        for worker in self.starting:
            self.workers[worker] = []
            self.perform(self.scheduler.on(Ready(worker, INFO), self.now))
        self.starting.clear()
        for worker in list(self.workers):
            if self.workers.get(worker):
                self.work(worker)
        self.perform(self.scheduler.tick(self.now))

    def work(self, worker: int) -> None:
        if self.random.random() < self.outside_kills:
            return self.die(worker, "crash")
        if self.random.random() < self.node_losses:
            return self.die(worker, "node lost")
        if self.random.random() < self.notices:
            self.perform(self.scheduler.on(Leaving(worker, "notice"), self.now))
        task = self.workers[worker][0]
        if worker in self.draining:  # what is in work is finished: up to two rows of the window
            for row in [row for row in self.rows(task) if row not in self.journal][:2]:
                self.journal[row] = "ok"
            self.workers[worker].remove(task)
            report = TaskReport(shard=task.shard, counts=self.counts(task), complete=False, sealed=False)
            return self.perform(self.scheduler.on(Finished(worker, task.id, report), self.now))
        if self.random.random() < self.task_failures:
            self.workers[worker].remove(task)
            return self.perform(self.scheduler.on(Failed(worker, task.id, OSError("store")), self.now))
        todo = [row for row in self.rows(task) if row not in self.journal]
        # Rows of the window are in work in any order; what is in the journal is a prefix but for the window.
        ahead = todo[: self.window]
        self.random.shuffle(ahead)
        for row in ahead[:2]:
            if row in self.poison:
                return self.die(worker, "crash")
            if row in self.hanging:
                self.tell(worker, task, slowest_s=self.now)
                return None
            self.journal[row] = "ok"
        todo = [row for row in self.rows(task) if row not in self.journal]
        if todo:
            return self.tell(worker, task, slowest_s=0.5)
        self.workers[worker].remove(task)
        sealed = task.rows is None
        if sealed:
            self.sealed[task.shard] += 1
        report = TaskReport(
            shard=task.shard, counts=self.counts(task), complete=True, sealed=sealed, spent=self.spent(task)
        )
        return self.perform(self.scheduler.on(Finished(worker, task.id, report), self.now))

    def counts(self, task: Task) -> dict[Status, int]:
        return {"ok": sum(row in self.journal for row in self.rows(task)), "failed": 0, "quarantined": 0}

    def spent(self, task: Task) -> Spent:
        return Spent(images={"ok": sum(self.journal.get(row) == "ok" for row in self.rows(task))})

    def tell(self, worker: int, task: Task, slowest_s: float) -> None:
        progress = TaskProgress(
            task=task.id, counts=self.counts(task), in_flight=1, slowest_s=slowest_s, spent=self.spent(task)
        )
        self.perform(self.scheduler.on(Progress(worker, (progress,)), self.now))

    def run(self, ticks: int = 100_000) -> Simulation:
        self.perform(self.scheduler.begin(self.now))
        for _ in range(ticks):
            if self.scheduler.finished or self.aborted is not None:
                return self
            self.tick()
        raise AssertionError("did not finish")


def test_a_quiet_job_seals_every_shard_once() -> None:
    done = Simulation(shards=7, size=5).run()
    assert done.sealed == dict.fromkeys(range(7), 1)
    assert len(done.journal) == 35


def test_a_poison_row_is_quarantined_after_two_deaths_alone() -> None:
    done = Simulation(shards=4, size=10, poison=frozenset({17}), seed=3).run()
    assert done.journal[17] == "quarantined"
    assert done.deaths_alone == {17: 2}
    assert Counter(done.journal.values()) == {"ok": 39, "quarantined": 1}
    assert done.sealed == dict.fromkeys(range(4), 1)


class BrokenPlace(Simulation):
    """The first worker, and each that takes its place, dies of everything, as on a GPU that is broken; others
    die of poison only."""

    def __init__(self, *arguments: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.broken = set[int]()

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Start) and not self.broken & {*self.workers, *self.starting}:
                self.broken.add(action.worker)
        super().perform(actions)

    def work(self, worker: int) -> None:
        if worker in self.broken:
            return self.die(worker, "crash")
        return super().work(worker)


def test_a_gpu_that_is_broken_quarantines_nothing_while_others_work() -> None:
    """A row that killed a worker alone is tried again on one that has got others done."""
    for seed in range(5):
        done = BrokenPlace(shards=6, size=10, poison=frozenset({17}), max_workers=3, seed=seed).run()
        assert done.aborted is None
        assert Counter(done.journal.values()) == {"ok": 59, "quarantined": 1}
        assert done.journal[17] == "quarantined"
        assert done.sealed == dict.fromkeys(range(6), 1)


def test_a_row_that_killed_once_does_not_wait_for_the_jobs_end() -> None:
    """A worker on which others got done gets no more shards until it is free for that row."""
    scheduler = Scheduler([Work(n) for n in range(9)], lambda s: range(s, s + 1), Limits(1, 2, 4, 5.0, 50.0))
    scheduler.begin(0.0)
    mine = [action.task for action in scheduler.on(Ready(0, INFO), 1.0) if isinstance(action, Submit)]
    (other, *_) = [action.task for action in scheduler.on(Ready(1, INFO), 1.0) if isinstance(action, Submit)]
    done = TaskReport(shard=0, counts={"ok": 1}, complete=True, sealed=True, spent=Spent(images={"ok": 1}))
    (more,) = scheduler.on(Finished(0, mine.pop(0).id, done), 2.0)
    assert isinstance(more, Submit), "it has got one done, and has two again"
    mine.append(more.task)

    def dies(worker: int, row: int) -> list[Action]:
        actions = scheduler.on(Died(worker, "crash", "gone", rows=(row,)), 3.0)
        found = list[Action]()
        for action in actions:
            found += [action]
            if isinstance(action, Inspect):
                found += scheduler.inspected(action, (), {}, 3.0)
        return found

    (row,) = range(other.shard, other.shard + 1)
    dies(1, row)
    (probe, *_) = scheduler.on(Ready(2, INFO), 4.0)
    assert isinstance(probe, Submit)
    assert (probe.worker, probe.task.rows, probe.task.probe) == (2, (row,), True)
    assert any(isinstance(action, Strike) for action in dies(2, row))
    given = [action for action in scheduler.on(Ready(3, INFO), 5.0) if isinstance(action, Submit)]
    assert [(action.worker, action.task.probe) for action in given] == [(3, False)] * 2
    assert scheduler.on(Finished(0, mine[0].id, done), 6.0) == [], "it gets no more"
    (probe,) = scheduler.on(Finished(0, mine[1].id, done), 7.0)
    assert isinstance(probe, Submit)
    assert (probe.worker, probe.task.rows, probe.task.probe) == (0, (row,), True)


def test_workers_that_all_are_broken_end_the_job() -> None:
    done = Simulation(shards=6, size=10, outside_kills=1.0).run()
    assert isinstance(done.aborted, WorkersBroken)


def test_a_hanging_row_fails_and_blames_nobody_else() -> None:
    done = Simulation(shards=3, size=8, hanging=frozenset({9})).run()
    assert done.journal[9] == "failed"
    assert Counter(done.journal.values()) == {"ok": 23, "failed": 1}


def test_who_is_told_to_end_gets_nothing_more() -> None:
    """Its last photograph was done after all, before it heard of it: the next one, alone, would be blamed."""
    scheduler = Scheduler([Work(0), Work(1)], lambda s: range(s, s + 1), Limits(1, 2, 4, 5.0, 50.0))
    scheduler.begin(0.0)
    (first,) = scheduler.on(Ready(0, INFO), 1.0)
    scheduler.on(Ready(1, INFO), 1.0)
    (asked,) = scheduler.on(Died(1, "crash", "gone", rows=(1,)), 2.0)
    assert isinstance(asked, Inspect)
    assert scheduler.inspected(asked, [], {}, 2.0) == [Start(2)]
    assert scheduler.tick(9.0) == [Stop(0, "time limit")]
    assert isinstance(first, Submit)
    counts: dict[Status, int] = {"ok": 1, "failed": 0, "quarantined": 0}
    told = TaskProgress(task=first.task.id, counts=counts, in_flight=1, slowest_s=8.5)
    assert scheduler.on(Progress(0, (told,)), 9.0) == []
    assert scheduler.tick(9.0) == [], "that was said before it heard of it"
    report = TaskReport(shard=0, counts=counts, complete=True, sealed=True)
    assert scheduler.on(Finished(0, first.task.id, report), 9.1) == []
    scheduler.on(Died(0, "time limit", "gone", rows=()), 9.2)
    (probe,) = scheduler.on(Ready(2, INFO), 9.3)
    assert isinstance(probe, Submit)
    assert (probe.worker, probe.task.rows, probe.task.probe) == (2, (1,), True)


def test_kills_from_outside_blame_nobody() -> None:
    """As long as they do not hit the same row alone twice."""
    done = Simulation(shards=10, size=10, outside_kills=0.02, seed=5).run()
    assert Counter(done.journal.values()) == {"ok": 100}


def test_a_notice_lets_a_worker_finish_and_costs_nothing() -> None:
    """Workers whose machines are taken away get nothing more, and others are started in their places."""
    for seed in range(20):
        done = Simulation(shards=10, size=10, notices=0.1, seed=seed).run()
        assert Counter(done.journal.values()) == {"ok": 100}
        assert done.sealed == dict.fromkeys(range(10), 1)
        assert done.draining
        assert done.strikes == {}


def test_a_notice_starts_the_next_worker_while_the_last_one_finishes() -> None:
    def rows(shard: int) -> range:
        return range(4 * shard, 4 * shard + 4)

    scheduler = Scheduler([Work(0), Work(1), Work(2)], rows, Limits(1, 1, 4, 5, 50))
    assert scheduler.begin(0) == [Start(0)]
    first, second = scheduler.on(Ready(0, INFO), 0)
    assert isinstance(first, Submit)
    assert isinstance(second, Submit)
    assert scheduler.on(Leaving(0), 1) == [Drain(0), Start(1)]
    (third,) = scheduler.on(Ready(1, INFO), 2)
    assert isinstance(third, Submit)
    assert third.task.shard == 2
    report = TaskReport(shard=0, counts={"ok": 1, "failed": 0, "quarantined": 0}, complete=False, sealed=False)
    (inspect,) = scheduler.on(Finished(0, first.task.id, report), 3)
    assert isinstance(inspect, Inspect)
    assert inspect.cause == "preempted"
    (again,) = scheduler.inspected(inspect, [0], {}, 3)
    assert isinstance(again, Submit)
    assert (again.worker, again.task.rows, again.task.attempts) == (1, (1, 2, 3), 1)
    inspect, gone = scheduler.on(Finished(0, second.task.id, report), 3)
    assert isinstance(inspect, Inspect)
    assert gone == Stop(0, "stopped"), "it has nothing left to do"
    assert not scheduler.finished
    starting = Scheduler([Work(0)], rows, Limits(1, 2, 4, 5, 50))
    starting.begin(0)
    assert starting.on(Leaving(0), 1) == [Stop(0, "stopped"), Start(1)], "one that was not even ready"


def test_lost_nodes_blame_nobody_however_often() -> None:
    for seed in range(20):
        done = Simulation(shards=4, size=5, node_losses=0.3, seed=seed).run()
        assert Counter(done.journal.values()) == {"ok": 20}
        assert not done.strikes


def test_strikes_on_record_count() -> None:
    """A job that was resumed remembers deaths of the run before."""
    simulation = Simulation(shards=1, size=6, poison=frozenset({2}))
    simulation.strikes[2] = 1
    done = simulation.run()
    assert done.deaths_alone == {2: 1}
    assert done.journal[2] == "quarantined"


def test_only_the_window_is_suspected() -> None:
    simulation = Simulation(shards=1, size=50, window=4, max_workers=1)
    simulation.perform(simulation.scheduler.begin(0.0))
    simulation.tick()
    for row in range(10):
        simulation.journal[row] = "ok"
    submitted: list[Task] = []
    original = simulation.perform

    def watch(actions: list[Action]) -> None:
        submitted.extend(action.task for action in actions if isinstance(action, Submit))
        original(actions)

    simulation.perform = watch  # type: ignore[method-assign]
    simulation.die(next(iter(simulation.workers)), "crash")
    while not simulation.scheduler.finished:
        simulation.tick()
    assert [task.rows for task in submitted if task.probe] == [(10,), (11,), (12,), (13,)]
    (rest,) = [task.rows for task in submitted if not task.probe]
    assert rest == tuple(range(14, 50))
    assert {task.attempts for task in submitted if task.probe} == {2}


def test_a_task_that_fails_three_times_is_left_unfinished() -> None:
    done = Simulation(shards=2, size=3, task_failures=1.0).run()
    assert done.given_up == {0, 1}
    assert done.aborted is None


def test_a_worker_that_cannot_be_built_ends_the_job_with_its_reason() -> None:
    scheduler = Scheduler([Work(0)], lambda _: range(3), Limits(1, 2, 4, 5.0, 50.0))
    (start,) = scheduler.begin(0.0)
    assert isinstance(start, Start)
    (abort,) = scheduler.on(Died(start.worker, "crash", "x", OptionError("weights", "w", reason="bad")), 1.0)
    assert isinstance(abort, Abort)
    assert isinstance(abort.error, OptionError)


def test_workers_that_die_at_the_start_end_the_job() -> None:
    scheduler = Scheduler([Work(0)], lambda _: range(3), Limits(1, 1, 4, 5.0, 50.0))
    actions, starts = scheduler.begin(0.0), 0
    while isinstance(actions[0], Start):
        starts += 1
        actions = scheduler.on(Died(actions[0].worker, "crash", "segfault"), 1.0)
    assert starts == 3
    assert isinstance(actions[0], Abort)
    assert isinstance(actions[0].error, WorkersBroken)
    assert "segfault" in str(actions[0].error)


def test_a_machine_where_nothing_starts_neither_ends_the_job_nor_keeps_it_small() -> None:
    """Three starts fail while a worker works: the next ones are tried a minute later. If that worker is lost,
    others are started at once, and only if none of these can start the job ends."""
    scheduler = Scheduler([Work(shard) for shard in range(90)], lambda _: range(3), Limits(1, 2, 4, 99.0, 50.0))
    starts = [action.worker for action in scheduler.begin(0.0) if isinstance(action, Start)]
    assert starts == [0, 1]
    scheduler.on(Ready(0, INFO), 1.0)
    for worker in (1, 2):
        (start,) = scheduler.on(Died(worker, "crash", "broken"), 2.0)
        assert start == Start(worker + 1)
    assert scheduler.on(Died(3, "crash", "broken"), 3.0) == []
    assert scheduler.tick(62.0) == []
    assert scheduler.tick(63.0) == [Start(4)]
    for worker in (4, 5):
        assert scheduler.on(Died(worker, "crash", "broken"), 64.0) == [Start(worker + 1)]
    assert scheduler.on(Died(6, "crash", "broken"), 64.0) == []

    first, second, *actions = scheduler.on(Died(0, "node lost", "spot taken"), 65.0)
    assert isinstance(first, Inspect)
    assert isinstance(second, Inspect)
    assert actions == [Start(7), Start(8)]
    assert scheduler.on(Died(7, "crash", "broken"), 66.0) == [Start(9)]
    assert scheduler.on(Died(8, "crash", "broken"), 66.0) == [Start(10)]
    assert scheduler.on(Died(9, "crash", "broken"), 66.0) == []
    (abort,) = scheduler.on(Died(10, "crash", "broken"), 66.0)
    assert isinstance(abort, Abort)
    assert "workers cannot start: broken" in str(abort.error)


def test_workers_that_never_come_end_the_job() -> None:
    scheduler = Scheduler([Work(0)], lambda _: range(3), Limits(1, 1, 4, 5.0, 50.0))
    scheduler.begin(0.0)
    assert scheduler.tick(50.0) == []
    (abort,) = scheduler.tick(50.1)
    assert isinstance(abort, Abort)
    assert "50 s" in str(abort.error)


def test_deaths_without_any_progress_end_the_job() -> None:
    """Every row kills: the workers are broken, and the collection is not quarantined row by row."""
    done = Simulation(shards=40, size=10, poison=frozenset(range(400)), window=14).run()
    assert isinstance(done.aborted, WorkersBroken)
    assert sum(status == "quarantined" for status in done.journal.values()) <= 5


def test_hosts_that_are_lost_again_and_again_end_the_job() -> None:
    """And nobody is blamed."""
    scheduler = Scheduler([Work(0)], lambda _: range(3), Limits(1, 1, 4, 5.0, 50.0))
    actions, losses = scheduler.begin(0.0), 0
    while not isinstance(actions[0], Abort):
        (start,) = (action for action in actions if isinstance(action, Start))
        scheduler.on(Ready(start.worker, INFO), 1.0)
        inspect, *actions = scheduler.on(Died(start.worker, "host lost", "no memory"), 1.0)
        losses += 1
        if isinstance(inspect, Abort):
            break
        assert isinstance(inspect, Inspect)
        more = scheduler.inspected(inspect, (), {}, 1.0)
        assert not any(isinstance(action, Strike) for action in more)
        actions = [*actions, *more]
    assert losses == 100


def test_only_what_a_worker_was_at_is_suspected_if_that_is_known() -> None:
    scheduler = Scheduler([Work(0)], lambda _: range(20), Limits(1, 1, 9, 5.0, 50.0))
    scheduler.begin(0.0)
    scheduler.on(Ready(0, INFO), 1.0)
    first, *_ = scheduler.on(Died(0, "crash", "gone", rows=(7, 9, 99)), 2.0)
    assert isinstance(first, Inspect)
    scheduler.inspected(first, {0, 1, 2, 9}, {}, 3.0)  # 9 is in the journal, so it was done
    actions = scheduler.on(Ready(1, INFO), 4.0)
    assert [action.task.rows for action in actions if isinstance(action, Submit)] == [(7,)]


def test_what_a_worker_had_besides_is_not_suspected() -> None:
    """It has two shards: that in which it was at nothing goes back as it is."""
    scheduler = Scheduler(
        [Work(0), Work(1)], lambda shard: range(20 * shard, 20 * shard + 20), Limits(1, 1, 9, 5.0, 50.0)
    )
    scheduler.begin(0.0)
    tasks = [action for action in scheduler.on(Ready(0, INFO), 1.0) if isinstance(action, Submit)]
    assert [action.task.shard for action in tasks] == [0, 1]
    for inspect in scheduler.on(Died(0, "crash", "gone", rows=(7,)), 2.0):
        if isinstance(inspect, Inspect):
            scheduler.inspected(inspect, (), {}, 3.0)
    actions = scheduler.on(Ready(1, INFO), 4.0)
    assert [action.task.rows for action in actions if isinstance(action, Submit)] == [(7,)]
    finished = TaskReport(shard=0, counts={"ok": 1}, complete=True, sealed=False)
    actions = scheduler.on(Finished(1, actions[0].task.id, finished), 5.0)
    rows = [len(action.task.rows or ()) for action in actions if isinstance(action, Submit)]
    assert sorted(rows) == [19, 20]


def test_a_few_rows_that_kill_at_the_end_are_no_broken_workers() -> None:
    """However many deaths they cost: it takes different photographs."""
    done = Simulation(shards=1, size=9, poison=frozenset(range(9)), window=14).run()
    assert done.aborted is None
    assert Counter(done.journal.values()) == {"quarantined": 9}


def test_workers_that_are_there_do_not_wait_for_others() -> None:
    scheduler = Scheduler([Work(n) for n in range(4)], lambda s: range(s, s + 1), Limits(1, 3, 4, 5.0, 50.0))
    starts = scheduler.begin(0.0)
    assert len(starts) == 3
    actions = scheduler.on(Ready(1, INFO), 1.0)
    assert [type(action) for action in actions] == [Submit, Submit]
    actions = scheduler.on(Ready(0, INFO), 1.0)
    assert [type(action) for action in actions] == [Submit]


def test_idle_workers_are_released_at_the_end() -> None:
    scheduler = Scheduler([Work(0), Work(1)], lambda s: range(s, s + 1), Limits(1, 2, 4, 5.0, 50.0))
    scheduler.begin(0.0)
    (first,) = scheduler.on(Ready(0, INFO), 1.0)
    (second,) = scheduler.on(Ready(1, INFO), 1.0)
    assert isinstance(first, Submit)
    assert isinstance(second, Submit)
    report = TaskReport(shard=0, counts={"ok": 1, "failed": 0, "quarantined": 0}, complete=True, sealed=True)
    assert scheduler.on(Finished(0, first.task.id, report), 2.0) == [Stop(0, "stopped")]
    assert not scheduler.finished


def test_stopped_submits_nothing_and_finishes_with_what_runs() -> None:
    scheduler = Scheduler([Work(n) for n in range(9)], lambda s: range(s, s + 1), Limits(1, 1, 4, 5.0, 50.0))
    scheduler.begin(0.0)
    submits = scheduler.on(Ready(0, INFO), 1.0)
    scheduler.stop()
    report = TaskReport(shard=0, counts={"ok": 1, "failed": 0, "quarantined": 0}, complete=False, sealed=False)
    for submit in submits:
        assert isinstance(submit, Submit)
        assert not scheduler.finished
        assert scheduler.on(Finished(0, submit.task.id, report), 2.0) == []
    assert scheduler.finished


class Recorded(Simulation):
    """Keeps the tasks."""

    tasks: list[Task]

    def perform(self, actions: list[Action]) -> None:
        self.__dict__.setdefault("tasks", []).extend(a.task for a in actions if isinstance(a, Submit))
        super().perform(actions)


def test_the_last_shards_are_given_out_in_parts_and_sealed_whole() -> None:
    done = Recorded(shards=12, size=32, max_workers=4)
    done.run()
    parts = [task for task in done.tasks if task.rows is not None]
    in_parts = {task.shard for task in parts}
    assert len(done.tasks[0].rows or ()) == 12, "an eighth of a fair share of 384 rows"
    assert min(len(task.rows or ()) for task in parts) == 1, "the last ones"
    assert sorted(row for task in parts for row in task.rows or ()) == [
        row for shard in sorted(in_parts) for row in done.shard_rows(shard)
    ]
    whole = [task for task in done.tasks if task.rows is None]
    assert sorted(task.shard for task in whole) == list(range(12)), "one receipt for each"
    assert {task.shard for task in whole if task.sealing} == in_parts
    assert done.sealed == dict.fromkeys(range(12), 1)


def test_parts_are_whole_batches() -> None:
    scheduler = Scheduler(
        [Work(0), Work(1)], lambda s: range(64 * s, 64 * s + 64), Limits(1, 2, 4, 5.0, 50.0, 5)
    )
    scheduler.begin(0.0)
    actions = scheduler.on(Ready(0, INFO), 1.0)
    rows = [action.task.rows for action in actions if isinstance(action, Submit)]
    assert rows == [tuple(range(10)), tuple(range(10, 20))]  # 128 / (8 * 2) = 8, and so on


def test_one_worker_does_shards_whole() -> None:
    done = Recorded(shards=3, size=32, max_workers=1)
    done.run()
    assert [(task.shard, task.rows) for task in done.tasks] == [(0, None), (1, None), (2, None)]


def test_a_part_that_is_lost_is_done_by_another() -> None:
    for seed in range(20):
        done = Simulation(
            shards=6, size=40, node_losses=0.1, outside_kills=0.02, max_workers=4, seed=seed
        ).run()
        assert done.sealed == dict.fromkeys(range(6), 1), seed
        assert len(done.journal) == 240


class Unread(dict[int, Any]):
    """Of which one looks up one entry, and never all."""

    def __iter__(self) -> NoReturn:
        raise AssertionError("all workers were looked at")

    values = items = keys = __iter__  # type: ignore[assignment]


def test_news_of_one_worker_do_not_make_it_look_at_all() -> None:
    """With a thousand of them there are a thousand news a second."""
    scheduler = Scheduler([Work(n) for n in range(999)], lambda s: range(s, s + 1), Limits(1, 99, 4, 5.0, 50.0))
    scheduler.begin(0.0)
    submits = [action for worker in range(99) for action in scheduler.on(Ready(worker, INFO), 1.0)]
    scheduler._workers._states = Unread(scheduler._workers._states)
    for submit in submits:
        assert isinstance(submit, Submit)
        counts: dict[Status, int] = {"ok": 1, "failed": 0, "quarantined": 0}
        progress = TaskProgress(task=submit.task.id, counts=counts, in_flight=1, slowest_s=0.1)
        assert scheduler.on(Progress(submit.worker, (progress,)), 2.0) == []
        report = TaskReport(shard=submit.task.shard, counts=counts, complete=True, sealed=True)
        (more,) = scheduler.on(Finished(submit.worker, submit.task.id, report), 3.0)
        assert isinstance(more, Submit)
        assert more.worker == submit.worker
    assert scheduler.ready_workers == 99
    assert not scheduler.finished
    assert scheduler.tick(3.5) == []


@given(
    shards=st.integers(1, 6),
    size=st.integers(1, 12),
    workers=st.integers(1, 4),
    window=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_every_row_ends_exactly_once(
    shards: int, size: int, workers: int, window: int, seed: int, data: st.DataObject
) -> None:
    """Whatever dies: all shards sealed once, only poison rows quarantined, only hanging rows timed out."""
    rows = range(shards * size)
    bad = data.draw(st.sets(st.sampled_from(rows), max_size=min(3, len(rows))))
    hanging = frozenset(list(bad)[:1])
    poison = frozenset(bad) - hanging
    done = Simulation(
        shards,
        size,
        poison=poison,
        hanging=hanging,
        max_workers=workers,
        window=window,
        seed=seed,
        node_losses=0.02,
    ).run()
    assert done.aborted is None
    assert set(done.journal) == set(rows)
    assert done.sealed == dict.fromkeys(range(shards), 1)
    for row, status in done.journal.items():
        expected = "quarantined" if row in poison else "failed" if row in hanging else "ok"
        assert status == expected
    assert all(done.deaths_alone[row] == 2 for row in poison)
