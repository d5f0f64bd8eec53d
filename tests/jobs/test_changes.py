"""Options that are changed while a training goes on: recorded, with nothing lost and nothing done twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.console.stop import StopSignal
from jobs.errors import JobMismatch, TrainingDiverged, UsageError, exit_code_of
from jobs.stores.store import LocalStore
from jobs.training.changes import read_changes
from jobs.training.driver import TrainSummary, _Run
from jobs.training.job import TrainJob, record_change, reopen_training
from jobs.training.layout import (
    STOP,
    change_path,
    checkpoint_path,
    checkpoint_steps,
    generator_steps,
    read_done,
    read_evaluations,
    snapshot_steps,
)
from jobs.training.loop import train
from jobs.training.metrics import means, read_metrics, read_part, write_metrics, write_part
from jobs.training.report import build_training_report
from jobs.training.snapshot import publish_snapshot
from jobs.training.status import train_status
from nst.cyclegan.training import CycleGANTraining
from nst.errors import OptionError
from tests.jobs.test_training import TINY, Killed, begun, curve, nst, photos, setup

__all__ = ["photos"]  # the fixture
RATE = 2e-4


def stopped_after(job: TrainJob, step: int) -> None:
    """Train until there is a checkpoint after this step, and no further."""
    job.store.publish(STOP, b"")
    while train(setup(job)) < step:
        pass
    job.store.remove(STOP)
    assert max(checkpoint_steps(job.store)) == step


def changed(job: TrainJob, **model: Any) -> TrainJob:
    return record_change(reopen_training(job.store, overrides={"model": model}))


@pytest.mark.slow  # quick: the contract of recipes
@pytest.mark.parametrize("rate", [1e39, 1e30], ids=["at once", "later"])
def test_a_training_that_diverged_goes_on_with_another_learning_rate(photos: Path, rate: float) -> None:
    """And as if it had never diverged, if it gets its old one back: from an earlier checkpoint, if the newest
    is removed."""
    whole = begun(photos, output=str(photos / "whole"))
    train(setup(whole))
    job = begun(photos)
    stopped_after(job, 3)
    record = job.store.read("job.json")
    with pytest.raises(TrainingDiverged) as caught:
        train(setup(changed(job, learning_rate=rate)))
    text = str(caught.value)
    assert exit_code_of(caught.value) == 6
    newest = max(checkpoint_steps(job.store))
    assert newest == (3 if rate == 1e39 else 4)
    assert f"of step {newest}, and would diverge again unless" in text
    assert "model.learning_rate, " in text
    with pytest.raises(TrainingDiverged):
        train(setup(reopen_training(job.store)))
    if newest > 3:
        job.store.remove(checkpoint_path(newest))
    mended = changed(job, learning_rate=RATE)
    assert train(setup(mended)) == 12

    rows = curve(job.store)
    assert [row.pop("change", None) for row in rows] == [None] * 3 + [2] * 9
    assert rows == curve(whole.store)
    first, second = read_changes(job.store)
    assert (first.number, first.step, second.number, second.step) == (1, 3, 2, 3)
    assert (first.options["model.learning_rate"].before, first.options["model.learning_rate"].after) == (
        RATE,
        rate,
    )
    assert job.store.read("job.json") == record
    assert train(setup(reopen_training(job.store))) == 12, "and can be reopened from its folder alone"


def test_a_step_that_ends_in_numbers_that_are_none_makes_no_checkpoint(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its losses are those of the parameters before it: the next step would fail from the checkpoint, whatever
    the options."""
    job = begun(photos)
    step = CycleGANTraining.step

    def poisoned(training: CycleGANTraining, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        losses = step(training, images)
        if training.steps == 8:
            with torch.no_grad():
                next(training.G_A.parameters()).fill_(torch.nan)
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(CycleGANTraining, "step", poisoned)
        with pytest.raises(
            TrainingDiverged, match=r"parameters are not finite after step 8\. .* of step 4, and"
        ):
            train(setup(job))
    assert checkpoint_steps(job.store) == [4]
    assert train(setup(job)) == 12


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"model": {"norm": "batch"}}, r"model\.norm: 'instance' in the folder, 'batch' asked for"),
        ({"model": {"learning_rate": 1e-5, "beta1": 0.9}}, r"model\.beta1: 0\.5 in the folder, 0\.9 asked for"),
        ({"schedule": {"lr_policy": "cosine"}}, r"schedule\.lr_policy: 'linear' in the folder"),
    ],
    ids=str,
)
def test_other_options_are_refused_with_the_difference(
    photos: Path, overrides: dict[str, Any], said: str
) -> None:
    job = begun(photos)
    with pytest.raises(JobMismatch, match=said) as caught:
        reopen_training(job.store, overrides=overrides)
    assert "can change model.penalty, model.penalty_weight" in str(caught.value)
    assert not read_changes(job.store)


def test_a_job_file_changes_nothing_by_itself(photos: Path) -> None:
    """It may be older than the change."""
    job = begun(photos)
    changed(job, lambda_identity=0.1)
    said = r"model\.lambda_identity: 0\.1 in the folder, 0\.5 asked for\n`nst resume OUT --set NAME=VALUE`"
    with pytest.raises(JobMismatch, match=said):
        begun(photos)
    model = {**TINY, "pool_size": 3, "ema_decay": 0.5, "lambda_identity": 0.1}
    assert begun(photos, model=model).changes == read_changes(job.store)


def test_what_was_changed_is_said_by_status_and_report(photos: Path) -> None:
    job = begun(photos)
    stopped_after(job, 2)
    train(setup(changed(job, lambda_a=5.0, precision="bfloat16")))
    code, shown = nst("status", job.store.url)
    said = "changed after step 2: model.lambda_a 10.0 -> 5.0, model.precision 'float32' -> 'bfloat16'"
    assert (code, said in " ".join(shown.split())) == (0, True), shown
    status = json.loads(nst("status", job.store.url, "--json")[1])
    assert status["changes"][0]["options"]["model.lambda_a"] == {"before": 10.0, "after": 5.0}
    assert publish_snapshot(job.store)[0] == 12
    html = build_training_report(job.store)
    for text in ("Changed options", "<td>2</td><td>model.lambda_a</td><td>10.0</td><td>5.0</td>"):
        assert text in html, text


def test_losses_that_come_and_go_with_an_option_are_in_the_metrics(photos: Path) -> None:
    job = begun(photos)
    stopped_after(job, 2)
    job = changed(job, lambda_identity=0.0, penalty="r1")
    train(setup(job))
    rows = read_metrics(job.store)
    assert ["identity_A" in row for row in rows] == [True] * 2 + [False] * 10
    assert ["penalty_A" in row for row in rows] == [False] * 2 + [True] * 10
    found = means(rows)
    assert found["penalty_A"] == pytest.approx(sum(row["penalty_A"] for row in rows[2:]) / 10)
    assert "change" not in found
    assert "identity_A" in build_training_report(job.store)
    assert len(write_metrics(rows)) > 0


# The end of the schedule


def finish(job: TrainJob) -> Mapping[str, Any]:
    """As the driver does when all steps are done."""
    run = _Run(job, lambda _: None, StopSignal(), None)
    run._take_up_last_end()
    train(setup(job))
    return run._finish()


def test_a_complete_training_is_made_longer(photos: Path) -> None:
    schedule = {"n_epochs": 2, "n_epochs_decay": 1}
    whole = begun(photos, output=str(photos / "whole"), schedule=schedule)
    assert finish(whole)["steps"] == 18
    job = begun(photos)
    first = finish(job)
    assert train_status(job.store).state == "complete"
    with pytest.raises(OptionError, match=r"model\.learning_rate = 1e-05: the training is complete; a greater"):
        changed(job, learning_rate=1e-5)
    assert not read_changes(job.store)

    job = record_change(reopen_training(job.store, overrides={"schedule": schedule}))
    assert (train_status(job.store).state, read_done(job.store)) == ("unfinished", None)
    assert train_status(job.store).to_json()["exit_code"] == 4
    done = finish(job)
    assert (done["steps"], done["changes"]) == (18, 1)
    assert train_status(job.store).state == "complete"
    assert [row["step"] for row in read_metrics(job.store)] == list(range(1, 19))
    rates = [row["learning_rate"] for row in read_metrics(job.store)]
    assert rates[12] == pytest.approx([row["learning_rate"] for row in read_metrics(whole.store)][12])
    assert done["sha256"] != first["sha256"]
    assert generator_steps(job.store) == []
    assert reopen_training(job.store).asked is None


def test_a_training_cannot_be_made_shorter(photos: Path) -> None:
    job = begun(photos)
    for schedule in ({"n_epochs": 0}, {"n_epochs_decay": 0}):
        (name,) = schedule
        with pytest.raises(
            OptionError, match=rf"^schedule\.{name} = 0: .*are 2 together, and can only become more"
        ):
            reopen_training(job.store, overrides={"schedule": schedule})
    assert reopen_training(job.store, overrides={"schedule": {"n_epochs": 2, "n_epochs_decay": 0}}).steps == 12


@pytest.mark.slow
def test_generators_that_a_training_ended_with_stay_the_best_ones_if_they_are(photos: Path) -> None:
    log = {"metrics_every": 2, "checkpoint_every": 4, "keep_every": 3}
    job = begun(photos, evaluation={"every": 6, "layer": "relu1_1"}, log=log)
    train(setup(job))
    for step, distance in ((6, 1.0), (12, 2.0)):
        job.store.publish(f"evaluations/step-{step:09d}.json", json.dumps({"fid_A2B": distance}).encode())
    run = _Run(job, lambda _: None, StopSignal(), None)
    run._forget_generators(read_evaluations(job.store))
    first = run._finish()
    assert first["step"] == 6
    assert snapshot_steps(job.store) == [3, 6, 9, 12], "which no clean-up removes"
    longer = {"schedule": {"n_epochs": 2}}
    job = record_change(reopen_training(job.store, overrides=longer))
    run = _Run(job, lambda _: None, StopSignal(), None)
    run._take_up_last_end()
    train(setup(job))
    job.store.publish("evaluations/step-000000018.json", json.dumps({"fid_A2B": 3.0}).encode())
    done = run._finish()
    assert (done["step"], done["sha256"]) == (6, first["sha256"])


# Interrupted, and in another's way


@pytest.mark.slow  # fast ones: without a change in test_training.py, and the others here
def test_killed_at_any_write_after_a_change_it_ends_as_if_it_was_not(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first writes are those of the record, and of what is forgotten for it."""

    def prepared(name: str) -> TrainJob:
        job = begun(photos, output=str(photos / name))
        stopped_after(job, 3)
        # Two steps that were done after the newest checkpoint, and are to be done again otherwise.
        rows = [
            {**row, "step": 4, "cycle_A": 99.0}
            for row in read_part(job.store.read("metrics/step-000000003.jsonl"))
        ]
        job.store.publish("metrics/step-000000005.jsonl", write_part([*rows, {**rows[-1], "step": 5}]))
        return job

    def change(store: LocalStore) -> TrainJob:
        asks = not read_changes(store)
        overrides = {"model": {"learning_rate": 1e-5}} if asks else None
        return record_change(reopen_training(store, overrides=overrides))

    whole = prepared("whole")
    train(setup(change(whole.store)))  # type: ignore[arg-type]
    expected = curve(whole.store)
    assert [row.get("change") for row in expected] == [None] * 3 + [1] * 9
    assert max(row["cycle_A"] for row in expected) < 99

    job = prepared("killed")
    publish, remove, writes, at, kills = LocalStore.publish, LocalStore.remove, 0, 0, 0

    def deadly(action: Any) -> Any:
        def acted(store: LocalStore, path: str, *arguments: Any, **options: Any) -> None:
            nonlocal writes
            if path.startswith((".tmp", STOP)):
                action(store, path, *arguments, **options)
                return
            writes += 1
            if writes == at:
                raise Killed
            action(store, path, *arguments, **options)

        return acted

    monkeypatch.setattr(LocalStore, "publish", deadly(publish))
    monkeypatch.setattr(LocalStore, "remove", deadly(remove))
    for at in range(1, 40):  # noqa: B007  read by `deadly`
        writes = 0
        try:
            train(setup(change(job.store)))  # type: ignore[arg-type]
        except Killed:
            kills += 1
            continue
        break
    assert kills >= 4
    assert curve(job.store) == expected
    assert [change.step for change in read_changes(job.store)] == [3]


def test_two_who_change_at_once_are_told(photos: Path) -> None:
    job = begun(photos)
    one, two, unchanged = (
        reopen_training(job.store, overrides=each)
        for each in ({"model": {"lambda_a": 5.0}}, {"model": {"lambda_b": 5.0}}, None)
    )
    record_change(one)
    for late in (two, unchanged):
        with pytest.raises(JobMismatch, match="changed by another `nst resume` meanwhile"):
            record_change(late)
    assert [list(change.options) for change in read_changes(job.store)] == [["model.lambda_a"]]


def test_checkpoints_are_those_of_the_change_that_they_were_made_with(photos: Path) -> None:
    job = begun(photos)
    stopped_after(job, 3)
    foreign = job.store.read(checkpoint_path(3))
    job = changed(job, lambda_a=5.0)
    job.store.publish(checkpoint_path(5), foreign)  # by a process that does not know yet
    with pytest.raises(JobMismatch, match=r"step-000000005\.pt is not a checkpoint of this training"):
        train(setup(job))


def test_changes_that_were_tampered_with_are_refused(photos: Path) -> None:
    job = changed(begun(photos), lambda_a=5.0)
    text = job.store.read(change_path(1)).decode()
    job.store.publish(change_path(1), text.replace("5.0", "6.0").encode())
    with pytest.raises(JobMismatch, match="a change or a manifest was changed since"):
        reopen_training(job.store)
    job.store.publish(change_path(1), b"{}")
    with pytest.raises(UsageError, match=r"changes/000001\.json is damaged"):
        train_status(job.store)
    job.store.remove(change_path(1))
    job.store.publish(change_path(2), text.encode())
    with pytest.raises(JobMismatch, match=r"000001\.json is missing"):
        reopen_training(job.store)


# The command


def test_the_command_says_how_to_go_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = begun(photos)
    error = TrainingDiverged("the training diverged: loss D_A is nan in step 7")
    seen: list[TrainJob] = []

    def run(job: TrainJob, **_: Any) -> TrainSummary:
        seen.append(job)
        return TrainSummary(job.steps, None, error=error)

    monkeypatch.setattr("jobs.training.driver.run_training", run)
    code, shown = nst("resume", job.store.url, "--set", "model.learning_rate=1e-4")
    assert code == 6, shown
    assert seen[0].asked is not None
    assert seen[0].asked.options["model.learning_rate"].after == 1e-4
    assert "loss D_A is nan in step 7" in shown
    assert f"go on with: nst resume {job.store.url} --set model.learning_rate=1e-05" in shown.replace("\n", " ")
    for name, said in (
        ("model.norm=batch", "model.norm: 'instance' in the folder, 'batch' asked for"),
        ("data.flip=false", "data.flip: True in the folder, False asked for"),
    ):
        code, shown = nst("resume", job.store.url, "--set", name)
        assert (code, said in shown) == (2, True), shown
