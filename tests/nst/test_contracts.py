"""The contract of methods, held by every one there is."""

from __future__ import annotations

from typing import Any

import pytest

from nst.features.weights import published_bytes
from nst.feed_forward.files import painter_file
from nst.images.codec import encode_image
from nst.methods import METHODS
from nst.stylizer import Assets
from tests.contracts.method import MethodContract, photographs
from tests.nst.test_cyclegan import generator_file, small
from tests.nst.test_feed_forward import made as made_painter
from tests.nst.test_modulated_method import made

STYLE = encode_image(photographs()[1], format="png")


class TestStyleTransfer(MethodContract):
    KIND = "style_transfer"

    @pytest.fixture(params=["photo", "noise"])
    def options(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"style": "/s.png", "network": "embedded", "steps": 3, "coarse_steps": 2, "init": request.param}

    @pytest.fixture
    def assets(self) -> Assets:
        return {"/s.png": STYLE, "nst:embedded": published_bytes("nst:embedded")}


class TestFeedForward(MethodContract):
    KIND = "feed_forward"

    @pytest.fixture(params=["none", "match"])
    def options(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return {"style": "/s.png", "weights": "/p.safetensors", "preserve_color": request.param}

    @pytest.fixture
    def assets(self) -> Assets:
        return {"/s.png": STYLE, "/p.safetensors": painter_file(made_painter())}


class TestDeepDream(MethodContract):
    KIND = "deepdream"

    @pytest.fixture(params=[None, "/guide.png"], ids=["free", "guided"])
    def guide(self, request: pytest.FixtureRequest) -> str | None:
        found: str | None = request.param
        return found

    @pytest.fixture
    def options(self, guide: str | None) -> dict[str, Any]:
        return {"network": "embedded", "steps": 2, "octaves": 2, "jitter_px": 4, "guide": guide}

    @pytest.fixture
    def assets(self, guide: str | None) -> Assets:
        guides = {} if guide is None else {guide: STYLE}
        return {"nst:embedded": published_bytes("nst:embedded"), **guides}


class TestCycleGAN(MethodContract):
    KIND = "cyclegan"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"weights": "/g.safetensors"}

    @pytest.fixture
    def assets(self) -> Assets:
        network, config = small()
        return {"/g.safetensors": generator_file({"A2B": network}, config)}


class TestModulated(MethodContract):
    KIND = "modulated"

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"generator": "/g.safetensors", "style": "ukiyo-e"}

    @pytest.fixture
    def assets(self) -> Assets:
        return {"/g.safetensors": made()[1]}


def test_no_method_is_without_the_contract() -> None:
    assert {suite.KIND for suite in MethodContract.__subclasses__()} - {"toy"} == set(METHODS)
