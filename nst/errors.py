"""What can go wrong, by whose concern it is.

NstError
├── OptionError      an option has a value that it cannot take: the user's to mend
├── WeightsError     a network's weights are not to be had, damaged, or of another network
└── ImageError       one image cannot be done; in a job it becomes that image's `failed` row
    ├── DecodeError      not a picture, or a damaged one
    ├── ImageTooLarge    more pixels than the limit; said from the header, before decoding
    ├── ImageTooSmall    fewer pixels than the network's layers need
    ├── UnknownStyle     the image is to have a style that the network was not trained on
    └── Diverged         the optimization did not come back from non-finite or exploding steps
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DecodeError",
    "Diverged",
    "ImageError",
    "ImageTooLarge",
    "ImageTooSmall",
    "NstError",
    "OptionError",
    "UnknownStyle",
    "WeightsError",
]


class NstError(Exception):
    """Base of every error this project raises on purpose."""


class OptionError(NstError, ValueError):
    """An option was given a value that it cannot take.

    The message names the option, the value and what it may be instead: `choices` (a closed list) or
    `reason` (free text). `option` may be prefixed on its way up: `layers` becomes `method.layers`.
    """

    def __init__(
        self, option: str, value: object, *, choices: Iterable[str] | None = None, reason: str | None = None
    ) -> None:
        self.option, self.value, self.reason = option, value, reason
        self.choices = None if choices is None else tuple(choices)
        super().__init__(option, value)

    def within(self, table: str) -> OptionError:
        """This error, for an option that lives in `table`."""
        return OptionError(f"{table}.{self.option}", self.value, choices=self.choices, reason=self.reason)

    def __str__(self) -> str:
        text = f"{self.option} = {self.value!r}"
        if self.reason:
            text += f": {self.reason}"
        if self.choices is not None:
            unknown = self.option.rpartition(".")[2] if self.reason == "unknown option" else str(self.value)
            close = [] if unknown in self.choices else difflib.get_close_matches(unknown, self.choices, n=1)
            text += ": not one of the choices" if not self.reason else ""
            text += f" (did you mean {close[0]!r}?)" if close else ""
            text += f". Choices: {', '.join(self.choices)}"
        return text

    def __reduce__(self) -> tuple[object, ...]:  # keeps the keywords when it crosses a process border
        return _rebuild_option_error, (self.option, self.value, self.choices, self.reason)


def _rebuild_option_error(
    option: str, value: object, choices: tuple[str, ...] | None, reason: str | None
) -> OptionError:
    return OptionError(option, value, choices=choices, reason=reason)


class WeightsError(NstError):
    """A network's weights are not to be had, damaged, or belong to another network."""


class ImageError(NstError):
    """One image cannot be done. It says nothing about its neighbors."""


class DecodeError(ImageError):
    """The bytes are no picture that can be read, or a damaged one."""


class ImageTooLarge(ImageError):
    """The header promises more pixels than the limit allows; nothing was decoded."""


class ImageTooSmall(ImageError):
    """The image has fewer pixels than the network's layers need."""


class UnknownStyle(ImageError):
    """The image is to have a style that the network was not trained on."""


class Diverged(ImageError):
    """The optimization did not come back from non-finite or exploding steps."""
