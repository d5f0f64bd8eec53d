"""Optimization that starts from what a network paints in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from nst.errors import Diverged, OptionError
from nst.features.weights import published_bytes
from nst.feed_forward.files import painter_file
from nst.images.codec import encode_image
from nst.style_transfer.method import StyleTransfer
from nst.style_transfer.stylizer import StyleTransferStylizer
from nst.stylizer import Outcome, Stylized
from tests.nst.test_feed_forward import made, random_picture
from tests.nst.test_published_networks import made as published
from tests.nst.test_published_networks import saved

ASSETS = {
    "/s.png": encode_image(random_picture(40, 40, 1), format="png"),
    "nst:embedded": published_bytes("nst:embedded"),
    "/p": painter_file(made()),
}


def method(**options: Any) -> StyleTransfer:
    given = {"style": "/s.png", "network": "embedded", "init": "feed_forward", "init_weights": "/p", **options}
    return StyleTransfer(**{"steps": 4, "coarse_scales": (0.5,), "coarse_steps": 3, "curve": True, **given})


def build(**options: Any) -> StyleTransferStylizer:
    return method(**options).build(ASSETS, torch.device("cpu"))


class Paints:
    """Gives the same picture for every photograph."""

    def __init__(self, picture: Tensor) -> None:
        self.picture = picture
        self.seen: list[Tensor] = []

    def __call__(
        self,
        images: Sequence[Tensor],
        generators: Sequence[torch.Generator],  # noqa: ARG002
        styles: Sequence[str | None] | None = None,  # noqa: ARG002
    ) -> list[Outcome]:
        self.seen += images
        return [Stylized(self.picture) for _ in images]


def made_of(stylizer: StyleTransferStylizer, photo: Tensor) -> Stylized:
    (found,) = stylizer([photo], [torch.Generator().manual_seed(0)])
    assert isinstance(found, Stylized), found
    return found


def test_it_starts_from_what_has_the_lower_loss() -> None:
    """And then leaves out coarse scales; else all is as if nothing had been painted."""
    photo, stylizer = random_picture(48, 64), build()
    plain = made_of(build(init="photo"), photo)
    good = plain.image
    stylizer._fast = Paints(good)
    found = made_of(stylizer, photo)
    assert found.curve["scale"] == [1.0] * 4
    assert found.curve["loss"][0] == pytest.approx(min(plain.curve["loss"][3:]), rel=0.05)
    assert found.stats["evaluations"] == 6, "two were for the choice"
    stylizer._fast = Paints(torch.rand(photo.shape, generator=torch.Generator().manual_seed(1)))
    bad = made_of(stylizer, photo)
    assert bad.curve["scale"] == [0.5] * 3 + [1.0] * 4
    assert torch.equal(bad.image, plain.image)


def test_what_it_starts_from_is_the_methods_own_picture() -> None:
    photo = random_picture(48, 64)
    stylizer = build(style_blend=None)
    seen = Paints(photo)
    own = stylizer._fast
    assert own is not None
    (expected,) = own([photo], [torch.Generator()])
    assert isinstance(expected, Stylized)
    stylizer._fast = seen
    made_of(stylizer, photo)
    assert torch.equal(seen.seen[0], photo)
    assert float((expected.image - photo).abs().mean()) > 0.01


@pytest.mark.parametrize("keep", ["luminance", "original", "match"])
def test_with_colors_that_are_kept(keep: str) -> None:
    assert made_of(build(preserve_color=keep), random_picture(48, 64)).image.shape == (3, 48, 64)


def test_a_network_that_fails_costs_nothing() -> None:
    photo, stylizer = random_picture(48, 64), build()
    stylizer._fast = lambda images, generators, styles: [Diverged("not finite") for _ in images]  # noqa: ARG005
    assert torch.equal(made_of(stylizer, photo).image, made_of(build(init="photo"), photo).image)


def test_its_files_are_named_by_their_options() -> None:
    assert {ref.option: ref.url for ref in method().assets()} == {
        "style": "/s.png",
        "init_weights": "/p",
        "weights": "nst:embedded",
    }
    refs = {ref.option: ref.url for ref in method(init_weights="embedded").assets()}
    assert refs["init_weights"] == "nst:painter"
    assert "init_weights" not in {ref.option for ref in method(init="photo").assets()}


def test_a_network_of_one_style_is_none_for_it() -> None:
    with pytest.raises(OptionError, match=r"init_weights = '/p': is a network of one style"):
        method().build({**ASSETS, "/p": saved(published())}, torch.device("cpu"))


def test_what_does_not_go_together() -> None:
    with pytest.raises(OptionError, match=r"init = 'warm'.*photo, noise, gray, picture, feed_forward"):
        method(init="warm")
    with pytest.raises(OptionError, match=r"init = 'feed_forward'"):
        method().build_from([random_picture(30, 30)], None, torch.device("cpu"))
