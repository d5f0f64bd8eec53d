"""What every recipe of a training and its trainer must do."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jobs.cli.options import options_of
from jobs.driver.assets import by_url, read_assets
from jobs.errors import TrainingDiverged
from jobs.training.checkpoints import checkpoint_bytes
from jobs.training.job import TrainJob, create_or_open_training, record_change, reopen_training
from jobs.training.job_file import train_from_table, train_to_table
from jobs.training.layout import STOP, checkpoint_path, generator_path, snapshot_path
from jobs.training.loop import LoopSetup, train
from jobs.training.metrics import read_metrics
from jobs.training.recipes import TRAININGS, Recipe, Trainer
from jobs.training.snapshot import publish_snapshot
from jobs.training.status import train_status
from nst.errors import OptionError
from nst.features import read_state_dict
from nst.gan.sampling import Preprocessing
from nst.gan.schedule import Schedule, Scheduler

CPU = torch.device("cpu")
SIDE = 16


def batch(choices: int, seed: int = 0, count: int = 2, side: int = SIDE) -> list[Tensor]:
    """Images (count, 3, side, side) in [-1, 1] for each of a sample's choices."""
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.rand(count, 3, side, side, generator=generator) - 1 for _ in range(choices)]


def reread(state: dict[str, Any]) -> dict[str, Any]:
    """A state as a checkpoint gives it back: through a file that holds tensors and plain values only."""
    file = io.BytesIO()
    torch.save(state, file)
    found: dict[str, Any] = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    return found


class RecipeContract:
    """Inherit, say the `KIND` and the `CLASS`, and provide the fixture `table`: a job file's options of a small
    training, with a table `model` that has no kind."""

    KIND: str
    CLASS: type[Recipe] | None = None
    """The recipe; None: the registry's."""

    @pytest.fixture
    def recipe(self, table: dict[str, Any]) -> Recipe:
        return (self.CLASS or TRAININGS[self.KIND]).read(table, Path("/"))

    @pytest.fixture
    def choices(self, recipe: Recipe) -> int:
        return len(recipe.choose(0, dict.fromkeys(recipe.collections, 5), 0))

    @staticmethod
    def build(recipe: Recipe) -> Trainer:
        trainer = recipe.build(seed=3, device=CPU)
        recipe.equip(trainer, by_url(read_assets(recipe, table="model")))
        return trainer

    # The description

    def test_is_frozen_and_comes_back_from_pickle_and_from_a_job_file(self, recipe: Any) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.model = recipe.model
        assert pickle.loads(pickle.dumps(recipe)) == recipe
        assert type(recipe).read(json.loads(json.dumps(recipe.table())), Path("/elsewhere")) == recipe

    def test_every_option_is_documented(self, recipe: Recipe) -> None:
        for cls in (type(recipe), recipe.model_options()):
            silent = [option.name for option in options_of(cls) if not option.help]
            assert not set(silent) - recipe.also_read

    def test_samples_are_of_its_collections_and_all_photographs_come(self, recipe: Recipe) -> None:
        photos = {name: 3 + number for number, name in enumerate(recipe.collections)}
        largest = max(photos, key=lambda name: photos[name])
        seen: set[int] = set()
        for sample in range(recipe.epoch_samples(photos[largest])):
            chosen = recipe.choose(sample, photos, 1)
            assert chosen == recipe.choose(sample, photos, 1)
            assert all(0 <= each.place < photos[each.collection] for each in chosen)
            seen |= {each.place for each in chosen if each.collection == largest}
        assert seen == set(range(photos[largest]))

    # What it builds

    def test_equal_arguments_build_equal_trainers(self, recipe: Recipe, choices: int) -> None:
        torch.manual_seed(1)
        one = self.build(recipe)
        torch.manual_seed(2)
        two = self.build(recipe)
        assert one.file_bytes() == two.file_bytes()
        torch.manual_seed(3)
        first = one.step(batch(choices))
        torch.manual_seed(4)
        assert one.step(batch(choices, 1)).keys() == first.keys()
        assert two.step(batch(choices)) == first, "torch's own generator has no part in it"

    def test_a_step_trains_and_leaves_the_images_alone(self, recipe: Recipe, choices: int) -> None:
        trainer = self.build(recipe)
        before, images = trainer.file_bytes(), batch(choices)
        losses = trainer.step(images)
        assert all(torch.equal(image, old) for image, old in zip(images, batch(choices), strict=True))
        assert losses
        assert all(value.ndim == 0 and not value.requires_grad for value in losses.values())
        assert all(bool(value.isfinite()) for value in losses.values())
        assert trainer.file_bytes() != before
        numbers = {name: float(value) for name, value in losses.items()}
        assert isinstance(trainer.plateau_loss(numbers), float)
        groups = recipe.grouped(numbers)
        assert "loss" in groups
        assert all(math.isfinite(value) for group in groups.values() for value in group.values())

    def test_goes_on_from_a_checkpoint_to_the_bit(self, recipe: Recipe, choices: int) -> None:
        whole = self.build(recipe)
        for seed in range(3):
            whole.step(batch(choices, seed))
        state = reread(whole.state_dict())
        again = self.build(recipe)
        again.step(batch(choices, 99))
        again.load_state_dict(state)
        for seed in range(3, 6):
            assert whole.step(batch(choices, seed)) == again.step(batch(choices, seed))
        assert whole.file_bytes() == again.file_bytes()

    def test_its_optimizers_have_rates_that_a_schedule_can_set(self, recipe: Recipe, choices: int) -> None:
        trainer = self.build(recipe)
        trainer.step(batch(choices))
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.0
        state = {name: value.clone() for name, value in self._parameters(trainer).items()}
        trainer.step(batch(choices, 1))
        assert state, "the optimizers have parameters"
        assert self._parameters(trainer).keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in self._parameters(trainer).items())

    @staticmethod
    def _parameters(trainer: Trainer) -> dict[str, Tensor]:
        """All that the optimizers may change, by place."""
        return {
            f"{number}.{place}.{index}": parameter.detach()
            for number, optimizer in enumerate(trainer.optimizers)
            for place, group in enumerate(optimizer.param_groups)
            for index, parameter in enumerate(group["params"])
        }

    def test_its_samples_are_one_picture(self, recipe: Recipe) -> None:
        trainer = self.build(recipe)
        before = trainer.file_bytes()
        photos = {
            name: [image[None] for image in batch(1, number)[0]]
            for number, name in enumerate(recipe.collections)
        }
        picture = trainer.samples(photos, 24)
        assert picture.ndim == 3
        assert picture.shape[0] == 3
        assert picture.shape[1] >= 24
        assert not picture.requires_grad
        assert trainer.file_bytes() == before, "looking changes nothing"
        assert recipe.samples_caption(list(recipe.collections))

    def test_what_it_ends_with_is_a_methods_file(self, recipe: Recipe) -> None:
        asset = recipe.asset("/x.safetensors", "12ab")
        assert (asset.url, asset.sha256, asset.kind) == ("/x.safetensors", "12ab", "weights")
        self.use(asset.option, self.build(recipe).file_bytes())

    def use(self, option: str, data: bytes) -> list[Tensor]:
        """Build the method that takes the file, and stylize with it: pictures."""
        raise NotImplementedError

    # From its start to its end

    def test_crops_that_are_taken_can_be_trained_on(self, recipe: Recipe, choices: int) -> None:
        """The least one, and what is less is refused with a sentence."""
        for side in range(recipe.multiple, 256, recipe.multiple):
            try:
                recipe.check_data(Preprocessing(load_size=side, crop_size=side))
            except OptionError:
                continue
            losses = self.build(recipe).step(batch(choices, side=side))
            assert all(bool(value.isfinite()) for value in losses.values())
            return
        pytest.fail("no crop is taken")

    def test_what_a_short_training_publishes_is_hardly_its_random_start(
        self, recipe: Any, choices: int
    ) -> None:
        """An average over many steps, if there is one, does not hold on to it."""
        start, found = {}, {}
        for decay in (0.0, 0.999):
            options = {"ema_decay": decay} if hasattr(recipe.model, "ema_decay") else {}
            trainer = self.build(replace(recipe, model=replace(recipe.model, **options)))
            start = read_state_dict(trainer.file_bytes())
            for seed in range(6):
                trainer.step(batch(choices, seed))
            found[decay] = read_state_dict(trainer.file_bytes())

        def distance(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
            return sum(float((one[name] - two[name]).abs().double().sum()) for name in one)

        assert distance(found[0.999], found[0.0]) < 0.4 * distance(start, found[0.0])

    def test_goes_on_with_each_option_that_may_change(self, recipe: Any, choices: int) -> None:
        trainer = self.build(recipe)
        for seed in range(2):
            trainer.step(batch(choices, seed))
        state = reread(trainer.state_dict())
        names = [name.removeprefix("model.") for name in recipe.changeable() if name.startswith("model.")]
        assert any(name.endswith("learning_rate") for name in names)
        assert {name for name in recipe.changeable() if not name.startswith("model.")} == {
            "schedule.n_epochs",
            "schedule.n_epochs_decay",
        }
        known = {option.name for option in options_of(recipe.model_options())}
        for name in names:
            assert name in known
            after = {"precision": "bfloat16", "penalty": "r1"}.get(name) or (
                getattr(recipe.model, name) or 0
            ) + 1
            try:
                model = replace(recipe.model, **{name: after})
            except OptionError:  # between gray and color there is no identity loss
                assert name == "lambda_identity"
                continue
            other = self.build(replace(recipe, model=model))
            scheduler = Scheduler(Schedule(), list(other.optimizers))
            other.load_state_dict(state)
            scheduler.begin(0)
            losses = other.step(batch(choices, 2))
            assert all(bool(value.isfinite()) for value in losses.values()), name
            rates = [group["lr"] for optimizer in other.optimizers for group in optimizer.param_groups]
            assert (after in rates) == name.endswith("learning_rate"), name

    @pytest.fixture
    def job(self, table: dict[str, Any], recipe: Recipe, tmp_path: Path) -> TrainJob:
        """A training of six steps, with two photographs in each of its collections."""
        text = json.dumps(table)
        for number, place in enumerate(recipe.collections.values()):
            folder = tmp_path / place.strip("/")
            folder.mkdir()
            for image in range(2):
                levels = np.random.default_rng(10 * number + image).integers(0, 256, (20, 24, 3), np.uint8)
                Image.fromarray(levels).save(folder / f"{image}.png")
            text = text.replace(json.dumps(place), json.dumps(str(folder)))
        given = json.loads(text)
        return self.begun({**given, "model": {**given["model"], "kind": self.KIND}}, tmp_path)

    @staticmethod
    def begun(table: dict[str, Any], folder: Path, output: str = "out", **changes: Any) -> TrainJob:
        standard = {
            "output": str(folder / output),
            "batch_size": 2,
            "data": {"load_size": 18, "crop_size": SIDE},
            "schedule": {"n_epochs": 2, "n_epochs_decay": 0, "steps_per_epoch": 3},
            "log": {"metrics_every": 2, "checkpoint_every": 6, "samples_every": 0, "keep_every": "epoch"},
            "resources": {"loader_workers": 0},
        }
        return create_or_open_training(train_from_table({**table, **standard, **changes}, folder))

    def again(self, job: TrainJob, output: str, **changes: Any) -> TrainJob:
        """Another training like this one."""
        table = train_to_table(job.file)
        table["model"] = {**table["model"], "kind": self.KIND}
        del table["output"]
        return self.begun(table, Path(job.store.url).parent, output, **{"init": {}, **changes})

    def test_diverged_it_goes_on_with_another_learning_rate_as_if_it_had_not(self, job: TrainJob) -> None:
        whole = self.again(job, "whole")
        train(LoopSetup.of(whole))
        job.store.publish(STOP, b"")
        assert train(LoopSetup.of(job)) == 1
        job.store.remove(STOP)
        rate = job.file.spec.recipe.model.learning_rate
        for value in (1e30, rate):
            changed = reopen_training(job.store, overrides={"model": {"learning_rate": value}})
            changed = record_change(changed)
            if value == rate:
                assert train(LoopSetup.of(changed)) == 6
            else:
                with pytest.raises(TrainingDiverged, match=r"of step 1, .*--set: model\.\w+"):
                    train(LoopSetup.of(changed))
        rows = [untimed(row) for row in read_metrics(job.store)]
        assert [row.pop("change", None) for row in rows] == [None, 2, 2, 2, 2, 2]
        assert rows == [untimed(row) for row in read_metrics(whole.store)]

    def test_its_generators_are_to_be_had_before_its_end(self, job: TrainJob) -> None:
        """Of the newest checkpoint, as a file of their own, and from the checkpoint itself; and kept ones."""
        job.store.publish(STOP, b"")
        train(LoopSetup.of(job))
        step, made = publish_snapshot(job.store)
        data = job.store.read(snapshot_path(1))
        assert (step, made) == (
            1,
            job.file.spec.recipe.asset(f"{job.store.url}/{snapshot_path(1)}", _sha256(data)),
        )
        job.store.remove(STOP)
        pictures = [self.use(made.option, each) for each in (data, job.store.read(checkpoint_path(1)))]
        assert all(torch.equal(one, two) for one, two in zip(*pictures, strict=True))
        train(LoopSetup.of(job))
        assert train_status(job.store).snapshots == (1, 3, 6)
        assert job.store.read(snapshot_path(6)) == job.store.read(generator_path(6))
        assert publish_snapshot(job.store)[0] == 6
        assert job.store.read(snapshot_path(6)) == job.store.read(generator_path(6))

    def test_begins_with_what_another_training_ended_with(self, job: TrainJob, choices: int) -> None:
        train(LoopSetup.of(job))
        ended = job.store.read(generator_path(6))
        trainer = job.file.spec.recipe.build(seed=99, device=CPU)
        job.file.spec.recipe.equip(trainer, by_url(job.files.recipe))
        assert trainer.file_bytes() != ended
        assert trainer.start_from({"x": ended}, "generator", strict=True) == []
        assert trainer.file_bytes() == ended
        other = self.again(job, "other", seed=99, init={"weights": f"{job.store.url}/{generator_path(6)}"})
        assert other.fingerprint != job.fingerprint
        other.store.publish(STOP, b"")
        train(LoopSetup.of(other))
        other.store.remove(STOP)
        trainer.step(batch(choices))
        rows = read_metrics(other.store)
        assert len(rows) == 1
        (job.store.root / generator_path(6)).unlink()  # type: ignore[attr-defined]
        assert train(LoopSetup.of(reopen_training(other.store))) == 6, "it needs the file no more"

    def test_begins_with_all_networks_of_a_checkpoint(self, job: TrainJob, choices: int) -> None:
        train(LoopSetup.of(job))
        state = job.store.read(checkpoint_path(6))
        trainer = job.file.spec.recipe.build(seed=99, device=CPU)
        job.file.spec.recipe.equip(trainer, by_url(job.files.recipe))
        trainer.start_from({"x": state}, "both", strict=True)
        assert trainer.file_bytes() == job.store.read(generator_path(6)), "averages, if there are any"
        wanted = read_state_dict(state)
        found = read_state_dict(checkpoint_bytes("", 0, {"training": trainer.state_dict()}))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
        trainer.step(batch(choices))

    def test_weights_that_do_not_fit_are_refused_or_taken_by_layers(self, job: TrainJob) -> None:
        train(LoopSetup.of(job))
        state = torch.load(io.BytesIO(job.store.read(checkpoint_path(6))), weights_only=True)
        training = state["training"]
        (network, *_), (name, *others) = training["networks"], next(iter(training["networks"].values()))
        for tables in (training["networks"], training.get("averages", {})):
            if network in tables:
                tables[network][name] = torch.zeros(1, 2, 3)
        data = checkpoint_bytes("", 6, {"training": training})
        path = Path(job.store.url).parent / "weights.pt"
        path.write_bytes(data)
        with pytest.raises(
            OptionError, match=rf"init\.weights = '.*weights\.pt': {network}: .* {re.escape(name)} is"
        ):
            self.again(job, "strict", init={"weights": str(path)})
        assert not (path.parent / "strict").exists()
        layer = name.rpartition(".")[0]
        if all(other.rpartition(".")[0] == layer for other in others):  # then nothing is left
            with pytest.raises(OptionError, match="no layer of it fits one of"):
                self.again(job, "loose", init={"weights": str(path), "strict": False})
            return
        loose = self.again(job, "loose", init={"weights": str(path), "strict": False})
        notes = [note for note in train_status(loose.store).notes if note.startswith(f"init: {network}: ")]
        assert re.fullmatch(rf".* layers taken; begun at random: {layer}; not used: {layer}", notes[0]), notes


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the metrics without what differs from run to run."""
    return {name: row[name] for name in row if name not in ("seconds", "data_seconds", "time")}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
