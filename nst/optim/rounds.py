"""The loop in which photographs are optimized, by descent or by ascent.

Each is a task that asks for evaluations, and what all of them ask for is answered together, so that they can
share passes through a network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

__all__ = ["run_together"]

Q = TypeVar("Q")
A = TypeVar("A")


def run_together(
    tasks: Sequence[Generator[Q, A, None]],
    evaluate: Callable[[Sequence[Q]], Sequence[A]],
    has_room: Callable[[Sequence[Q]], bool] = lambda _: True,
) -> Iterator[None]:
    """Run tasks that yield requests and are sent the answers; yields after every round of `evaluate`.

    Args:
        evaluate: requests of all tasks that are under way to their answers, in the same order.
        has_room: whether tasks with these requests may be under way at once. A task that ends leaves its place
            to the next one; at least one is always under way.
    """
    waiting = deque(tasks)
    active: list[tuple[Generator[Q, A, None], Q]] = []
    held: list[tuple[Generator[Q, A, None], Q]] = []  # begun, and too large for now
    while True:
        while held or waiting:
            if not held:
                task = waiting.popleft()
                request = next(task, None)
                if request is None:
                    continue
                held.append((task, request))
            if active and not has_room([request for _, request in (*active, *held)]):
                break
            active.append(held.pop())
        if not active:
            return
        answers = deque(evaluate([request for _, request in active]))
        going: list[tuple[Generator[Q, A, None], Q]] = []
        for task, _ in active:
            try:
                going.append((task, task.send(answers.popleft())))  # none is kept while the next are computed
            except StopIteration:
                continue
        active = going
        yield
