"""The contract of trainings, held by every one there is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from jobs.training.recipes import TRAININGS
from nst.features import read_state_dict
from nst.images.codec import encode_image
from nst.methods import METHODS
from tests.contracts.method import CPU, image_of, photographs, seeded
from tests.contracts.training import RecipeContract
from tests.jobs.test_training import TINY
from tests.jobs.test_training_styles import MODEL
from tests.jobs.toy_training import Toy


def stylize(kind: str, **options: Any) -> Tensor:
    data = options.pop("data")
    method = METHODS[kind](**options)  # type: ignore[call-arg]
    (ref,) = method.assets()
    (photo,) = photographs()[:1]
    picture = image_of(method.build({ref.url: data}, CPU)([photo], seeded(1))[0])
    assert picture.shape == photo.shape
    return picture


class TestCycleGAN(RecipeContract):
    KIND = "cyclegan"

    @pytest.fixture(
        params=[{}, pytest.param({"input_channels": 1, "lambda_identity": 0.0}, marks=pytest.mark.slow)],
        ids=["color", "gray to color"],
    )
    def table(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"a": "/a", "b": "/b", "model": {**TINY, "pool_size": 3, "ema_decay": 0.5, **request.param}}

    def use(self, option: str, data: bytes) -> list[Tensor]:
        return [
            stylize("cyclegan", data=data, direction=direction, **{option: "/g"})
            for direction in ("A2B", "B2A")
        ]


class TestModulated(RecipeContract):
    KIND = "modulated"

    @pytest.fixture
    def table(self) -> dict[str, Any]:
        model = {name: value for name, value in MODEL.items() if name != "generator"}
        return {"styles": {"photo": "/p", "ukiyo-e": "/u", "pastel": "/q"}, "model": model}

    def use(self, option: str, data: bytes) -> list[Tensor]:
        return [
            stylize("modulated", data=data, style=style, **{option: "/g"}) for style in ("ukiyo-e", "pastel")
        ]


class TestFeedForward(RecipeContract):
    KIND = "feed_forward"

    @pytest.fixture
    def table(self) -> dict[str, Any]:
        model = {
            "half": 4,
            "quarter": 4,
            "eighth": 4,
            "side": 8,
            "warmup_steps": 2,
            "teacher": "embedded",
            "teacher_weights": "embedded",
            "style_layers": ["relu1_1", "relu2_1"],
        }
        return {"photos": "/photos", "pictures": "/pictures", "model": model}

    def use(self, option: str, data: bytes) -> list[Tensor]:
        photo, style = photographs()[:2]
        method = METHODS["feed_forward"](style="/s", **{option: "/g"})  # type: ignore[call-arg]
        assets = {"/s": encode_image(style, format="png"), "/g": data}
        return [image_of(method.build(assets, CPU)([photo], seeded(1))[0])]


class TestFeedForwardStyles(RecipeContract):
    KIND = "feed_forward_styles"

    @pytest.fixture
    def table(self) -> dict[str, Any]:
        model = {
            "style": ["nst:style/swirls", "nst:style/rose"],
            "style_side_px": 32,
            "painter": None,
            "half": 4,
            "quarter": 4,
            "eighth": 4,
            "side": 8,
            "pieces": 2,
            "reference_side": 16,
            "teacher": "embedded",
            "teacher_weights": "embedded",
            "style_layers": ["relu1_1", "relu2_1"],
        }
        return {"photos": "/photos", "model": model}

    def use(self, option: str, data: bytes) -> list[Tensor]:
        """Without a style: those that it has learned."""
        stylizer = METHODS["feed_forward"](**{option: "/g"}).build({"/g": data}, CPU)
        photo = photographs()[0]
        styles = ["swirls", "rose", None]
        return [image_of(each) for each in stylizer([photo] * 3, seeded(3), styles=styles)]  # type: ignore[call-arg]


class TestToy(RecipeContract):
    KIND = "toy"
    CLASS = Toy

    @pytest.fixture(autouse=True)
    def registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(TRAININGS._places, "toy", "tests.jobs.toy_training:Toy")

    @pytest.fixture
    def table(self) -> dict[str, Any]:
        return {"photos": "/p", "model": {}}

    def use(self, option: str, data: bytes) -> list[Tensor]:
        assert option == "color"
        state = {name.removeprefix("network."): tensor for name, tensor in read_state_dict(data).items()}
        assert state.keys() == {"weight", "bias"}
        return [state["weight"], state["bias"]]


def test_no_training_is_without_the_contract() -> None:
    assert {suite.KIND for suite in RecipeContract.__subclasses__()} == {*TRAININGS, "toy"}


def test_options_that_came_later_leave_trainings_the_same() -> None:
    """They are recorded where they are set."""
    recipe = TRAININGS["cyclegan"]
    later = {"upsample", "input_channels", "output_channels", "discriminator_learning_rate", "beta2"}
    later |= {"max_gradient_norm", "critic_steps", "spectral_norm", "compile"}
    plain = recipe.read({"a": "/a", "b": "/b", "model": TINY}, Path("/")).table()["model"]
    assert not later & plain.keys()
    assert {*plain, *later} == {item.name for item in dataclasses.fields(recipe.model_options())}
    table = {"a": "/a", "b": "/b", "model": {**TINY, "beta2": 0.9}}
    assert recipe.read(table, Path("/")).table()["model"] == {**plain, "beta2": 0.9}

    recipe = TRAININGS["modulated"]
    table = {"styles": {"a": "/a", "b": "/b"}, "model": {}}
    plain = recipe.read(table, Path("/")).table()["model"]
    assert not {"max_gradient_norm", "critic_steps", "compile"} & plain.keys()
    changed = recipe.read({**table, "model": {"critic_steps": 2}}, Path("/"))
    assert changed.table()["model"] == {**plain, "critic_steps": 2}
