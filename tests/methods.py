"""Methods for tests: cheap, and with every way to go wrong. A photograph's width says what happens to it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

import torch
from torch import Tensor

from nst.errors import ImageError, OptionError, UnknownStyle
from nst.images.codec import as_float
from nst.methods import METHODS
from nst.stylizer import AssetRef, Assets, Frame, Method, Outcome, Stylized

KILL, RAISE, HANG, NAN, TYPED, HOG = 61, 62, 63, 64, 65, 66
"""Widths of photographs that kill their worker, raise, hang, come out as NaN, fail with an ImageError, or take
2 GiB of memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stub:
    """Inverts the photograph, with a little noise from its generator."""

    delay_s: float = 0.0
    """Sleeps this long per photograph, or per evaluation."""
    steps: int = 0
    """Evaluations per photograph; 0: it counts none."""
    picture: str | None = None
    """A picture that it needs and does not use."""
    pictures: tuple[str, ...] = ()
    """More of them."""
    curve: bool = False
    """Gives a curve of four evaluations, and the pictures of the second and the last."""
    tally: str | None = None
    """A file that grows by one byte per photograph."""
    change: float | None = None
    """What its stats say of how far pictures are from their photographs."""
    fits: int | None = None
    """Runs out of memory with more photographs at once."""
    broken: str | None = None
    """`build`: cannot be built; `exit`: dies while being built."""

    def __post_init__(self) -> None:
        if self.delay_s < 0:
            raise OptionError("delay_s", self.delay_s, reason="must be at least 0")

    def assets(self) -> list[AssetRef]:
        named = {} if self.picture is None else {"picture": self.picture}
        named |= {f"pictures[{index}]": url for index, url in enumerate(self.pictures)}
        return [AssetRef(option=option, url=url, kind="image") for option, url in named.items()]

    def notes(self, assets: Assets) -> list[str]:  # noqa: ARG002
        return []

    def build(self, assets: Assets, device: torch.device) -> Callable[..., list[Outcome]]:  # noqa: ARG002
        if self.broken == "build":
            raise OptionError("broken", self.broken, reason="cannot be built")
        if self.broken == "exit":
            os._exit(9)
        return Stepper(self) if self.steps else self.stylize

    def stylize(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:
        if self.fits is not None and len(images) > self.fits:
            raise torch.OutOfMemoryError(f"{len(images)} photographs do not fit")
        return [self._one(image, generator) for image, generator in zip(images, generators, strict=True)]

    def _one(self, image: Tensor, generator: torch.Generator) -> Outcome:
        time.sleep(self.delay_s)
        if self.tally is not None:
            with open(self.tally, "ab") as tally:
                tally.write(b".")
        width = image.shape[-1]
        if width == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if width == RAISE:
            raise RuntimeError("this one raises")
        if width == HANG:
            time.sleep(3600)
        if width == NAN:
            return Stylized(torch.full_like(image, float("nan")))
        if width == TYPED:
            return ImageError("not this one")
        if width == HOG:
            hog = torch.ones(2**31, dtype=torch.uint8)
            time.sleep(3600)
            del hog
        noise = torch.rand(image.shape, generator=generator) / 50
        stats = {"mean": float(image.mean())} | ({} if self.change is None else {"change": self.change})
        outcome = Stylized((1 - image + noise).clamp(0, 1), stats)
        if not self.curve:
            return outcome
        curve = {"scale": [1.0, 1.0, 2.0, 2.0], "loss": [1e6, 1e4, 2e4, float(image.mean())]}
        frames = [Frame(2, outcome.image[:, ::2, ::2]), Frame(4, outcome.image)]
        return replace(outcome, curve=curve, frames=frames)


class Stepper:
    """Does what a `Stub` does, in steps."""

    def __init__(self, method: Stub) -> None:
        self._method = method
        self.evaluations = 0

    def __call__(self, images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:
        for image, generator in zip(images, generators, strict=True):
            for _ in self.iterate(image, generator):
                pass
        return replace(self._method, delay_s=0.0).stylize(images, generators)

    def iterate(self, image: Tensor, generator: torch.Generator) -> Iterator[None]:  # noqa: ARG002
        for _ in range(self._method.steps):
            time.sleep(self._method.delay_s)
            self.evaluations += 1
            yield


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner(Stub):
    """Learns which photographs it has seen, and darkens by what it has learned."""

    adapt_steps: int = 0
    adapt_photos: int = 64
    dies_at: int | None = None
    """The step at which the first process ends; -1: every process ends at once."""
    kills: bool = False
    """Whether decoding a photograph of the width `KILL` ends the process."""
    goes_wrong: Literal["nan", "raise", "hang"] | None = None
    """What the third step does; `hang`: that of the first process."""
    learned: str | None = None

    def assets(self) -> list[AssetRef]:
        found = Stub.assets(self)
        return (
            found
            if self.learned is None
            else [*found, AssetRef(option="learned", url=self.learned, kind="weights")]
        )

    def adapted(self, url: str, sha256: str) -> Learner:  # noqa: ARG002
        return replace(self, learned=url, adapt_steps=0)

    def adaptation(self, assets: Assets, device: torch.device, seed: int) -> Lesson:  # noqa: ARG002
        return Lesson(self)

    def build(self, assets: Assets, device: torch.device) -> Callable[..., list[Outcome]]:
        assert self.learned is not None, "photographs came before the network had learned"
        known = json.loads(assets[self.learned])
        inner = Stub.build(self, assets, device)

        def paint(images: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Outcome]:
            share = 1 / (1 + known["steps"])
            return [
                replace(each, image=share * each.image) if isinstance(each, Stylized) else each
                for each in inner(images, generators)
            ]

        return paint


class Lesson:
    """See `Learner`."""

    def __init__(self, method: Learner) -> None:
        self._method = method
        self.steps, self.begun_at = 0, 0
        self._photos: set[float] = set()

    def prepared(self, photo: Tensor) -> float:
        if self._method.kills and photo.shape[2] == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        assert photo.dtype == torch.uint8, "float32 of a whole photograph takes four times the memory"
        mean = float(as_float(photo).mean())
        self._photos.add(round(mean, 6))
        return mean

    def step(self, photos: Sequence[float]) -> dict[str, float]:
        if self._method.dies_at == -1 or (self._method.dies_at == self.steps and self.begun_at == 0):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._method.delay_s)
        wrong = self._method.goes_wrong if self.steps == 2 else None
        if wrong == "raise":
            raise RuntimeError("this step raises")
        if wrong == "hang" and self.begun_at == 0:
            time.sleep(3600)
        self.steps += 1
        if wrong == "nan":
            return {"loss": float("nan"), "mean": photos[0]}
        return {"loss": 1 / self.steps, "mean": photos[0]}

    def state_bytes(self) -> bytes:
        return json.dumps({"steps": self.steps}).encode()

    def restore(self, state: bytes) -> None:
        self.steps = self.begun_at = json.loads(state)["steps"]

    def file_bytes(self) -> bytes:
        known = {"steps": self.steps, "begun_at": self.begun_at, "photos": sorted(self._photos)}
        return json.dumps(known).encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class Painted(Learner):
    """Learns if it is asked to, and darkens each photograph by its style."""

    style: str | tuple[str, ...] | None = None
    style_sha256: str | tuple[str, ...] | None = None

    def _styles(self) -> tuple[str, ...]:
        return (self.style,) if isinstance(self.style, str) else self.style or ()

    def assets(self) -> list[AssetRef]:
        found = [
            AssetRef(option=f"style[{number}]", url=url, kind="image")
            for number, url in enumerate(self._styles())
        ]
        return [*Learner.assets(self), *found]

    def style_names(self, assets: Assets) -> list[str]:  # noqa: ARG002
        return [PurePosixPath(url).stem for url in self._styles()]

    def check_style(self, assets: Assets) -> None:
        pass

    def build(self, assets: Assets, device: torch.device) -> Callable[..., list[Outcome]]:
        inner = (Stub if self.learned is None else Learner).build(self, assets, device)
        known = self.style_names(assets)

        def paint(
            images: Sequence[Tensor],
            generators: Sequence[torch.Generator],
            styles: Sequence[str | None],
        ) -> list[Outcome]:
            painted = zip(inner(images, generators), styles, strict=True)
            return [self._in_style(outcome, style, known) for outcome, style in painted]

        return paint

    def _in_style(self, outcome: Outcome, style: str | None, known: Sequence[str]) -> Outcome:
        if style is not None and style not in known:
            return UnknownStyle(str(OptionError("style", style, choices=known)))
        if isinstance(outcome, ImageError):
            return outcome
        share = 1.0 if style is None else 0.2 + 0.8 * known.index(style) / len(known)
        return replace(outcome, image=share * outcome.image)


REGISTRY: Mapping[str, type[Method]] = {**METHODS, "stub": Stub, "learner": Learner, "painted": Painted}
