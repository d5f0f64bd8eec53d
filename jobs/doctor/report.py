"""All of it, one after the other: what was found is handed on as soon as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.doctor.advice import Advice, advise, check_gpus, per_hour
from jobs.doctor.facts import Check, Device, Machine, Quality, attempt
from jobs.doctor.places import check_store
from jobs.doctor.text import (
    describe_advice,
    describe_check,
    describe_cluster,
    describe_device,
    describe_machine,
)
from jobs.pools.capacity import Capacity
from jobs.stores.store import Store

__all__ = ["Report", "examined"]


@dataclass(slots=True)
class Report:
    """What was found."""

    machine: Machine
    checks: list[Check] = field(default_factory=list)
    """Checks of the machine, the cluster and the output's place; devices have their own."""
    devices: list[Device] = field(default_factory=list)
    cluster: Capacity | None = None
    advice: Advice | None = None
    photographs_per_hour: dict[Quality, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(check.ok for check in (*self.checks, *(each for it in self.devices for each in it.checks)))

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {"ok": self.ok, **asdict(self)}


def examined(
    machine: Machine,
    look_at: Callable[[str], Device],
    *,
    cluster: Callable[[], Capacity] | None = None,
    store: Store | None = None,
    say: Callable[[str], None],
) -> Report:
    """Check a machine, and advise.

    Args:
        look_at: examines a device by its name.
        cluster: what a cluster has, if one is asked for.
        store: where a job is to be kept, if that is asked for.
        say: is told each line when it is known.
    """
    report = Report(machine)
    for line in describe_machine(machine):
        say(line)

    def keep(*checks: Check) -> None:
        report.checks += checks
        for check in checks:
            say(describe_check(check))

    gpus = check_gpus(machine)
    if gpus is not None:
        keep(gpus)
    if cluster is not None:

        def ask() -> tuple[bool, str]:
            report.cluster = cluster()
            return True, describe_cluster(report.cluster)

        keep(attempt("cluster", ask))
    if store is not None:
        keep(*check_store(store))
    for name in [f"cuda:{number}" for number in range(machine.gpus)] or ["cpu"]:
        say("")
        device = look_at(name)
        report.devices.append(device)
        for line in describe_device(device):
            say(line)
    report.advice = advise(machine, report.devices)
    report.photographs_per_hour = per_hour(report.advice, report.devices)
    say("")
    for line in describe_advice(report.advice, report.photographs_per_hour, report.devices):
        say(line)
    return report
