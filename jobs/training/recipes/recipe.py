"""The seam between what a training is and what runs it.

A recipe is a small frozen description out of a job file; it builds a trainer, once per worker. The loop, the
data, the evaluation, status and reports know only these two.

Importing this loads no torch.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast

from jobs.config.tables import later_options, parse_table, without_defaults
from jobs.stores.filesystems import option_place
from nst.errors import OptionError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nst.gan.parallel import DDPOptions, Share
    from nst.gan.sampling import Preprocessing
    from nst.gan.starting import Sides
    from nst.stylizer import AssetRef, Assets

__all__ = ["Choice", "Recipe", "Trainer", "Translation"]

_LARGEST_CROP = 8192
_CHANGEABLE = re.compile(
    r"(?:\w+_)?learning_rate|lambda_\w+|penalty(?:_\w+)?|\w+_weight|precision|max_gradient_norm"
)
_SCHEDULE_END = ("schedule.n_epochs", "schedule.n_epochs_decay")


class Trainer(Protocol):
    """Networks and all else that training changes."""

    dtype: torch.dtype
    """Of parameters and images."""

    @property
    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """Those whose learning rates the schedule sets; the first one's is recorded."""
        ...

    def start_from(self, files: Mapping[str, bytes], networks: Sides, *, strict: bool) -> list[str]:
        """Begin with weights from files instead of random ones; before `distribute`, and before any step.

        Args:
            files: by name: checkpoints of trainings, what they ended with, and whatever else has such networks.
            networks: the ones that begin with them.
            strict: each of these is in the files, and fits. Else layers are taken whose names and shapes fit.

        Returns:
            If not strict, what was taken and what was not, for people.

        Raises:
            WeightsError: a file is not readable, or does not fit.
        """
        ...

    def distribute(self, share: Share, options: DDPOptions) -> None:
        """From now on, train together with the other processes of torch's default group, which were built from
        the same recipe and seed."""
        ...

    def step(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Train on a batch.

        Args:
            images: (n, 3, h, w) in [-1, 1] for each of a sample's choices, in their order; of a distributed
                training, this process's part of the batch.

        Returns:
            Losses by name, detached scalars, always of the same names: means over `images`.
        """
        ...

    def plateau_loss(self, losses: Mapping[str, float]) -> float:
        """What is to fall, else `schedule.lr_policy = "plateau"` lowers the learning rates."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on to the bit; of tensors and plain values. What is found in it by
        others: state dicts of all networks, by name, in the table `networks`, and, if there are any, of their
        averages, in the table `averages`."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def file_bytes(self) -> bytes:
        """A .safetensors: what the training ends with. See `Recipe.asset`."""
        ...

    def samples(self, photos: Mapping[str, Sequence[Tensor]], side: int) -> Tensor:
        """A picture of what became of photographs.

        Args:
            photos: of each collection, (1, 3, h, w) in [-1, 1] each.
            side: of each image in the picture, in pixels; less, if the picture would be too large else.

        Returns:
            (3, H, W) in [-1, 1].
        """
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """A photograph that a sample is made of."""

    collection: str
    place: int
    """Its number in the collection, from 0."""
    stream: str
    """The name of the random numbers that it is cropped by."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A use that the trained networks are for: photographs of one collection become like those of another."""

    name: str
    """As in the names of its distances: fid_NAME."""
    source: str
    """A collection."""
    target: str
    """A collection, which the translated photographs are compared with."""
    translate: Callable[[Tensor], Tensor]
    """(N, 3, H, W) in [0, 1] to the same, on the device that was asked for."""
    shown: Callable[[Tensor], Tensor] = lambda images: images
    """What photographs of the target, in the same form, are compared as: gray ones of a target that is gray."""


class Recipe(ABC):
    """What is trained, as a job file says it. Every implementation is a frozen dataclass: its field `model` is
    the file's table [model], the others are options beside it, by default places of collections of photographs.

    A recipe whose file imports torch within functions only keeps `nst status` and `nst report` fast.
    """

    __slots__ = ()
    also_read: ClassVar[frozenset[str]] = frozenset()
    """What `read` takes though it is no option of this kind, for the sake of files from before."""
    model: Any
    """An instance of `model_options()`."""

    # The job file

    @classmethod
    @abstractmethod
    def model_options(cls) -> type[Any]:
        """The frozen dataclass of the table [model]."""

    @classmethod
    def option_names(cls) -> list[str]:
        """The options beside the table [model]."""
        names = [item.name for item in dataclasses.fields(cast(Any, cls))]
        return [name for name in names if name != "model" and name not in cls.also_read]

    @classmethod
    def read(cls, table: Mapping[str, Any], base: Path) -> Self:
        """The recipe in a job file's table.

        Args:
            table: with a table `model` that has no `kind`.
            base: the folder that relative paths are taken from.

        Raises:
            OptionError: an option is unknown, missing, or has a value that it cannot take.
        """
        places = {name: option_place(name, table.get(name), base) for name in cls.option_names()}
        model = parse_table(cls.model_options(), table["model"], "model")
        return cast(Any, cls)(**places, model=model)  # type: ignore[no-any-return]

    def table(self) -> dict[str, Any]:
        """The inverse of `read`. A training is the same only while this is: an option of the model that came
        later is left out while it has its default."""
        model = without_defaults(self.model, later_options(self.model))
        return {**dataclasses.asdict(cast(Any, self)), "model": model}

    @classmethod
    def changeable(cls) -> tuple[str, ...]:
        """Options that may have other values when a training goes on, by their names in a job file: all that is
        remembered from step to step must fit any values of theirs. By default, those of [model] that are named
        as learning rates, weights of losses, penalties or precision, and the end of the schedule."""
        names = [item.name for item in dataclasses.fields(cls.model_options())]
        return (*(f"model.{name}" for name in names if _CHANGEABLE.fullmatch(name)), *_SCHEDULE_END)

    def check_data(self, data: Preprocessing) -> None:
        """Raises OptionError, of the table `data`: its images are not what the networks need."""
        data.check_multiple(self.multiple)
        refusal = self.refusal(data.crop_size, data.crop_size) if data.square else None
        if refusal is not None:
            sides = range(self.multiple, _LARGEST_CROP, self.multiple)
            least = next((side for side in sides if self.refusal(side, side) is None), None)
            raise OptionError("crop_size", data.crop_size, reason=f"{refusal}; the least is {least}")

    def refusal(self, height: int, width: int) -> str | None:  # noqa: ARG002
        """Why the networks cannot be trained on images of this size; None: they can, as is the default."""
        return None

    # Photographs

    @property
    def collections(self) -> Mapping[str, str]:
        """Places of photographs by the collection's name, in order."""
        return {name: getattr(self, name) for name in self.option_names()}

    @staticmethod
    def option_of(collection: str) -> str:
        """The name of the option that says where a collection is."""
        return collection

    @property
    def multiple(self) -> int:
        """What images' heights and widths are multiples of."""
        return 1

    def epoch_samples(self, photos: int) -> int:
        """How many samples there are until each photograph was seen.

        Args:
            photos: in the largest collection.
        """
        return photos

    @staticmethod
    def stream_of(collection: str) -> str:
        """The name of the random numbers by which a collection's photographs are cropped."""
        return collection

    def choose(self, sample: int, photos: Mapping[str, int], seed: int) -> list[Choice]:
        """What a sample is made of: by default a photograph of every collection, each in an order of its own.

        Args:
            sample: its number, counted from 0 over the whole training.
            photos: how many each collection has.
        """
        from nst.gan.sampling import photo_index

        streams = {name: self.stream_of(name) for name in photos}
        return [
            Choice(name, photo_index(sample, count, seed, streams[name]), streams[name])
            for name, count in photos.items()
        ]

    # What is trained

    @abstractmethod
    def build(self, *, seed: int, device: torch.device) -> Trainer:
        """Equal trainers for equal arguments, in every process."""

    def assets(self) -> Sequence[AssetRef]:
        """Files that a training needs beside its photographs, as options of [model]: read once by the driver,
        of the same digests whenever it goes on."""
        return ()

    def equip(self, trainer: Any, assets: Assets) -> None:  # noqa: B027  most need nothing
        """Give a trainer of this recipe the contents of `assets`, by URL, before its first step."""

    @abstractmethod
    def asset(self, url: str, sha256: str | None = None) -> AssetRef:
        """The file that the training ends with, as the option of a method that takes it."""

    def translations(self, data: bytes, most: int, device: torch.device) -> Iterator[Translation]:  # noqa: ARG002
        """What an evaluation compares; by default nothing.

        Args:
            data: the file that a trainer made.
            most: so many at most, of a recipe whose collections each have several.
            device: where the networks are to be.
        """
        yield from ()

    # How it is told; all of these load no torch

    @staticmethod
    def grouped(losses: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Losses, or their means over steps, as people read them. The group `loss` is what a line of progress
        has room for; by default it has all, and is the only one."""
        return {"loss": dict(losses)}

    @staticmethod
    def samples_caption(collections: Sequence[str]) -> str:
        """What is in the rows of a trainer's samples."""
        return f"photographs of {', '.join(collections)}, and what became of them"
