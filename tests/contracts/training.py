"""What every recipe of a training and its trainer must do."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.cli.options import options_of
from jobs.training.recipes import TRAININGS, Recipe, Trainer

CPU = torch.device("cpu")
SIDE = 16


def batch(choices: int, seed: int = 0, count: int = 2) -> list[Tensor]:
    """Images (count, 3, SIDE, SIDE) in [-1, 1] for each of a sample's choices."""
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.rand(count, 3, SIDE, SIDE, generator=generator) - 1 for _ in range(choices)]


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
        return recipe.build(seed=3, device=CPU)

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

    def use(self, option: str, data: bytes) -> None:
        """Build the method that takes the file, and stylize with it."""
        raise NotImplementedError
