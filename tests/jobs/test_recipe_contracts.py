"""The contract of trainings, held by every one there is."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.training.recipes import TRAININGS
from nst.features import read_state_dict
from nst.methods import METHODS
from tests.contracts.method import CPU, image_of, photographs, seeded
from tests.contracts.training import RecipeContract
from tests.jobs.test_training import TINY
from tests.jobs.test_training_styles import MODEL
from tests.jobs.toy_training import Toy


def stylize(kind: str, **options: Any) -> None:
    data = options.pop("data")
    method = METHODS[kind](**options)  # type: ignore[call-arg]
    (ref,) = method.assets()
    (photo,) = photographs()[:1]
    assert image_of(method.build({ref.url: data}, CPU)([photo], seeded(1))[0]).shape == photo.shape


class TestCycleGAN(RecipeContract):
    KIND = "cyclegan"

    @pytest.fixture
    def table(self) -> dict[str, Any]:
        return {"a": "/a", "b": "/b", "model": {**TINY, "pool_size": 3, "ema_decay": 0.5}}

    def use(self, option: str, data: bytes) -> None:
        for direction in ("A2B", "B2A"):
            stylize("cyclegan", data=data, direction=direction, **{option: "/g"})


class TestModulated(RecipeContract):
    KIND = "modulated"

    @pytest.fixture
    def table(self) -> dict[str, Any]:
        model = {name: value for name, value in MODEL.items() if name != "generator"}
        return {"styles": {"photo": "/p", "ukiyo-e": "/u", "pastel": "/q"}, "model": model}

    def use(self, option: str, data: bytes) -> None:
        for style in ("ukiyo-e", "pastel"):
            stylize("modulated", data=data, style=style, **{option: "/g"})


class TestToy(RecipeContract):
    KIND = "toy"
    CLASS = Toy

    @pytest.fixture(autouse=True)
    def registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(TRAININGS._places, "toy", "tests.jobs.toy_training:Toy")

    @pytest.fixture
    def table(self) -> dict[str, Any]:
        return {"photos": "/p", "model": {}}

    def use(self, option: str, data: bytes) -> None:
        assert option == "color"
        assert {name.removeprefix("network.") for name in read_state_dict(data)} == {"weight", "bias"}


def test_no_training_is_without_the_contract() -> None:
    assert {suite.KIND for suite in RecipeContract.__subclasses__()} == {*TRAININGS, "toy"}
